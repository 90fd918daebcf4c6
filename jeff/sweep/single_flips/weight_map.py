"""One upset per device: a random word of one leaf, one of its bits flipped."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jeff.faults.stacks import Stacked, stack_axes
from jeff.prng import named_keys
from jeff.sweep.campaigns.batches import spread
from jeff.sweep.campaigns.outcome import outcome
from jeff.sweep.campaigns.suffix import rewritten
from jeff.sweep.single_flips.entries import entries
from jeff.sweep.single_flips.fault_space import Fault, FaultSpace, enumerate_faults
from jeff.sweep.single_flips.inject import inject_fault
from jeff.sweep.single_flips.uniform import uniform_below
from jeff.sweep.trial import Trial

__all__ = ["WeightMap", "weight_map"]


class WeightMap(NamedTuple):
    """A campaign over every leaf and bit, for `run`.

    Attributes:
      trial: What one trial does.
      designs: The points as designs of the sweep: numbers of leaf and bit, int32
        ``[points]`` each.
      space: The leaves, their stored words and bits; `space.strata` names the points.
        Entries of stacks are leaves here, named as in ``"layers.up[3]"``.
    """

    trial: Trial
    designs: dict[str, np.ndarray]
    space: FaultSpace


def weight_map(
    apply: Callable[..., Any],
    params: Any,
    *,
    where: Any = None,
    stacked: Stacked | None = None,
    measure: Callable[..., Any] = outcome,
) -> WeightMap:
    """A campaign that tells which bits of which weights matter.

    A point is a leaf and a bit. A trial flips that bit of one random stored word of the
    leaf. All points are designs of one sweep, which compiles once. For one key the word
    is the same for every bit of a leaf, so bits are compared on equal terms.

    Args:
      apply: ``apply(params, *inputs)`` with logits ``[batch, classes]``, or the `apply`
        of a `Prefix`.
      params: Params without faults, or those of a `Prefix`; of a stored leaf the codes
        are hit, in the bits that are really stored.
      where: Which leaves: a regular expression, names, or ``where(name, leaf)``;
        ``None``: all.
      stacked: Leaves that stack layers or experts, as in `jeff.faults.on_weights`; each
        of their entries is a point of its own. Stored leaves are split where their
        codes are of the dense shape. ``None``: a leaf is a point, whatever it stacks.
      measure: As in `weight_faults`.

    Returns:
      Trial, designs and points, for ``run(m.trial, key, designs=m.designs,
      rates=[1.0], ...)``; `weight_table` reads the statistics. Rates have no meaning.

    Raises:
      ValueError: If a name is no leaf's, no leaf is chosen, or a leaf has no such stack
        axis.
      TypeError: If a chosen leaf has no words to flip bits of.

    Examples:
      >>> import jax
      >>> params = {"w": np.eye(3, dtype=np.float32)}
      >>> m = weight_map(lambda p, x: x @ p["w"], params)
      >>> len(m.designs["bit"]), m.space.strata()[30]
      (32, ('w bit 30', 9))
      >>> design = {name: a[30] for name, a in m.designs.items()}
      >>> faulty = jax.jit(m.trial.draw)(jax.random.key(4), 1.0, design)
      >>> print(faulty["w"])
      [[1. 0. 0.]
       [2. 1. 0.]
       [0. 0. 1.]]
    """
    leaves = enumerate_faults(params, where=where)
    too_large = [
        n for n, w in zip(leaves.names, leaves.words, strict=True) if w >= 2**31
    ]
    if too_large:
        raise ValueError(f"leaf {too_large[0]!r} has 2^31 words or more")
    found = entries(leaves, params, stack_axes(stacked))
    space = found.rows
    leaf = np.repeat(np.arange(len(space.names)), space.bits)
    bit = np.concatenate([np.arange(n) for n in space.bits])
    designs = {"leaf": leaf.astype(np.int32), "bit": bit.astype(np.int32)}

    sizes = jnp.asarray(space.words, jnp.int32)

    def draw(key, rate, design):
        del rate
        place = named_keys(key, space.names)[design["leaf"]]
        number = uniform_below(place, sizes[design["leaf"]])
        fault = Fault(*found.place(design["leaf"], number), design["bit"])
        return inject_fault(params, fault, leaves)

    def evaluate(faulty, batch):
        data = batch.data
        logits = rewritten(apply)(faulty, *spread(data.inputs))
        return measure(
            logits, data.golden, data.labels, batch.valid, overflow=jnp.array(False)
        )

    return WeightMap(Trial(draw, evaluate), designs, space)
