"""GPTQ on a program, block by block.

The Hessians of a block are measured on the dense block, one per distinct input; its
weights are rounded; and what the rounded block puts out feeds the next one, which so
makes good, as far as it can, what the blocks before it lost.
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jeff import base, quantize
from jeff.mbq import weighing
from jeff.mbq.calibration import Batch
from jeff.mbq.config import BalanceConfig
from jeff.mbq.done import Done
from jeff.mbq.gptq_weight import gptq_quantize
from jeff.mbq.group_spec import GroupSpec
from jeff.mbq.job import Job, Where, start
from jeff.mbq.report import Quantized
from jeff.mbq.rounding import Rounded, round_entry
from jeff.mbq.running_mean import RunningMean
from jeff.mbq.search import StackSearch
from jeff.mbq.stack_hessians import StackHessians

__all__ = ["gptq"]


def gptq(
    apply: Callable[..., Any],
    params: Any,
    batches: Sequence[Batch],
    config: BalanceConfig,
    *,
    loss: Callable[[Any, Any], jax.Array] | None = None,
    where: Where | None = None,
    groups: Sequence[GroupSpec] | None = None,
) -> Quantized:
    """GPTQ: each channel's rounding error is made good by the channels after it.

    No scale is folded into anything: it is the rounding itself that is better. With
    `BalanceConfig.weighted_hessian` a token weighs in the Hessians what its modality's
    sensitivity says, so that errors go where the answer does not see them.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Full-precision parameters; leaves of the quantized sites must be dense.
      batches: Calibration data; with masks if the Hessians are weighted.
      config: Settings: the weight quantizer, `BalanceConfig.damping` and `act_order`
        (with groups, whose scales are then those of the given weights: see
        `gptq_quantize`); with `weighted_hessian` also `reweight`, `loss` and
        `reference`. ``zero_point="int_incl_zero"`` is that of the original.
      loss: As for `mbq`; needed if the Hessians are weighted by gradients.
      where: Which sites to quantize; the products of the repeated blocks if ``None``.
      groups: Not used; every method takes it.

    Returns:
      The quantized parameters. `Report.groups` is empty; `Report.notes` names the
      weights that were rounded to nearest, and why.

    Raises:
      TypeError: As `mbq`.
      ValueError: As `mbq`, or if a Hessian is not positive definite (the layer is
        named): raise `BalanceConfig.damping`.

    Examples:
      Inputs of 32 channels that move together in fours:

      >>> import jax.numpy as jnp
      >>> from jeff import mbq
      >>> from jeff.quantize import QuantConfig
      >>> apply = lambda p, x: x @ p["w"]
      >>> key_x, key_w = jax.random.split(jax.random.key(0))
      >>> x = jnp.repeat(jax.random.normal(key_x, (64, 8)), 4, axis=1)
      >>> params = {"w": jax.random.normal(key_w, (32, 32))}
      >>> config = mbq.BalanceConfig(weights=QuantConfig(bits=3, group_size=32))
      >>> def error(method):
      ...     w = method(apply, params, [Batch((x,))], config).params["w"].decode()
      ...     return jnp.square(x @ (params["w"] - w)).mean()
      >>> bool(error(gptq) < 0.5 * error(mbq.rtn))
      True

    Note:
      The blocks before a run of equal blocks feed it at full precision; within the run
      inputs come from rounded blocks, as in the original. All weights of a block are
      rounded on the inputs that the dense block gives them.

    References:
      GPTQ, arXiv 2210.17323, sections 3.3 and 4 (block by block, on rounded inputs).
    """
    del groups
    if isinstance(config, BalanceConfig) and config.weighted_hessian:
        weighing.check_loss(config, loss)
    job = start(apply, params, batches, config, where, None)
    stacks = [StackHessians.of(s, found, job.leaves) for s, found in job.stacks]
    weigh, seen = None, {}
    if config.weighted_hessian:
        if config.reweight != "none" and job.batches[0].masks:
            shape = np.shape(next(iter(job.batches[0].masks.values())))
            for hessians in stacks:
                hessians.check_tokens(shape)
        weigh, seen = weighing.balanced(
            apply, params, job.batches, config, loss, job.stacks
        )
    uses = collections.Counter(
        (ref.name, ref.index)
        for stack, _ in job.stacks
        for refs in stack.leaves
        for ref in refs.values()
    )
    shared = {ref for ref, count in uses.items() if count > 1}
    done, notes = Done(job), []
    for hessians in stacks:
        notes += _round_stack(job, hessians, weigh, shared, done)
    folded, rounded = done.leaves()
    notes += [
        f"{name}: rounded to nearest, it is in no block"
        for name in job.leaves
        if name not in rounded
    ]
    return job.finish(folded, rounded, (), seen, notes)


def _round_stack(job: Job, hessians: StackHessians, weigh, shared, done) -> list[str]:
    """Rounds the blocks of a stack into `done`; a line per weight without a Hessian."""
    stack = hessians.stack
    search = StackSearch.of(stack, ())
    states, entered = [], []
    for batch in job.batches:
        state, side = stack.enter(job.params, *batch.inputs)
        states.append(state)
        entered.append(side)
    notes: list[str] = []
    for block in range(stack.count):
        sides = [stack.side(side, block) for side in entered]
        inputs = list(zip(states, sides, strict=True))
        weights = {
            n: base.decoded(w) for n, w in stack.weights(job.params, block).items()
        }
        rounded = _round_block(
            job, hessians, weigh, shared, block, weights, inputs, notes
        )
        done.add(search, block, weights, rounded)
        if block + 1 < stack.count:
            stored = weights | {n: r.weight for n, r in rounded.items()}
            states = [search.run(stored, *at) for at in inputs]
    return notes


def _round_block(job, hessians, weigh, shared, block, weights, inputs, notes):
    """The rounded weights of a block; its Hessians are gone when it returns."""
    means = _measured(job, hessians, weigh, block, weights, inputs)
    rounded = {}
    for name, ref in hessians.stack.leaves[block].items():
        if ref.name not in job.leaves:
            continue
        why_not = "where refuses its site in the first block"
        if name in hessians.leaves:
            why_not = hessians.leaves[name].why_not
        if (ref.name, ref.index) in shared:
            why_not = "several blocks share it"
        if why_not:
            notes.append(f"{ref.name}: rounded to nearest, {why_not}")
        rounded[name] = _rounded(
            job, hessians, name, block, weights[name], None if why_not else means
        )
    return rounded


def _measured(job, hessians, weigh, block, weights, inputs) -> list[RunningMean]:
    """The block's Hessians, merged over batches."""
    means: list[RunningMean] = []
    for (state, side), batch in zip(inputs, job.batches, strict=True):
        tokens = tuple(
            None if weigh is None else weigh(group, block, batch)[0]
            for group in hessians.groups
        )
        got = hessians.measure(weights, state, side, tokens)
        means = [a.merge(b) for a, b in zip(means, got, strict=True)] if means else got
    return list(means)


def _rounded(job, hessians, name, block, w, means) -> Rounded:
    """One weight of a block; to nearest if there are no Hessians for it."""
    ref = hessians.stack.leaves[block][name]
    quantizer = job.config.weights
    if means is None:
        return round_entry(w, job.leaves[ref.name], ref.axis, quantizer)
    channels = hessians.leaves[name]
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
            **axes,
        )
    except ValueError as error:
        raise ValueError(f"layer {ref.name!r}: {error}") from None
    clipped = quantize.one_sided_groups(w, quantizer, **axes)
    return Rounded(stored, int(clipped.sum()))
