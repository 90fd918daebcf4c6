"""Which stored tensor is which parameter: tables between two spellings of a model.

A row says where a tensor stands in our params, what a checkpoint calls it, and whether
it is stored transposed. Loading and saving are both read off it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jeff import base

if TYPE_CHECKING:  # the decoder itself is made of these tables
    from jeff.models.decoder.config import DecoderConfig

__all__ = [
    "Tensor",
    "decoder_tensors",
    "params_like",
    "renamed",
    "to_named",
    "to_params",
]


class Tensor(NamedTuple):
    """One tensor of a checkpoint.

    Attributes:
      path: Where it stands in params: ``decoder.layers.0.mlp.up.kernel``.
      name: What a checkpoint calls it.
      shape: As stored in the checkpoint.
      transpose: Whether params hold it with its two axes exchanged.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    transpose: bool = False


def decoder_tensors(config: "DecoderConfig", *, prefix: str = "") -> tuple[Tensor, ...]:
    """The table of a decoder, under ``decoder`` in params.

    Args:
      config: Sizes.
      prefix: What stands before ``model.`` and ``lm_head.`` in the checkpoint.

    Returns:
      A row per tensor; no row for the output matrix if it is tied.

    Examples:
      >>> from jeff.models.decoder import DecoderConfig
      >>> config = DecoderConfig(vocabulary=96, width=32, layers=2, heads=4, kv_heads=2,
      ...                        head_dim=8, hidden=64)
      >>> table = decoder_tensors(config, prefix="language_model.")
      >>> len(table), table[4].name, table[4].shape
      (21, 'language_model.model.layers.0.self_attn.k_proj.weight', (16, 32))
      >>> table[4].path
      'decoder.layers.0.attention.key.kernel'
    """
    width, hidden = config.width, config.hidden
    inner, outer = config.heads * config.head_dim, config.kv_heads * config.head_dim
    linears = {
        "attention.query": ("self_attn.q_proj", inner, width, config.qkv_bias),
        "attention.key": ("self_attn.k_proj", outer, width, config.qkv_bias),
        "attention.value": ("self_attn.v_proj", outer, width, config.qkv_bias),
        "attention.output": ("self_attn.o_proj", width, inner, False),
        "mlp.gate": ("mlp.gate_proj", hidden, width, False),
        "mlp.up": ("mlp.up_proj", hidden, width, False),
        "mlp.down": ("mlp.down_proj", width, hidden, False),
    }
    norms = dict(attention_norm="input_layernorm", mlp_norm="post_attention_layernorm")
    vocabulary = (config.vocabulary, width)
    rows = [Tensor("decoder.embed", f"{prefix}model.embed_tokens.weight", vocabulary)]
    for i in range(config.layers):
        at, named = f"decoder.layers.{i}.", f"{prefix}model.layers.{i}."
        for path, name in norms.items():
            rows.append(Tensor(at + path, f"{named}{name}.weight", (width,)))
        for path, (name, out, into, bias) in linears.items():
            path, name = at + path, named + name
            rows.append(Tensor(f"{path}.kernel", f"{name}.weight", (out, into), True))
            if bias:
                rows.append(Tensor(f"{path}.bias", f"{name}.bias", (out,)))
    rows.append(Tensor("decoder.norm", f"{prefix}model.norm.weight", (width,)))
    if not config.tied:
        name = f"{prefix}lm_head.weight"
        rows.append(Tensor("decoder.head.kernel", name, vocabulary, True))
    return tuple(rows)


def to_params(
    table: Sequence[Tensor], tensors: Mapping[str, Any], *, dtype: Any = None
) -> dict[str, Any]:
    """Params from the tensors of a checkpoint, one tensor in memory at a time.

    Args:
      table: What there should be.
      tensors: Array or stored weight by name. An array is oriented as the table says;
        a stored weight stands for the matrix as params hold it, and is taken as it is.
        A mapping with a method ``shape(name)``, such as `jeff.io.Tensors`, is asked for
        shapes before anything is read.
      dtype: Floating dtype of the params; ``None`` keeps that of each tensor. A
        stored weight decodes to it.

    Returns:
      Nested dictionaries, with lists where the path has numbers.

    Raises:
      ValueError: If any tensor is missing, unknown or of another shape; all are named.
        If a stored weight of a narrow dtype is asked for in a wider one.

    Examples:
      >>> table = (Tensor("a.0.kernel", "a.0.weight", (3, 2), True),)
      >>> to_params(table, {"a.0.weight": jnp.ones((3, 2))})["a"][0]["kernel"].shape
      (2, 3)
      >>> to_params(table, {"a.0.weight": jnp.ones((2, 2)), "b": jnp.ones(1)})
      Traceback (most recent call last):
        ...
      ValueError: the checkpoint does not fit the architecture:
        unknown: b
        misshapen: a.0.weight is 2x2, expected 3x2
    """
    _check(table, tensors)
    params: dict[str, Any] = {}
    for row in table:
        leaf = tensors[row.name]
        if base.is_stored(leaf):
            leaf = _stored_as(leaf, dtype, row.name)
        else:
            leaf = jnp.asarray(leaf.T if row.transpose else leaf, dtype)
        _place(params, row.path, leaf)
    return _lists(params)


