"""How the weights of a program are stored while faults hit them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jeff import base, tree
from jeff.program import sites
from jeff.quantize import QuantConfig, quantize
from jeff.sweep.campaigns.batches import one_example

__all__ = ["STORED", "Narrow", "stored_as"]

_INTEGERS = {"int8": 8, "int4": 4, "int3": 3, "int2": 2}
_FLOATS = ("bfloat16", "float16")

STORED = ("dense", *_FLOATS, *_INTEGERS)
"""The words of `stored_as`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Narrow(base.StoredWeight):
    """A weight rounded to 16 bits, which decodes to its own dtype.

    Attributes:
      values: bfloat16 or float16, of the dense shape.
      dense_dtype: Static. What it decodes to.

    Examples:
      >>> w = Narrow(jnp.ones(2, jnp.bfloat16), jnp.dtype("float32"))
      >>> print(w.codes(), w.decode().dtype, w.nbytes)
      [16256 16256] float32 4
    """

    values: jax.Array
    dense_dtype: Any = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense weight."""
        return tuple(self.values.shape)

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the dense weight."""
        return self.dense_dtype

    def decode(self) -> jax.Array:
        """The dense weight."""
        return self.values.astype(self.dense_dtype)

    def codes(self) -> jax.Array:
        """The stored words, uint16."""
        return lax.bitcast_convert_type(self.values, jnp.uint16)

    def with_codes(self, codes: jax.Array) -> "Narrow":
        """The same weight with other words.

        Args:
          codes: uint16 of the dense shape.

        Returns:
          The weight.
        """
        values = lax.bitcast_convert_type(codes, self.values.dtype)
        return Narrow(values, self.dense_dtype)

    def can_index(self, axis: int) -> bool:
        """True: every axis is that of the dense weight.

        Args:
          axis: An axis.

        Returns:
          True.
        """
        del axis
        return True


def stored_as(apply: Callable[..., Any], params: Any, inputs: Any, stored: str) -> Any:
    """Params with the weights of products and convolutions stored in a narrower form.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Params, dense.
      inputs: An array ``[examples, ...]``, or a tuple of them; shapes suffice.
      stored: ``"dense"`` changes nothing; ``"bfloat16"`` and ``"float16"`` round;
        ``"int8"``, ``"int4"``, ``"int3"`` and ``"int2"`` are codes with a scale for
        each output, symmetric.

    Returns:
      Params. Biases, norms, embeddings and leaves that several sites contract in
      different ways stay dense.

    Raises:
      ValueError: If there is no such word, or no weight to store.

    Examples:
      >>> params = {"w": jnp.ones((4, 2)), "b": jnp.zeros(2)}
      >>> x = jnp.ones((1, 4))
      >>> stored_as(lambda p, x: x @ p["w"] + p["b"], params, x, "int4")["w"]
      QTensor(float32[4, 2], 4 bits, scales float32[1, 2])
    """
    if stored not in STORED:
        raise ValueError(f"stored must be one of {', '.join(STORED)}, got {stored!r}")
    if stored == "dense":
        return params
    parts = _parts(apply, params, inputs)
    changes = {}
    for name, part in parts.items():
        leaf = tree.get(params, name)
        if base.is_stored(leaf) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        if stored in _FLOATS:
            changes[name] = Narrow(leaf.astype(stored), jnp.dtype(leaf.dtype))
            continue
        config = QuantConfig(bits=_INTEGERS[stored], symmetric=True)
        changes[name] = quantize(
            leaf, config, contract_axes=part.contract_axes, stack_axes=part.stack_axes
        )
    if not changes:
        raise ValueError(f"stored={stored!r}: no floating weight of a product to store")
    return tree.update(params, changes)


def _parts(apply, params, inputs) -> dict[str, Any]:
    """How each leaf enters its products, if it does so in one way only."""
    found: dict[str, set[Any]] = {}
    for site in sites(apply, params, *one_example(inputs)):
        for part in site.parts:
            found.setdefault(part.leaf, set()).add((site.kind == "lookup", part))
    return {
        name: next(iter(ways))[1]
        for name, ways in found.items()
        if len(ways) == 1 and not next(iter(ways))[0]
    }
