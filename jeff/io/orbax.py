"""Parameters from orbax checkpoints.

A `jeff.quantize.QTensor` is a registered pytree, so trees with quantized leaves are
saved by orbax like any other; to get them back, say what they are like
(`read_orbax` with `like`), since orbax keeps the arrays and not the classes.
"""

import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["read_orbax"]

_METADATA = "_METADATA"
_STEP = re.compile(r"(?:.*_)?(\d+)")


def read_orbax(folder: str | os.PathLike[str], like: Any = None) -> Any:
    """Reads what `StandardCheckpointer` or `PyTreeCheckpointer` of orbax wrote.

    Arrays are read whole onto the default device, however they were sharded. Wrappers
    ``{"value": array}``, which the states of `flax.nnx` have, are taken off unless
    `like` has them.

    Args:
      folder: A checkpoint, or the folder of a `CheckpointManager`: then its last step
        is read, which must hold one tree of arrays.
      like: A tree of arrays or `jax.ShapeDtypeStruct`, such as
        ``jax.eval_shape(init, key)``: what there should be, and the classes to give it.
        ``None`` takes what there is, as dictionaries and lists.

    Returns:
      The tree of JAX arrays.

    Raises:
      ValueError: If there is no complete checkpoint, it holds several trees, or it
        differs from `like`: all leaves that are missing, extra or of another shape or
        dtype are named.
      ImportError: If orbax is not installed.

    Examples:
      >>> import tempfile
      >>> import orbax.checkpoint
      >>> from jeff.quantize import QuantConfig, quantize
      >>> params = {"up": {"kernel": quantize(jnp.eye(64, 8), QuantConfig(bits=3))}}
      >>> folder = pathlib.Path(tempfile.mkdtemp()) / "step"
      >>> with orbax.checkpoint.StandardCheckpointer() as checkpointer:
      ...     checkpointer.save(folder, params)
      >>> read_orbax(folder, like=jax.eval_shape(lambda: params))["up"]["kernel"]
      QTensor(float32[64, 8], 3 bits, scales float32[1, 8])
      >>> sorted(read_orbax(folder)["up"]["kernel"])
      ['packed', 'scale', 'zero']

    References:
      github google/orbax, checkpoint/orbax/checkpoint, version 0.12.
    """
    try:
        import orbax.checkpoint as orbax
    except ImportError as error:
        raise ImportError("reading it needs orbax: pip install orbax-checkpoint") from (
            error
        )
    place = _checkpoint(pathlib.Path(folder).absolute())
    handler = orbax.PyTreeCheckpointer()
    try:
        metadata: Any = handler.metadata(place).item_metadata
        found = metadata.tree
        plain = orbax.RestoreArgs(restore_type=np.ndarray)
        wanted = orbax.args.PyTreeRestore(
            restore_args=jax.tree.map(lambda _: plain, found)
        )
        tree = handler.restore(place, args=wanted)
    except Exception as error:  # orbax, tensorstore and json each have their own
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ValueError(
            f"{place}: the checkpoint is incomplete or corrupt: "
            f"{type(error).__name__}: {first}"
        ) from error
    if like is None:
        return jax.tree.map(jnp.asarray, _unwrapped(tree))
    return _as(tree, like, place)


def _checkpoint(folder: pathlib.Path) -> pathlib.Path:
    """The folder of one tree of arrays, in or under a folder."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    if (folder / _METADATA).is_file():
        return folder
    items = sorted(p.parent for p in folder.glob(f"*/{_METADATA}"))
    if not items or all(_step(item) is not None for item in items):
        folders = [child for child in folder.iterdir() if child.is_dir()]
        steps = {n: child for child in folders if (n := _step(child)) is not None}
        if not steps:
            raise ValueError(f"{folder} is no orbax checkpoint, and has none in it")
        last = steps[max(steps)]
        if (last / _METADATA).is_file():
            return last
        items = sorted(p.parent for p in last.glob(f"*/{_METADATA}"))
        if not items:
            raise ValueError(f"{last} has no tree of arrays in it")
    if len(items) > 1:
        names = ", ".join(str(item) for item in items)
        raise ValueError(f"{folder} has several trees; name one of: {names}")
    return items[0]


def _step(folder: pathlib.Path) -> int | None:
    """Number of the step whose folder this is, if it is one's."""
    match = _STEP.fullmatch(folder.name)
    return None if match is None else int(match.group(1))


def _unwrapped(tree: Any) -> Any:
    """The tree without the wrappers of `flax.nnx`."""
    if isinstance(tree, dict):
        if set(tree) == {"value"} and not isinstance(tree["value"], dict | list):
            return tree["value"]
        return {key: _unwrapped(child) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        return [_unwrapped(child) for child in tree]
    return tree


def _as(tree: Any, like: Any, place: pathlib.Path) -> Any:
    """The leaves of `tree` in the structure of `like`."""
    wanted, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [_name(path) for path, _ in wanted]
    found = _by_name(tree)
    if not set(names) <= set(found):
        found = _by_name(_unwrapped(tree))
    lines = [f"missing: {name}" for name in names if name not in found]
    lines += [f"extra: {name}" for name in sorted(set(found) - set(names))]
    for name, (_, leaf) in zip(names, wanted, strict=True):
        if name in found:
            got, want = (
                f"{a.dtype}{list(a.shape)}" for a in (found[name], _spec(leaf))
            )
            if got != want:
                lines.append(f"{name} is {got}, expected {want}")
    if lines:
        text = "\n  ".join(lines)
        raise ValueError(f"{place}: the checkpoint differs from like:\n  {text}")
    leaves = [jnp.asarray(found[name]) for name in names]
    return jax.tree_util.tree_unflatten(structure, leaves)


def _by_name(tree: Any) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _spec(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
