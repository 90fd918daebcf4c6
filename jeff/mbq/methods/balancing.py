"""Block by block: scales found and folded, weights clipped and rounded, and on.

What is done to a block is up to the method and its settings; the order is always this
one. A block is rounded as soon as its scales are folded, so beside the caller's params
only copies of one block are dense at any time. Blocks that are kept on the disk already
are read instead; blocks of which nothing is quantized are only run, and only if one
behind them is still to be done.
"""

from typing import Any

from jeff import base
from jeff.mbq.blocks.finished import FinishedBlock
from jeff.mbq.blocks.plan import BlockPlan
from jeff.mbq.blocks.prefix import Prefix
from jeff.mbq.blocks.store import BlockStore
from jeff.mbq.call.job import Job
from jeff.mbq.call.weighing import Weigh
from jeff.mbq.clip.block import clip_block
from jeff.mbq.gptq.stack_hessians import StackHessians
from jeff.mbq.methods.done import Done
from jeff.mbq.methods.rounding import gptq_block, nearest_block
from jeff.mbq.methods.scaling import Choose, scale_block
from jeff.mbq.report import Quantized, Sensitivities
from jeff.mbq.scales.search import StackSearch
from jeff.program.blocks import Stack

__all__ = ["balance"]


def balance(
    job: Job,
    choose: Choose | None,
    seen: Sensitivities,
    *,
    weigh_clip: Weigh | None = None,
    weigh_hessian: Weigh | None = None,
    store: BlockStore | None = None,
) -> Quantized:
    """Quantizes block by block.

    Nothing of a block stays dense once it is done but what is not to be quantized.

    Args:
      job: The checked call; its settings say whether weights are clipped, how they are
        rounded, and what candidates see.
      choose: How a scale is found; ``None``: nothing is scaled.
      seen: Modality sensitivities for the report, if any.
      weigh_clip: How tokens weigh in the clipping search; all alike if ``None``.
      weigh_hessian: How tokens weigh in GPTQ's Hessians; all alike if ``None``.
      store: Where finished blocks are kept, if they are.

    Returns:
      The quantized parameters.

    Raises:
      ValueError: If a scale overflows its dtype or a Hessian is not positive definite;
        the leaf is named.
    """
    done, groups, clips, notes = Done(job), [], [], []
    make = _Maker(job, choose, weigh_clip, weigh_hessian)
    for number, (stack, plans) in enumerate(job.stacks):
        for block, finished in _blocks(job, make, number, stack, plans, store):
            done.add(stack, block, finished)
            groups += finished.groups
            clips += finished.clips
            notes += finished.notes
    folded, rounded = done.leaves()
    if job.config.rounding == "gptq":
        notes += [
            f"{name}: rounded to nearest, it is in no block"
            for name in job.leaves
            if name not in rounded
        ]
    return job.finish(folded, rounded, groups, seen, notes, clips)


def _blocks(job, make, number, stack, plans, store):
    """Yields the blocks of a stack that are quantized, each when it is finished."""
    kept = [store is not None and store.has(number, b) for b in range(stack.count)]
    planned = [b for b in range(stack.count) if plans[b] is not None]
    to_do = [b for b in planned if not kept[b]]
    prefix = make.prefix(stack) if to_do else None
    for block, plan in enumerate(plans):
        if plan is None and (prefix is None or block > to_do[-1]):
            continue
        given = stack.weights(job.params, block)
        finished = None
        if plan is not None and store is not None and kept[block]:
            refs = stack.leaves[block].items()
            rounded = [n for n, ref in refs if ref.name in job.leaves]
            finished = store.load(number, block, {n: given[n].shape for n in rounded})
        elif plan is not None:
            finished = make.block(plan, block, given, prefix)
            if store is not None:
                store.save(number, block, finished)
        if prefix is not None and block < to_do[-1]:
            stored = None if finished is None else finished.weights(given)
            prefix.move(given, stored)
            del stored
        del given
        if finished is not None:
            yield block, finished


class _Maker:
    """Turns a block of dense weights into a finished one."""

    def __init__(
        self,
        job: Job,
        choose: Choose | None,
        weigh_clip: Weigh | None,
        weigh_hessian: Weigh | None,
    ):
        self._job, self._choose = job, choose
        self._weigh_clip, self._weigh_hessian = weigh_clip, weigh_hessian

    def prefix(self, stack: Stack) -> Prefix | None:
        """The states that are needed before the blocks; ``None`` if none are."""
        config = self._job.config
        clean = self._choose is not None or (config.clip and not config.distort)
        quantized = config.distort or config.rounding == "gptq"
        if not clean and not quantized:
            return None
        return Prefix(
            stack,
            self._job.params,
            self._job.batches,
            clean=clean,
            quantized=quantized,
            activation_bits=config.activation_bits,
        )

    def block(
        self, plan: BlockPlan, block: int, given: dict[str, Any], prefix: Prefix | None
    ) -> FinishedBlock:
        """The finished block."""
        job, stack = self._job, plan.stack
        weights = {n: base.decoded(w) for n, w in given.items()}
        entering = [] if prefix is None else prefix.at(block)
        groups, clips, notes, clipped = [], [], [], {}
        if self._choose is not None:
            weights, groups = scale_block(
                job, plan, self._choose, block, weights, entering
            )
        if job.config.clip:
            clipped, clips, notes = clip_block(
                job, plan, self._weigh_clip, block, weights, entering
            )
        if job.config.rounding == "gptq":
            hessians = StackHessians.of(plan, job.leaves)
            rounded, more = gptq_block(
                job, hessians, self._weigh_hessian, block, weights, clipped, entering
            )
            notes += more
        else:
            rounded = nearest_block(job, stack, block, {**weights, **clipped})
        return FinishedBlock(
            rounded=rounded,
            folded=self._folded(plan, block, given, weights),
            groups=tuple(groups),
            clips=tuple(clips),
            notes=tuple(notes),
        )

    def _folded(self, plan, block, given, weights) -> dict[str, Any]:
        """Dense weights that a scale may be in."""
        if self._choose is None:
            return {}
        search = StackSearch.of(plan.stack, plan.groups)
        scaled = {n for g in search.groups for n in (*g.fold, *g.targets)}
        return {
            name: weights[name]
            for name, ref in plan.stack.leaves[block].items()
            if name in scaled
            and ref.name not in self._job.leaves
            and not base.is_stored(given[name])
        }
