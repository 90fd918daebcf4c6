"""The part of a params tree that gradients can flow to, and the rest.

``jax.grad`` refuses integer leaves, and a tree of stored weights is full of them: the
codes of a quantized weight, counters, random keys. The two functions here take such a
tree apart and put it together again, inside or outside of ``jit``.

References:
  ``jax.grad`` (its argument `allow_int`),
  https://docs.jax.dev/en/latest/_autosummary/jax.grad.html.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jeff import tree

__all__ = ["merge", "trainable"]


def trainable(
    params: Any, where: Callable[[str, Any], bool] | None = None
) -> tuple[Any, Any]:
    """Splits params into its floating-point leaves and everything else.

    The arrays *inside* a `StoredWeight` are leaves here: the scales of a quantized
    weight are trainable, its codes are not.

    Args:
      params: Any pytree, with or without stored weights in it.
      where: ``where(name, leaf)``: which of the floating-point leaves to train, all if
        None. A leaf of a stored weight is called ``layers.3.attn.q.kernel.scale``.

    Returns:
      ``(floats, rest)``, two trees in the containers of `params`, each with None where
      the other has the leaf. `merge` is the exact inverse.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> params = {"w": jnp.array([1.0, 2.0]), "step": jnp.int32(3)}
      >>> floats, rest = trainable(params)
      >>> print(floats["w"], floats["step"], rest["w"], rest["step"])
      [1. 2.] None None 3
      >>> def loss(floats):
      ...     params = merge(floats, rest)
      ...     return jnp.sum(params["w"] ** 2)
      >>> print(jax.grad(loss)(floats)["w"])
      [2. 4.]
    """
    pairs, treedef = jax.tree_util.tree_flatten_with_path(params)
    chosen = [
        _is_floating(leaf)
        and (where is None or bool(where(tree.path_name(path), leaf)))
        for path, leaf in pairs
    ]
    leaves = [leaf for _, leaf in pairs]
    floats = [x if take else None for x, take in zip(leaves, chosen, strict=True)]
    rest = [None if take else x for x, take in zip(leaves, chosen, strict=True)]
    return treedef.unflatten(floats), treedef.unflatten(rest)


def merge(floats: Any, rest: Any) -> Any:
    """Puts together what `trainable` took apart.

    Args:
      floats: First tree from `trainable`, its leaves possibly changed.
      rest: Second tree from `trainable`.

    Returns:
      The params tree.

    Raises:
      ValueError: If the two are not halves of one tree: another structure, or a leaf
        in both.

    Examples:
      >>> merge(*trainable({"a": 1.5, "b": 2}))
      {'a': 1.5, 'b': 2}
    """
    first, treedef = jax.tree_util.tree_flatten_with_path(floats, is_leaf=_is_none)
    second, other = jax.tree.flatten(rest, is_leaf=_is_none)
    if treedef != other:
        raise ValueError(
            "floats and rest are not halves of one params tree: their structures are "
            f"{treedef} and {other}"
        )
    for (path, x), y in zip(first, second, strict=True):
        if x is not None and y is not None:
            raise ValueError(
                f"floats and rest both have a leaf {tree.path_name(path)!r}"
            )
    return treedef.unflatten(
        [y if x is None else x for (_, x), y in zip(first, second, strict=True)]
    )


def _is_floating(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return isinstance(leaf, float)
    return jnp.issubdtype(dtype, jnp.floating)


def _is_none(x: Any) -> bool:
    return x is None
