"""What happens where a Gaussian weight is used, for one voter."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jeff import base
from jeff.dm_bnn import keys
from jeff.dm_bnn.flipout import flipout, layout
from jeff.dm_bnn.levels import Leaf
from jeff.dm_bnn.mean_field import MeanField
from jeff.dm_bnn.wide import added, in_operands_dtype, widened
from jeff.program.presentation import Presentation
from pallas_kernels import threefry
from pallas_kernels.draw_matmul import draw_matmul

__all__ = ["Drawing", "Undrawn", "draw_leaf", "voter_rule"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Undrawn(MeanField):
    """A random weight on its way to its sites, where the rule draws it.

    Attributes:
      name: The leaf's.
    """

    name: str = dataclasses.field(metadata={"static": True})

    def decode(self) -> jax.Array:
        """Refuses: the mean would stand for the weight, unnoticed.

        Raises:
          NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"the random leaf {self.name!r} is used where no rule reaches it: take it "
            "out of the posterior, dm_bnn.posterior(..., where=...)"
        )


class Drawing(NamedTuple):
    """How noise is drawn and held.

    Attributes:
      alpha: Share of a layer that is memorised at a time.
      shared: Whether branches of a level use the same noise.
      draw: ``draw(key, count) -> float32[count]``.
      tile: Draws held at a time.
    """

    alpha: float
    shared: bool
    draw: Callable[[Any, int], jax.Array]
    tile: int


def voter_rule(
    key: jax.Array,
    indices: Sequence[Any],
    leaves: Mapping[str, Leaf],
    ways: Mapping[str, str],
    views: Mapping[str, Presentation],
    drawing: Drawing,
) -> base.Rule:
    """The rule of one voter; maps over `indices` make the tree.

    Args:
      key: A typed key.
      indices: Branch taken at each level, traced under the maps.
      leaves: The random leaves.
      ways: By site.
      views: By site.
      drawing: How noise is drawn.

    Returns:
      The rule.
    """

    def rule(site, op, x, w):
        if not isinstance(w, MeanField):
            return op(x, w)
        way = ways[site.name]
        if way == "mean":
            return op(x, w.mean)
        level = leaves[site.leaf].level
        of_leaf = keys.leaf_key(key, site.leaf, *site.index)
        of_voter = keys.voter_key(of_leaf, indices, level, shared=drawing.shared)
        if way in ("lrt", "flipout"):
            view = views[site.name]
            linear = in_operands_dtype(op, view)
            if way == "lrt":
                return local(linear, x, w, of_voter, drawing.draw)
            return flipout(linear, x, w, of_voter, drawing.draw, layout(view))
        # An output that is wider than the input keeps its digits.
        wide = x.astype(max(x.dtype, site.dtype, key=lambda dtype: dtype.itemsize))
        y = draw_matmul(
            of_voter[None], wide, w.mean, w.std, method=way, alpha=drawing.alpha,
            draw=drawing.draw, tile=drawing.tile,
        )  # fmt: skip
        return y[0].astype(site.dtype)

    return rule


def local(op, x, w: MeanField, key: jax.Array, draw: Any) -> jax.Array:
    """Local reparameterisation: every output is drawn from its own Gaussian.

    Args:
      op: The operation, linear in the weight, with a result as wide as its operands.
      x: Its input.
      w: The weight.
      key: Of this voter.
      draw: ``draw(key, count)``.

    Returns:
      ``op(x, mean) + sqrt(op(x^2, std^2)) * noise``, of the dtype of the first term;
      the second is made in float32 where operands have 16 bits.

    References:
      Kingma, Salimans and Welling, "Variational dropout and the local
      reparameterization trick", NeurIPS 2015, eq. 6.
    """
    center = op(x, w.mean)
    variance = op(jnp.square(widened(x)), jnp.square(widened(w.std)))
    noise = draw(key, center.size).reshape(center.shape).astype(variance.dtype)
    # The derivative of a square root at 0 is infinite; no variance, no noise.
    certain = variance == 0
    spread = jnp.sqrt(jnp.where(certain, 1, variance))
    return added(center, jnp.where(certain, 0, spread * noise))


def draw_leaf(
    key: jax.Array,
    name: str,
    w: MeanField,
    leaf: Leaf,
    indices: Sequence[Any],
    drawing: Drawing,
) -> jax.Array:
    """One voter's whole weight, by the keys that its site would use.

    Args:
      key: A typed key.
      name: The leaf's.
      w: The leaf.
      leaf: How it is used.
      indices: Branch taken at each level.
      drawing: How noise is drawn.

    Returns:
      An array like the leaf, ``mean + std * noise``.
    """
    entry_axes = tuple(a for a in range(w.ndim) if a not in leaf.stack)
    contract = leaf.contract or entry_axes[-1:]
    rows = tuple(a for a in leaf.kept if a not in contract)
    order = (*leaf.stack, *rows, *contract)
    sizes = [w.shape[a] for a in order]
    width = math.prod(w.shape[a] for a in contract)
    count = math.prod(w.shape[a] for a in rows)

    def entry(index):
        of_leaf = keys.leaf_key(key, name, *index)
        of_voter = keys.voter_key(of_leaf, indices, leaf.level, shared=drawing.shared)

        def row(number):
            return drawing.draw(threefry.fold_in(of_voter, number), width)

        return jax.vmap(row)(jnp.arange(count))

    stack = tuple(w.shape[a] for a in leaf.stack)
    if stack:  # the entries of a stack, in order
        places = jnp.unravel_index(jnp.arange(math.prod(stack)), stack)
        noise = jax.vmap(entry)(places)
    else:
        noise = entry(())
    noise = noise.reshape(sizes).transpose([order.index(a) for a in range(w.ndim)])
    wide = w.mean.astype(jnp.float32) + w.std.astype(jnp.float32) * noise
    return wide.astype(w.dtype)
