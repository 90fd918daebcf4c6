"""GPTQ on a program, block by block.

The Hessians of a block are measured on the dense block, one per distinct input; its
weights are rounded; and what the rounded block puts out feeds the next one, which so
makes good, as far as it can, what the blocks before it lost.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jeff.mbq.blocks.store import BlockStore
from jeff.mbq.calibration.batches import Batch
from jeff.mbq.call.begin import begin
from jeff.mbq.call.job import Where
from jeff.mbq.config import BalanceConfig
from jeff.mbq.groups.spec import GroupSpec
from jeff.mbq.methods.balancing import balance
from jeff.mbq.report import Quantized

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
    clip_where: Where | None = None,
    store: BlockStore | None = None,
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
      clip_where: ``None``: nothing is clipped here.
      store: Where finished blocks are kept, so that a call that was stopped goes on
        where it was.

    Returns:
      The quantized parameters. `Report.groups` is empty; `Report.notes` names the
      weights that were rounded to nearest, and why.

    Raises:
      TypeError: As `mbq`.
      ValueError: As `mbq`; if a Hessian is not positive definite (the layer is named):
        raise `BalanceConfig.damping`; or if `BalanceConfig.clip` or `distort` is set,
        as nothing is searched here (and inputs are those of the quantized prefix
        anyway). For GPTQ after a search take `awq` or `mbq` with ``rounding="gptq"``.

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
      inputs come from rounded blocks, as in the original, their activations quantized
      if they will be. All weights of a block are rounded on the inputs that the dense
      block gives them.

    References:
      GPTQ, arXiv 2210.17323, sections 3.3 and 4 (block by block, on rounded inputs).
    """
    del groups
    if isinstance(config, BalanceConfig):
        config = dataclasses.replace(config, rounding="gptq")
    with begin(
        "gptq",
        apply,
        params,
        batches,
        config,
        loss=loss,
        where=where,
        groups=(),
        clip_where=clip_where,
        store=store,
        unused=("clip", "distort"),
    ) as call:
        return balance(
            call.job, None, call.seen, weigh_hessian=call.weigh_hessian, store=store
        )
