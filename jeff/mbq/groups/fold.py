"""Folding balance scales into the weights of a block, exactly."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jeff.mbq.groups.infer import Group
from jeff.program.channels import ChannelMap
from jeff.quantize.affine import exact_divide

__all__ = ["fold_scale", "scale_targets"]


def scale_targets(
    weights: Mapping[str, jax.Array],
    targets: Mapping[str, ChannelMap],
    scale: jax.Array,
) -> dict[str, jax.Array]:
    """The group's own weights times the scale of their input channels.

    Args:
      weights: Weights of a block, by entry name.
      targets: Channel maps, from `Group.targets`.
      scale: ``[K]``, positive.

    Returns:
      The changed weights only, in their own dtype.

    Examples:
      >>> import numpy as np
      >>> targets = {"w": ChannelMap(np.array([[0], [1]]))}
      >>> weights, scale = {"w": jnp.ones((2, 3))}, jnp.array([2.0, 4.0])
      >>> print(scale_targets(weights, targets, scale)["w"])
      [[2. 2. 2.]
       [4. 4. 4.]]
    """
    changed = {}
    for name, channel_map in targets.items():
        w = weights[name]
        product = w.astype(jnp.float32) * _spread(channel_map, scale)
        changed[name] = product.astype(w.dtype)
    return changed


def fold_scale(
    weights: Mapping[str, jax.Array], group: Group, scale: jax.Array
) -> dict[str, jax.Array]:
    """The block's weights with a scale folded in; the function they compute is equal.

    The linears of the group are multiplied, what produces their input is divided.

    Args:
      weights: Weights of a block, by entry name.
      group: The group; must have `Group.sources`.
      scale: ``[K]``, positive, equal within the classes of `Group.share`.

    Returns:
      All weights of the block.

    Raises:
      ValueError: If the group has nothing to fold into.

    Examples:
      >>> from jeff import program
      >>> from jeff.mbq.groups.infer import infer_groups
      >>> apply = lambda p, x: (x * p["norm"]) @ p["w"]
      >>> params, x = {"norm": jnp.ones(2), "w": jnp.ones((2, 2))}, jnp.ones((1, 2))
      >>> (group,) = infer_groups(program.whole(apply, params, x), lambda site: True)
      >>> folded = fold_scale(params, group, jnp.array([2.0, 4.0]))
      >>> print(folded["norm"], folded["w"][:, 0], apply(folded, x) - apply(params, x))
      [0.5  0.25] [2. 4.] [[0. 0.]]

    References:
      SmoothQuant, arXiv 2211.10438, equation 3; MBQ, arXiv 2412.19509, section 3.2. A
      norm stored around zero, ``1 + w``, becomes ``(1 + w) / s - 1`` (ours).
    """
    if group.sources is None:
        raise ValueError(
            f"group {', '.join(group.sites)} cannot be folded: {group.note}"
        )
    new = dict(weights)
    for name, channel_map in group.sources.items():
        w = new[name].astype(jnp.float32)
        divided = (
            exact_divide(w + channel_map.offset, _spread(channel_map, scale))
            - channel_map.offset
        )
        new[name] = divided.astype(weights[name].dtype)
    new.update(scale_targets(new, group.targets, scale))
    return new


def _spread(channel_map: ChannelMap, scale: jax.Array) -> jax.Array:
    """The scale of every element of a weight; 1 where it has no channel."""
    padded = jnp.concatenate([scale.astype(jnp.float32), jnp.ones(1, jnp.float32)])
    return padded[channel_map.index]