def params_like(table: Sequence[Tensor], *, dtype: Any = jnp.float32) -> Any:
    """Shapes of the params that `to_params` makes, as `jax.ShapeDtypeStruct`.

    Args:
      table: The tensors.
      dtype: Dtype of every leaf.

    Returns:
      The tree.

    Examples:
      >>> params_like((Tensor("a.kernel", "a.weight", (3, 2), True),))
      {'a': {'kernel': ShapeDtypeStruct(shape=(2, 3), dtype=float32)}}
    """
    params: dict[str, Any] = {}
    for row in table:
        shape = row.shape[::-1] if row.transpose else row.shape
        _place(params, row.path, jax.ShapeDtypeStruct(shape, dtype))
    return _lists(params)


def to_named(table: Sequence[Tensor], params: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors by their checkpoint names: the inverse of `to_params`.

    Args:
      table: The tensors.
      params: As `to_params` gives them; layers may be stacked instead of listed.

    Returns:
      By name, arrays as a checkpoint holds them, and stored weights as they are.

    Raises:
      ValueError: If a parameter of the table is not in `params`.

    Examples:
      >>> table = (Tensor("a.1.kernel", "a.1.weight", (3, 2), True),)
      >>> to_named(table, {"a": {"kernel": jnp.ones((4, 2, 3))}})["a.1.weight"].shape
      (3, 2)
    """
    named = {}
    for row in table:
        leaf = _leaf(params, row.path)
        if row.transpose and not base.is_stored(leaf):
            leaf = leaf.T
        named[row.name] = leaf
    return named


def renamed(
    tensors: Mapping[str, Any], rename: Callable[[str], str | None]
) -> Mapping[str, Any]:
    """The same tensors under other names, still read only when asked for.

    Args:
      tensors: By their names in the file.
      rename: The name in the table; ``None`` leaves the tensor out.

    Returns:
      A mapping; `to_params` reads shapes through it without reading tensors.

    Raises:
      ValueError: If two tensors get the same name.

    Examples:
      >>> tensors = {"visual.a": jnp.ones(2), "inv_freq": jnp.ones(3)}
      >>> dict(renamed(tensors, {"visual.a": "vision.a"}.get))
      {'vision.a': Array([1., 1.], dtype=float32)}
    """
    return _Renamed(tensors, rename)


class _Renamed(Mapping[str, Any]):
    def __init__(self, tensors: Mapping[str, Any], rename: Callable[[str], str | None]):
        self._tensors = tensors
        self._names: dict[str, str] = {}
        for name in tensors:
            new = rename(name)
            if new is None:
                continue
            if new in self._names:
                both = f"{self._names[new]} and {name}"
                raise ValueError(f"{both} of the checkpoint are both called {new}")
            self._names[new] = name
        ask = getattr(tensors, "shape", None)
        if ask is not None:
            self.shape = lambda name: ask(self._names[name])

    def __getitem__(self, name: str) -> Any:
        return self._tensors[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _shape(tensors: Mapping[str, Any], row: Tensor) -> tuple[int, ...]:
    """Shape of a tensor as stored dense, without reading it where that can be told."""
    ask = getattr(tensors, "shape", None)
    if ask is not None:
        return tuple(ask(row.name))
    tensor = tensors[row.name]
    swapped = row.transpose and base.is_stored(tensor)
    return tuple(tensor.shape[::-1] if swapped else tensor.shape)


def _stored_as(weight: base.StoredWeight, dtype: Any, name: str) -> base.StoredWeight:
    cast = weight if dtype is None else weight.astype(dtype)
    if cast is None:
        what = f"it cannot be read as {jnp.dtype(dtype)} (dtype=None leaves it)"
        raise ValueError(f"{name} decodes to {weight.dtype}; {what}")
    return cast


def _check(table: Sequence[Tensor], tensors: Mapping[str, Any]) -> None:
    rows, given = {row.name: row for row in table}, set(tensors)
    lines = {
        "missing": [name for name in rows if name not in given],
        "unknown": sorted(given - rows.keys()),
        "misshapen": [],
    }
    for name, row in rows.items():
        shape = _shape(tensors, row) if name in given else row.shape
        if shape != row.shape:
            got, want = ("x".join(map(str, s)) or "()" for s in (shape, row.shape))
            lines["misshapen"].append(f"{name} is {got}, expected {want}")
    text = "".join(f"\n  {k}: {', '.join(v)}" for k, v in lines.items() if v)
    if text:
        raise ValueError(f"the checkpoint does not fit the architecture:{text}")


def _place(params: dict[str, Any], path: str, leaf: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        params = params.setdefault(parent, {})
    params[last] = leaf


def _lists(node: Any) -> Any:
    """Dictionaries with keys 0, 1, ... as lists."""
    if not isinstance(node, dict):
        return node
    if node and all(key.isdigit() for key in node):
        return [_lists(node[key]) for key in sorted(node, key=int)]
    return {key: _lists(child) for key, child in node.items()}


def _leaf(params: Any, path: str) -> Any:
    """The leaf at a path; a number under stacked layers is an index of the leaf."""
    node: Any = params
    index = None
    for part in path.split("."):
        if isinstance(node, Mapping) and part.isdigit() and part not in node:
            index = int(part)
            continue
        try:
            node = node[int(part) if isinstance(node, list | tuple) else part]
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"params has no leaf {path!r}") from None
    leaf: Any = node
    if index is None:
        return leaf
    if base.is_stored(leaf) and not leaf.can_index(0):
        raise ValueError(f"{path}: the layers of the stack share their scales")
    return jax.tree.map(lambda part: part[index], leaf)
