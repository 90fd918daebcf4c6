"""Prefix reuse: what lies before the faults is computed once, and kept.

A fault at a layer does not touch what lies before it. So the program is cut at the
layer, its first part runs once over the data without faults, and every trial starts
from the activations that cross the cut.

References:
  Split execution: InjectTF2, https://github.com/mbsa-tud/InjectTF2.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff import base, tree
from jeff.program import Point, before, evaluation, reach
from jeff.sweep.campaigns import suffix as suffix_lib
from jeff.sweep.campaigns.batches import Examples, in_batches, spread
from jeff.sweep.campaigns.suffix import Suffix

__all__ = ["Prefix", "prefix"]


@dataclasses.dataclass(frozen=True, eq=False)
class Prefix:
    """A campaign from a point of a program on.

    Attributes:
      apply: The end of the program, ``apply(params, *cached)``; for `weight_faults`
        and `feature_faults`, in place of the whole program.
      params: The leaves used only there, by the names they have in the whole program;
        so their faults are the same draws.
      data: Examples whose inputs are the cached activations.
      nbytes: Bytes of the cached activations.
      before: Leaves that the cached activations depend on: a fault in one of them
        cannot be injected here.
      macs: Multiplications of one example in the suffix, and in the whole program.
    """

    apply: Suffix
    params: dict[str, Any]
    data: Examples
    nbytes: int
    before: tuple[str, ...]
    macs: tuple[int, int]

    def explain(self) -> str:
        """What is kept and what is saved, in words."""
        count = len(self.data.labels)
        kept = len(self.data.inputs)
        return (
            f"from the {self.apply.point.end} of {self.apply.point.site}: "
            f"{kept} activation{'s' * (kept > 1)} of {count} examples are kept, "
            f"{self.nbytes:,} bytes; "
            f"{self.macs[0]:,} of {self.macs[1]:,} multiplications of an example are "
            f"left to do; {len(self.params)} leaves can be faulty"
        )


def prefix(
    apply: Callable[..., Any],
    params: Any,
    site: "str | Point",
    data: Examples,
    *,
    batch: int = 64,
    max_bytes: int = 2**30,
) -> Prefix:
    """Runs a program up to a site once, and gives the rest as a program of its own.

    Without faults the rest gives the outputs of the whole program up to rounding
    (another compiled program: 1e-5 of the largest logit in float32). Values that pass
    by the site, such as a residual stream, are kept too.

    Args:
      apply: ``apply(params, *inputs)`` with logits ``[batch, classes]``.
      params: Params without faults; leaves may be stored.
      site: Where to start: a site's name (its input), or a point
        (``jeff.after(site)``).
      data: From `examples`.
      batch: Examples at a time.
      max_bytes: Bytes that the kept activations may take on the host.

    Returns:
      The campaign's program, params and data.

    Raises:
      ValueError: If there is no such site, it lies in a loop, the program mixes
        examples, or the activations take more than `max_bytes`.

    Examples:
      >>> from jeff.sweep import examples
      >>> def mlp(p, x):
      ...     return jax.nn.relu(x @ p["up"]) @ p["down"] + x @ p["skip"]
      >>> params = {n: jnp.eye(2) for n in ("up", "down", "skip")}
      >>> data = examples(mlp, params, np.eye(2, dtype=np.float32))
      >>> late = prefix(mlp, params, "down", data)
      >>> print(late.explain())
      from the input of down: 2 activations of 2 examples are kept, 32 bytes; 4 of 12
      multiplications of an example are left to do; 1 leaves can be faulty
      >>> print(late.apply({"down": 3 * jnp.eye(2)}, *late.data.inputs))
      [[4. 0.]
       [0. 4.]]
    """
    point = site if isinstance(site, Point) else before(site)
    inputs = spread(data.inputs)
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), inputs)
    small, large = (
        suffix_lib.fit(apply, point, params, one, n) for n in (batch, batch + 1)
    )
    crossing = suffix_lib.crossing_values(small, large, batch)
    wanted = [c for c in crossing if c.axis is not None]
    nbytes = _nbytes(wanted, batch) * len(data.labels)
    if nbytes > max_bytes:
        raise ValueError(
            f"the activations at {point.site!r} of {len(data.labels)} examples take "
            f"{nbytes:,} bytes, more than max_bytes={max_bytes:,}: cut later, take "
            "fewer examples, or allow more"
        )
    leaves, _ = tree.flatten(params)
    early = reach.leaves_behind(small.found, [c.value for c in crossing])
    late = {n: leaves[n] for n in small.weights if n not in early}
    end = Suffix(
        apply,
        point,
        params,
        one,
        frozenset(late),
        tuple(c.axis for c in wanted if c.axis is not None),
    )
    cached = _run(small, wanted, params, data.inputs, batch)
    return Prefix(
        end,
        late,
        data._replace(inputs=cached),
        sum(a.nbytes for a in cached),
        tuple(n for n in leaves if n in early),
        _macs(small, batch),
    )


def _run(piece, wanted, params, inputs, batch) -> tuple[np.ndarray, ...]:
    """The wanted values for all examples, the axis of examples first."""

    @jax.jit
    def first_part(params, part):
        leaves = jax.tree.leaves(params, is_leaf=base.is_stored)
        values = [*leaves, *map(jnp.asarray, jax.tree.leaves(part))]
        targets = [c.value for c in wanted]
        got = evaluation.capture(piece.found, piece.frame, targets, values)
        return [jnp.moveaxis(a, c.axis, 0) for a, c in zip(got, wanted, strict=True)]

    parts = []
    for part, count in in_batches(inputs, batch):
        parts.append([np.asarray(a)[:count] for a in first_part(params, part)])
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def _nbytes(wanted, batch) -> int:
    """Bytes of the wanted values for one example."""
    avals = [c.value.aval for c in wanted]
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in avals) // batch


def _macs(piece, batch) -> tuple[int, int]:
    macs = {s.name: s.macs for s in piece.found.sites}
    rest = sum(macs[name] for name in piece.sites())
    return rest // batch, sum(macs.values()) // batch
