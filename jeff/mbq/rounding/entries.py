"""Rounding weights to their stored form, never more than one entry of a stack at once.

A weight whose leading axis holds layers or experts is rounded entry by entry and the
packed entries are stacked, which gives the same bits as rounding it whole: no group
crosses a stack axis. What is held meanwhile are the packed entries and one dense one.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jeff import program, quantize

__all__ = ["Rounded", "entry_axes", "round_entry", "round_leaf", "stack_entries"]


class Rounded(NamedTuple):
    """A rounded leaf, or an entry of one.

    Attributes:
      weight: The stored weight.
      clipped: Number of groups of one sign, which zero point ``"int"`` clips.
    """

    weight: quantize.QTensor
    clipped: int


def round_leaf(
    w: jax.Array, part: program.Part, config: quantize.QuantConfig
) -> Rounded:
    """Rounds a leaf.

    Args:
      w: The dense leaf.
      part: How it is contracted, and which of its axes are stacks.
      config: The quantizer.

    Returns:
      The leaf, bit-equal to `jeff.quantize.quantize` of the whole.

    Raises:
      ValueError: If a scale overflows its dtype; the leaf is named.

    Examples:
      >>> w = jax.random.normal(jax.random.key(0), (3, 32, 8))
      >>> part = program.Part("w", contract_axes=(1,), stack_axes=(0,))
      >>> config = quantize.QuantConfig(bits=3, group_size=32)
      >>> got = round_leaf(w, part, config).weight
      >>> got
      QTensor(float32[3, 32, 8], 3 bits, scales float32[3, 1, 8])
      >>> bool((got.packed == quantize.quantize(w, config).packed).all())
      True
    """
    if not part.stack_axes:
        return round_entry(w, part, None, config)
    axis = part.stack_axes[0]
    entries = [round_entry(entry, part, axis, config) for entry in _entries(w, axis)]
    return stack_entries(entries, part, axis)


def round_entry(
    w: jax.Array,
    part: program.Part,
    axis: int | None,
    config: quantize.QuantConfig,
) -> Rounded:
    """Rounds one entry of a stacked leaf.

    Args:
      w: The dense entry.
      part: The axes of the whole leaf, not negative.
      axis: The stack axis that the entry does not have; ``None`` if `w` is the leaf.
      config: The quantizer.

    Returns:
      The entry.

    Raises:
      ValueError: If a scale overflows its dtype; the leaf is named.

    Examples:
      >>> part = program.Part("w", contract_axes=(1,), stack_axes=(0,))  # of [3, 32, 8]
      >>> config = quantize.QuantConfig(bits=3, group_size=32)
      >>> round_entry(jnp.ones((32, 8)), part, 0, config)
      Rounded(weight=QTensor(float32[32, 8], 3 bits, scales float32[1, 8]), clipped=8)
    """
    stored, clipped, finite = _quantize(
        w,
        config=config,
        contract_axes=entry_axes(part.contract_axes, axis),
        stack_axes=entry_axes(part.stack_axes, axis),
    )
    if not finite:
        raise ValueError(
            f"layer {part.leaf!r}: a scale overflows scale_dtype={config.scale_dtype!r}"
        )
    return Rounded(stored, int(clipped))


def stack_entries(entries: Sequence[Rounded], part: program.Part, axis: int) -> Rounded:
    """The leaf whose entries along a stack axis were rounded one by one.

    Args:
      entries: The entries, in order.
      part: The axes of the leaf, not negative.
      axis: The stack axis.

    Returns:
      The whole leaf.

    Examples:
      >>> part = program.Part("w", contract_axes=(1,), stack_axes=(0,))
      >>> config = quantize.QuantConfig(bits=3, group_size=32)
      >>> entries = [round_entry(jnp.ones((32, 8)), part, 0, config) for _ in range(3)]
      >>> stack_entries(entries, part, 0).weight
      QTensor(float32[3, 32, 8], 3 bits, scales float32[3, 1, 8])
    """
    whole = jax.tree.map(
        lambda *arrays: jnp.stack(arrays, axis), *(e.weight for e in entries)
    )
    contract = tuple(a - whole.packed.ndim for a in part.contract_axes)
    weight = dataclasses.replace(whole, contract=contract)
    return Rounded(weight, sum(e.clipped for e in entries))


def entry_axes(axes: Sequence[int], axis: int | None) -> tuple[int, ...]:
    """Axes of a stacked array as an entry of it counts them.

    Args:
      axes: Axes of the whole, not negative.
      axis: The stack axis, left out; ``None`` changes nothing.

    Returns:
      Axes of the entry.

    Examples:
      >>> entry_axes((0, 1, 3), 1)
      (0, 2)
    """
    if axis is None:
        return tuple(axes)
    return tuple(a - (a > axis) for a in axes if a != axis)


def _entries(w: jax.Array, axis: int) -> Iterator[jax.Array]:
    for i in range(w.shape[axis]):
        yield jax.lax.index_in_dim(w, i, axis, keepdims=False)


@functools.partial(jax.jit, static_argnames=("config", "contract_axes", "stack_axes"))
def _quantize(w, *, config, contract_axes, stack_axes):
    """The stored weight, number of clipped groups, whether all scales are finite."""
    axes = {"contract_axes": contract_axes, "stack_axes": stack_axes}
    one_sided = quantize.one_sided_groups(w, config, **axes)
    stored = quantize.quantize(w, config, **axes)
    return stored, one_sided.sum(), jnp.isfinite(stored.scale).all()
