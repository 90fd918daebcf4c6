"""SmoothQuant on a program, block by block: a formula for the scales, no search."""

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
from jeff.mbq.methods.choosers import smoothed
from jeff.mbq.report import Quantized

__all__ = ["smoothquant"]


def smoothquant(
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
    """SmoothQuant: scales from the largest activations and weights, no search.

    Only groups whose input comes from a norm are scaled, as in the original.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Full-precision parameters.
      batches: Calibration data.
      config: Settings; `BalanceConfig.smoothing` is the exponent. With
        ``rounding="gptq"`` the smoothed weights are rounded by GPTQ.
      loss: Needed only if GPTQ's Hessians are weighted by gradients.
      where: Which sites to quantize; the products of the repeated blocks if ``None``.
      groups: Balance groups; inferred if ``None``.
      clip_where: ``None``: nothing is clipped here.
      store: Where finished blocks are kept, so that a call that was stopped goes on
        where it was.

    Returns:
      The quantized parameters.

    Raises:
      TypeError: As `mbq`.
      ValueError: As `mbq`, or if `BalanceConfig.clip` or `distort` is set: nothing is
        searched here.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff.quantize import QuantConfig
      >>> apply = lambda p, x: (x * p["norm"]) @ p["w"]
      >>> params = {"norm": jnp.ones(32).at[0].set(16.0), "w": jnp.eye(32)}
      >>> w4a8 = BalanceConfig(
      ...     weights=QuantConfig(bits=4, symmetric=True), activation_bits=8
      ... )
      >>> q = smoothquant(apply, params, [Batch((jnp.ones((1, 32)),))], w4a8)
      >>> print(q.report.groups[0].scale[:3], len(q.rules))  # sqrt(16 / 1), sqrt(1 / 1)
      [4. 1. 1.] 1

    References:
      SmoothQuant, arXiv 2211.10438, equation 4.
    """
    with begin(
        "smoothquant",
        apply,
        params,
        batches,
        config,
        loss=loss,
        where=where,
        groups=groups,
        clip_where=clip_where,
        store=store,
        unused=("clip", "distort"),
    ) as call:
        return balance(
            call.job,
            smoothed(config),
            call.seen,
            weigh_hessian=call.weigh_hessian,
            store=store,
        )
