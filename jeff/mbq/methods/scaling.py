"""The scales of one block: found group by group, folded in, each fold checked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jeff.mbq.blocks.plan import BlockPlan
from jeff.mbq.blocks.prefix import Entering
from jeff.mbq.calibration.batches import Batch
from jeff.mbq.call.job import Job
from jeff.mbq.groups.infer import Group
from jeff.mbq.groups.nonlinear import nonlinear_between
from jeff.mbq.methods.rounding import nearest_block
from jeff.mbq.report import GroupReport
from jeff.mbq.scales.search import Features, StackSearch, relative_change
from jeff.program.blocks import Stack

__all__ = ["Choice", "Choose", "scale_block"]


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


def scale_block(
    job: Job,
    plan: BlockPlan,
    choose: Choose,
    block: int,
    weights: Mapping[str, Any],
    entering: Sequence[Entering],
) -> tuple[dict[str, jax.Array], list[GroupReport]]:
    """Finds the scales of a block's groups and folds them in.

    All groups are searched on the unscaled block. With `BalanceConfig.distort`, what
    candidates see comes from the quantized prefix and, from the second group on, from
    the block itself rounded to nearest, with the scales found so far.

    Args:
      job: The call.
      plan: The plan of the block.
      choose: How a scale is found.
      block: Its number.
      weights: Its dense weights.
      entering: What enters it.

    Returns:
      ``(folded, reports)``: the weights with the scales folded in, and a report of
      every group.
    """
    stack, search = plan.stack, StackSearch.of(plan.stack, plan.groups)
    reports = [
        _left_out(group, block, stack, group.note)
        for group in plan.groups
        if group.sources is None
    ]
    features = _Stream(search, weights, entering)
    folded, scaled = dict(weights), False
    first = entering[0].clean, entering[0].side  # folds are checked on one batch
    after = search.run(weights, *first) if search.groups else None
    for group, described in enumerate(search.groups):
        wrong = search.probe(weights, after, *first, group=group)
        if not wrong <= job.config.fold_tolerance:
            note = _why_wrong(described, block, stack, wrong)
            reports.append(_left_out(described, block, stack, note))
            continue
        seen = None
        if job.config.distort:
            seen = _as_found(job, stack, block, folded) if scaled else weights
        bits = job.config.activation_bits if scaled else None
        choice = choose(search, group, block, weights, features.of(group, seen, bits))
        if isinstance(choice, str):
            reports.append(_left_out(described, block, stack, choice))
            continue
        folded, scaled = search.fold(folded, choice.scale, group=group), True
        change = relative_change(after, search.run(folded, *first))
        reports.append(_reported(described, block, stack, choice, float(change)))
    return folded, reports


class _Stream:
    """Features of the batches at one block; kept only if there is one batch.

    With more batches they are computed again for every pass, so that the size of the
    calibration set does not set the memory.
    """

    def __init__(self, search, weights, entering: Sequence[Entering]):
        self._search, self._weights, self._entering = search, weights, entering
        self._kept: list[Features] | None = None

    def of(
        self, group: int, seen: Mapping[str, Any] | None, activation_bits: int | None
    ) -> Callable[[], Iterator[tuple[Features, Batch]]]:
        """A function that yields ``(features, batch)`` of one group.

        With `seen`, weights of the block as candidates see it, all but the clean output
        are those of that block behind the quantized prefix.
        """
        single, kept = len(self._entering) == 1, []

        def distorted(e: Entering) -> Features:
            if not kept or not single:
                kept[:] = self._search.features(
                    seen, e.quantized, e.side, activation_bits=activation_bits
                )
            return kept[group]

        def run():
            for e in self._entering:
                features = self._kept
                if features is None:
                    features = self._search.features(self._weights, e.clean, e.side)
                if single:
                    self._kept = features
                clean = features[group]
                if seen is not None:
                    clean = distorted(e)._replace(y=clean.y)
                yield clean, e.batch

        return run


def _as_found(job, stack, block, folded) -> dict[str, Any]:
    """The block rounded to nearest, with the scales that are folded in so far."""
    rounded = nearest_block(job, stack, block, folded)
    return {**folded, **{n: r.weight for n, r in rounded.items()}}


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
