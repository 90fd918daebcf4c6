"""Leaves of a params tree by path, with one spelling for every framework."""

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax

from jeff import base

__all__ = [
    "flatten",
    "get",
    "map_with_path",
    "nearest",
    "path_name",
    "split_indices",
    "update",
]

_WRAPPERS = ("value", "raw_value")  # boxes that hold one array (linen, nnx)


def path_name(path: tuple[Any, ...]) -> str:
    """One spelling of a JAX key path: components joined by dots.

    A trailing ``.value`` of a boxed parameter (flax linen) is dropped, so the same
    layer reads ``layers.3.attn.q.kernel`` whichever framework made the tree.

    Args:
      path: A key path as `jax.tree_util.tree_flatten_with_path` gives it.

    Returns:
      The name, ``""`` for a bare leaf.

    Examples:
      >>> import jax
      >>> tree = {"layers": [{"kernel": 1.0}]}
      >>> [path_name(p) for p, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
      ['layers.0.kernel']
    """
    parts = []
    for key in path:
        for field in ("key", "idx", "name"):
            if hasattr(key, field):
                parts.append(str(getattr(key, field)))
                break
        else:
            parts.append(str(key).strip(".[]'"))
    while len(parts) > 1 and parts[-1] in _WRAPPERS:
        parts.pop()
    return ".".join(parts)


def flatten(params: Any) -> tuple[dict[str, Any], Any]:
    """Leaves by name, in tree order; a `StoredWeight` is one leaf.

    Args:
      params: Any pytree.

    Returns:
      ``(leaves, treedef)``: a dictionary from name to leaf and the structure, so that
      ``treedef.unflatten(leaves.values())`` gives `params` back.

    Raises:
      ValueError: If two leaves get the same name.

    Examples:
      >>> leaves, treedef = flatten({"a": [1.0, 2.0]})
      >>> leaves
      {'a.0': 1.0, 'a.1': 2.0}
      >>> treedef.unflatten(leaves.values())
      {'a': [1.0, 2.0]}
    """
    pairs, treedef = jax.tree_util.tree_flatten_with_path(
        params, is_leaf=base.is_stored
    )
    leaves: dict[str, Any] = {}
    for path, leaf in pairs:
        name = path_name(path)
        if name in leaves:
            raise ValueError(f"params has two leaves of the same name {name!r}")
        leaves[name] = leaf
    return leaves, treedef


def get(params: Any, name: str) -> Any:
    """The leaf called `name`.

    Args:
      params: Any pytree.
      name: A name as `flatten` gives it.

    Returns:
      The leaf; a `StoredWeight` is one.

    Raises:
      KeyError: If there is none; the message lists the nearest names.

    Examples:
      >>> get({"a": [1.0, 2.0]}, "a.1")
      2.0
    """
    leaves, _ = flatten(params)
    if name not in leaves:
        raise KeyError(f"params has no leaf {name!r}; {nearest(name, leaves)}")
    return leaves[name]


def update(params: Any, changes: dict[str, Any]) -> Any:
    """`params` with the leaves named in `changes` replaced.

    Args:
      params: Any pytree.
      changes: New leaves by name.

    Returns:
      A tree of the same structure.

    Raises:
      KeyError: If a name is not a leaf of `params`; the message lists the nearest.

    Examples:
      >>> update({"a": [1.0, 2.0]}, {"a.1": 5.0})
      {'a': [1.0, 5.0]}
    """
    leaves, treedef = flatten(params)
    for name in changes:
        if name not in leaves:
            raise KeyError(f"params has no leaf {name!r}; {nearest(name, leaves)}")
    return treedef.unflatten([changes.get(n, leaf) for n, leaf in leaves.items()])


def map_with_path(fn: Callable[[str, Any], Any], params: Any) -> Any:
    """``fn(name, leaf)`` on every leaf; a `StoredWeight` is one leaf.

    Args:
      fn: What to do with a leaf.
      params: Any pytree.

    Returns:
      A tree of the same structure, with what `fn` returned.

    Raises:
      ValueError: If two leaves get the same name.

    Examples:
      >>> map_with_path(lambda name, leaf: f"{name}={leaf}", {"a": [1, 2]})
      {'a': ['a.0=1', 'a.1=2']}
    """
    leaves, treedef = flatten(params)
    return treedef.unflatten([fn(n, leaf) for n, leaf in leaves.items()])


def split_indices(name: str) -> tuple[str, tuple[int, ...]]:
    """Takes the layer numbers out of a name.

    ``layers.3.attn.q`` and ``layers_3.attn.q`` (flax linen) both give
    ``layers.#.attn.q`` and ``(3,)``; a scanned stack called ``layers.attn.q`` has
    no number. Numbers glued to a word (``conv2d``, ``fc1``) stay in the word.

    Args:
      name: A name from `path_name`.

    Returns:
      The name with every number replaced by ``#``, and the numbers.

    Examples:
      >>> split_indices("layers.3.attn.q.kernel")
      ('layers.#.attn.q.kernel', (3,))
      >>> split_indices("Block_1.Dense_0.kernel")
      ('Block.#.Dense.#.kernel', (1, 0))
    """
    parts, numbers = [], []
    for part in name.split("."):
        match = re.fullmatch(r"(?:(.*?)_)?(\d+)", part)
        if match is None:
            parts.append(part)
            continue
        if match.group(1):
            parts.append(match.group(1))
        parts.append("#")
        numbers.append(int(match.group(2)))
    return ".".join(parts), tuple(numbers)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: which ones are like it.

    Args:
      name: What was asked for.
      known: The names there are; may repeat.

    Returns:
      At most three names, the most similar first; how many names there are, if none is
      similar.

    Examples:
      >>> nearest("layers.0.nrom", ["layers.0.norm", "head"])
      'nearest: layers.0.norm'
      >>> nearest("x", ["layers.0.norm", "head"])
      'it has 2 leaves'
    """
    names = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    return f"nearest: {', '.join(near)}" if near else f"it has {len(names)} leaves"
