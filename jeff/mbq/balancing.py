"""Block by block: finds the scale of every group, folds it, and goes on.

All groups of a block are searched on the unscaled block, and its full-precision output
feeds the next one, as in the original program.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jeff import base, tree
from jeff.mbq.calibration import Batch
from jeff.mbq.groups import Group
from jeff.mbq.job import Job
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
    """Finds and folds the scales of every block, then quantizes.

    Args:
      job: The checked call.
      choose: How a scale is found.
      seen: Modality sensitivities for the report, if any.

    Returns:
      The quantized parameters.
    """
    reports: list[GroupReport] = []
    params = job.params
    for stack, groups in job.stacks:
        for block in range(stack.count):
            reports += [
                _left_out(group, block, stack, group.note)
                for group in groups
                if group.sources is None
            ]
        search = StackSearch.of(stack, groups)
        if search.groups:
            blocks = _balance_stack(job, search, choose, reports)
            params = _write_back(params, stack, blocks)
    return job.finish(params, reports, seen)


def _balance_stack(job, search, choose, reports) -> list[dict[str, jax.Array]]:
    """The folded weights of every block of a stack; reports are appended."""
    stack = search.stack
    entered = [stack.enter(job.params, *b.inputs) for b in job.batches]
    states = [state for state, _ in entered]
    changed = []
    for block in range(stack.count):
        weights = _dense_weights(stack.weights(job.params, block))
        sides = [stack.side(side, block) for _, side in entered]
        after = [search.run(weights, s, d) for s, d in zip(states, sides, strict=True)]
        features = _Stream(search, weights, states, sides, job.batches)
        folded = dict(weights)
        for group, described in enumerate(search.groups):
            first = after[0], states[0], sides[0]
            wrong = search.probe(weights, *first, group=group)
            if not wrong <= job.config.fold_tolerance:
                note = f"folding changes the block's output by {wrong:.1e}"
                reports.append(_left_out(described, block, stack, note))
                continue
            choice = choose(search, group, block, weights, features.of(group))
            if isinstance(choice, str):
                reports.append(_left_out(described, block, stack, choice))
                continue
            folded = search.fold(folded, choice.scale, group=group)
            change = relative_change(after[0], search.run(folded, *first[1:]))
            reports.append(_reported(described, block, stack, choice, float(change)))
        states = after
        changed.append(folded)
    return changed


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


def _write_back(params: Any, stack: Stack, blocks: Sequence[Mapping[str, Any]]) -> Any:
    """The params tree with the blocks' weights replaced."""
    leaves, _ = tree.flatten(params)
    stacked: dict[tuple[str, int | None], dict[int, Any]] = {}
    changes: dict[str, Any] = {}
    for refs, weights in zip(stack.leaves, blocks, strict=True):
        for name, ref in refs.items():
            if base.is_stored(leaves[ref.name]):
                continue
            if ref.index is None:
                changes[ref.name] = weights[name]
            else:
                stacked.setdefault((ref.name, ref.axis), {})[ref.index] = weights[name]
    for (name, axis), slices in stacked.items():
        changes[name] = jnp.stack([slices[i] for i in sorted(slices)], axis or 0)
    return tree.update(params, changes)
