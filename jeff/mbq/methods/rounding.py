"""Rounding the weights of one block: to nearest, or by GPTQ."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jeff import quantize
from jeff.mbq.blocks.prefix import Entering
from jeff.mbq.call.job import Job
from jeff.mbq.call.weighing import Weigh
from jeff.mbq.gptq.stack_hessians import StackHessians
from jeff.mbq.gptq.weight import gptq_quantize
from jeff.mbq.rounding.entries import Rounded, round_entry
from jeff.mbq.running_mean import RunningMean
from jeff.program.blocks import Stack

__all__ = ["gptq_block", "nearest_block"]


def nearest_block(
    job: Job, stack: Stack, block: int, weights: Mapping[str, jax.Array]
) -> dict[str, Rounded]:
    """Rounds to nearest.

    Args:
      job: The call: which leaves are quantized, and how.
      stack: The stack of the block.
      block: Its number.
      weights: Its dense weights.

    Returns:
      Its quantized weights, by the template's names.

    Raises:
      ValueError: If a scale overflows its dtype; the leaf is named.
    """
    return {
        name: round_entry(
            weights[name], job.leaves[ref.name], ref.axis, job.config.weights
        )
        for name, ref in stack.leaves[block].items()
        if ref.name in job.leaves
    }


def gptq_block(
    job: Job,
    hessians: StackHessians,
    weigh: Weigh | None,
    block: int,
    weights: Mapping[str, jax.Array],
    ranges: Mapping[str, jax.Array],
    entering: Sequence[Entering],
) -> tuple[dict[str, Rounded], list[str]]:
    """Rounds by GPTQ, on what the quantized blocks before put out.

    Args:
      job: The call.
      hessians: The Hessians of the stack; gone when this returns.
      weigh: How tokens weigh in them; all alike if ``None``.
      block: Number of the block.
      weights: Its dense weights.
      ranges: Weights whose scales are taken instead of their own (clipped ones).
      entering: What enters it.

    Returns:
      Its quantized weights, and a line per weight that was rounded to nearest.

    Raises:
      ValueError: If a scale overflows its dtype or a Hessian is not positive definite;
        the leaf is named.
    """
    means = _measured(hessians, weigh, block, weights, entering)
    rounded, notes = {}, []
    for name, ref in hessians.stack.leaves[block].items():
        if ref.name not in job.leaves:
            continue
        why_not = "its site in this block is not to be quantized"
        if name in hessians.leaves:
            why_not = hessians.leaves[name].why_not
        if (ref.name, ref.index) in job.shared:
            why_not = "several blocks share it"
        if why_not:
            notes.append(f"{ref.name}: rounded to nearest, {why_not}")
            w, part = ranges.get(name, weights[name]), job.leaves[ref.name]
            rounded[name] = round_entry(w, part, ref.axis, job.config.weights)
        else:
            rounded[name] = _rounded(
                job, hessians, ref.name, name, weights[name], ranges.get(name), means
            )
    return rounded, notes


def _measured(hessians, weigh, block, weights, entering) -> list[RunningMean]:
    """The block's Hessians, merged over batches."""
    means: list[RunningMean] = []
    for e in entering:
        tokens = tuple(
            None if weigh is None else weigh(group, block, e.batch)[0]
            for group in hessians.groups
        )
        got = hessians.measure(weights, e.quantized, e.side, tokens)
        means = [a.merge(b) for a, b in zip(means, got, strict=True)] if means else got
    return list(means)


def _rounded(job, hessians, leaf, name, w, ranges, means) -> Rounded:
    """One weight of a block."""
    channels, quantizer = hessians.leaves[name], job.config.weights
    axes: dict[str, Any] = {
        "contract_axes": channels.contract_axes,
        "stack_axes": channels.stack_axes,
    }
    try:
        stored = gptq_quantize(
            w,
            hessians.hessian(name, means),
            quantizer,
            damping=job.config.damping,
            act_order=job.config.act_order,
            ranges=ranges,
            **axes,
        )
    except ValueError as error:
        raise ValueError(f"layer {leaf!r}: {error}") from None
    clipped = quantize.one_sided_groups(
        w if ranges is None else ranges, quantizer, **axes
    )
    return Rounded(stored, int(clipped.sum()))
