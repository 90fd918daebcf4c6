"""Block by block: finds the scale of every group, folds it, rounds, and goes on.

All groups of a block are searched on the unscaled block, and its full-precision output
feeds the next one, as in the original program. A block is rounded as soon as its scales
are folded, so beside the caller's params only one block is dense at any time.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jeff import base
from jeff.mbq.calibration import Batch
from jeff.mbq.done import Done
from jeff.mbq.groups import Group
from jeff.mbq.job import Job
from jeff.mbq.nonlinear import nonlinear_between
from jeff.mbq.report import GroupReport, Quantized
from jeff.mbq.search import Features, StackSearch, relative_change
from jeff.mbq.weighing import Sensitivities
from jeff.program.blocks import Stack

__all__ = ["Choice", "Choose", "balance"]


class Choice(NamedTuple):
    """The scale chosen for one group of one block.

    Attributes:
      scale: float32 ``[K]``, positive.
      exponent: The exponent it was made with.
      losses: ``[grid]``, loss of every candidate; empty if there was no search.
      ratios: Weight of each modality's tokens in the loss, if they were balanced.
    """

    scale: jax.Array
    exponent: float
    losses: np.ndarray
    ratios: Mapping[str, float]


class Choose(Protocol):
    """How a method finds the scale of one group of one block."""

    def __call__(
        self,
        search: StackSearch,
        group: int,
        block: int,
        weights: Mapping[str, jax.Array],
        features: Callable[[], Iterator[tuple[Features, Batch]]],
    ) -> Choice | str:
        """Returns the choice, or why the group is left as it is.

        Args:
          search: The compiled search of the stack.
          group: Number of the group in ``search.groups``.
          block: Number of the block.
          weights: Dense, unscaled weights of the block.
          features: What the group needs, batch by batch; may be called repeatedly.
        """
        ...


def balance(job: Job, choose: Choose, seen: Sensitivities) -> Quantized:
    """Finds and folds the scales of every block and quantizes it, block by block.

    Nothing of a block stays dense once it is done but what is not to be quantized.

    Args:
      job: The checked call.
      choose: How a scale is found.
      seen: Modality sensitivities for the report, if any.

    Returns:
      The quantized parameters.

    Raises:
      ValueError: If a scale overflows its dtype; the leaf is named.
    """
    reports: list[GroupReport] = []
    done = Done(job)
    for stack, groups in job.stacks:
        for block in range(stack.count):
            reports += [
                _left_out(group, block, stack, group.note)
                for group in groups
                if group.sources is None
            ]
        search = StackSearch.of(stack, groups)
        if search.groups:
            reports += _balance_stack(job, search, choose, done)
    return job.finish(*done.leaves(), reports, seen)


def _balance_stack(job, search, choose, done) -> list[GroupReport]:
    """Works through the blocks of a stack; what a block becomes goes to `done`."""
    stack = search.stack
    entered = [stack.enter(job.params, *b.inputs) for b in job.batches]
    states = [state for state, _ in entered]
    reports: list[GroupReport] = []
    for block in range(stack.count):
        sides = [stack.side(side, block) for _, side in entered]
        states, decided = _balance_block(
            job, search, choose, done, block, states, sides
        )
        reports += decided
    return reports


def _balance_block(job, search, choose, done, block, states, sides):
    """States after a block and reports of its groups; its weights go to `done`."""
    stack = search.stack
    weights = _dense_weights(stack.weights(job.params, block))
    after = [search.run(weights, s, d) for s, d in zip(states, sides, strict=True)]
    features = _Stream(search, weights, states, sides, job.batches)
    folded = dict(weights)
    reports = []
    for group, described in enumerate(search.groups):
        first = after[0], states[0], sides[0]
        wrong = search.probe(weights, *first, group=group)
        if not wrong <= job.config.fold_tolerance:
            note = _why_wrong(described, block, stack, wrong)
            reports.append(_left_out(described, block, stack, note))
            continue
        choice = choose(search, group, block, weights, features.of(group))
        if isinstance(choice, str):
            reports.append(_left_out(described, block, stack, choice))
            continue
        folded = search.fold(folded, choice.scale, group=group)
        change = relative_change(after[0], search.run(folded, *first[1:]))
        reports.append(_reported(described, block, stack, choice, float(change)))
    done.add(search, block, folded)
    return after, reports


class _Stream:
    """Features of the batches at one block; kept only if there is one batch.

    With more batches they are computed again for every pass, so that the size of the
    calibration set does not set the memory.
    """

    def __init__(self, search, weights, states, sides, batches):
        self._search, self._weights = search, weights
        self._inputs = list(zip(states, sides, batches, strict=True))
        self._kept: list[Features] | None = None

    def of(self, group: int) -> Callable[[], Iterator[tuple[Features, Batch]]]:
        """A function that yields ``(features, batch)`` of one group."""

        def run():
            for state, side, batch in self._inputs:
                features = self._kept
                if features is None:
                    features = self._search.features(self._weights, state, side)
                if len(self._inputs) == 1:
                    self._kept = features
                yield features[group], batch

        return run


def _dense_weights(weights: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {n: base.decoded(w) for n, w in weights.items()}


def _left_out(group: Group, block: int, stack: Stack, note: str) -> GroupReport:
    names = stack.names[block]
    return GroupReport(
        block=block,
        sites=tuple(names[n] for n in group.sites),
        inspect=names[group.inspect],
        fold=(),
        exponent=float("nan"),
        ratios={},
        losses=np.zeros(0),
        scale=np.ones(group.share.size),
        change=0.0,
        note=note,
    )


def _reported(
    group: Group, block: int, stack: Stack, choice: Choice, change: float
) -> GroupReport:
    return _left_out(group, block, stack, "")._replace(
        fold=tuple(stack.leaves[block][n].name for n in group.fold),
        exponent=choice.exponent,
        ratios=choice.ratios,
        losses=choice.losses,
        scale=np.asarray(choice.scale),
        change=change,
    )


def _why_wrong(group: Group, block: int, stack: Stack, wrong: float) -> str:
    """Why a fold is left out that the numbers refuse."""
    fold = " and ".join(stack.leaves[block][n].name for n in group.fold)
    note = f"folding changes the block's output by {wrong:.1e} (relative)"
    operations = nonlinear_between(group)
    if not operations:
        return f"{note}: {fold} acts in another way too, or its dtype rounds the fold"
    sites = ", ".join(stack.names[block][n] for n in group.sites)
    return (
        f"{note}: the activation between {fold} and {sites} (made of "
        f"{', '.join(operations)}) is not linear in the factor: dividing its input "
        "by s does not divide its output by s"
    )
