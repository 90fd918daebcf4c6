"""MBQ, and what is left of it without modalities (AWQ) and without scales (RTN)."""

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
from jeff.mbq.methods.choosers import searched
from jeff.mbq.report import Quantized

__all__ = ["awq", "mbq", "rtn"]

Loss = Callable[[Any, Any], jax.Array]


def rtn(
    apply: Callable[..., Any],
    params: Any,
    batches: Sequence[Batch],
    config: BalanceConfig,
    *,
    loss: Loss | None = None,
    where: Where | None = None,
    groups: Sequence[GroupSpec] | None = None,
    clip_where: Where | None = None,
    store: BlockStore | None = None,
) -> Quantized:
    """Round to nearest: the quantizer alone, no calibration.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Full-precision parameters.
      batches: Calibration data; only its shapes are used.
      config: Settings; only the quantizers are used.
      loss: Not used; every method takes it.
      where: Which sites to quantize; the products of the repeated blocks if ``None``.
      groups: Not used; every method takes it.
      clip_where: ``None``: nothing is clipped here.
      store: Where finished blocks are kept, so that a call that was stopped goes on
        where it was.

    Returns:
      The quantized parameters.

    Raises:
      TypeError: As `mbq`.
      ValueError: As `mbq`, or if `clip_where`, `BalanceConfig.clip`, `distort`,
        `rounding` or a setting of GPTQ is given, which would do nothing here.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff.quantize import QuantConfig
      >>> apply = lambda p, x: x @ p["w"]
      >>> config = BalanceConfig(weights=QuantConfig(bits=8, group_size=32))
      >>> q = rtn(apply, {"w": jnp.eye(32)}, [Batch((jnp.ones((1, 32)),))], config)
      >>> type(q.params["w"]).__name__
      'QTensor'
    """
    del groups
    with begin(
        "rtn",
        apply,
        params,
        batches,
        config,
        loss=loss,
        where=where,
        groups=(),
        clip_where=clip_where,
        store=store,
        unused=(
            "clip",
            "distort",
            "rounding",
            "weighted_hessian",
            "act_order",
            "damping",
        ),
    ) as call:
        return balance(call.job, None, {}, store=store)


def awq(
    apply: Callable[..., Any],
    params: Any,
    batches: Sequence[Batch],
    config: BalanceConfig,
    *,
    loss: Loss | None = None,
    where: Where | None = None,
    groups: Sequence[GroupSpec] | None = None,
    clip_where: Where | None = None,
    store: BlockStore | None = None,
) -> Quantized:
    """AWQ: scales by plain mean squared error over all tokens, and clipping if asked.

    With ``BalanceConfig(clip=True)`` this is the published method; without it, the
    default, its scale search alone.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Full-precision parameters.
      batches: Calibration data.
      config: Settings; `BalanceConfig.loss` and `BalanceConfig.reweight` do not apply.
      loss: Needed only if GPTQ's Hessians are weighted by gradients.
      where: Which sites to quantize; the products of the repeated blocks if ``None``.
      groups: Balance groups; inferred if ``None``.
      clip_where: Which of the sites to clip; if ``None``, those whose products do not
        feed attention scores, as in the original.
      store: Where finished blocks are kept, so that a call that was stopped goes on
        where it was.

    Returns:
      The quantized parameters.

    Raises:
      TypeError: As `mbq`.
      ValueError: As `mbq`.

    Examples:
      A channel that is eight times as large as the others asks for finer steps:

      >>> import jax.numpy as jnp
      >>> from jeff.quantize import QuantConfig
      >>> apply = lambda p, x: (x * p["norm"]) @ p["w"]
      >>> key_x, key_w = jax.random.split(jax.random.key(0))
      >>> params = {"norm": jnp.ones(32).at[3].set(8.0),
      ...           "w": jax.random.normal(key_w, (32, 32))}
      >>> config = BalanceConfig(weights=QuantConfig(bits=3, group_size=32))
      >>> batch = Batch((jax.random.normal(key_x, (64, 32)),))
      >>> (group,) = awq(apply, params, [batch], config).report.groups
      >>> group.exponent > 0, group.losses.shape, int(group.scale.argmax())
      (True, (20,), 3)

    References:
      AWQ, arXiv 2306.00978, section 3.2; the clipping search is its program's.
    """
    with begin(
        "awq",
        apply,
        params,
        batches,
        config,
        loss=loss,
        where=where,
        groups=groups,
        clip_where=clip_where,
        store=store,
    ) as call:
        return balance(
            call.job,
            searched(config, "mse", lambda *_: (None, {})),
            call.seen,
            weigh_hessian=call.weigh_hessian,
            store=store,
        )


def mbq(
    apply: Callable[..., Any],
    params: Any,
    batches: Sequence[Batch],
    config: BalanceConfig,
    *,
    loss: Loss | None = None,
    where: Where | None = None,
    groups: Sequence[GroupSpec] | None = None,
    clip_where: Where | None = None,
    store: BlockStore | None = None,
) -> Quantized:
    """Modality-balanced quantization.

    The same search as AWQ, but every token's error weighs what the loss's gradient
    says about its modality (`sensitivity`, `token_weights`); so does, with
    ``BalanceConfig(clip=True)``, the search of clipping limits.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Full-precision parameters; leaves of the quantized sites must be dense.
      batches: Calibration data with `Batch.masks`.
      config: Settings.
      loss: ``loss(outputs, targets)``: the sum over a batch's samples of each
        sample's mean loss. Needed unless `BalanceConfig.reweight` takes no gradient.
      where: Which sites to quantize; the products of the repeated blocks if ``None``.
      groups: Balance groups named by hand, then the only ones that are scaled;
        inferred from the program if ``None``.
      clip_where: Which of the sites to clip (`BalanceConfig.clip`); if ``None``, those
        whose products do not feed attention scores.
      store: Where finished blocks are kept, so that a call that was stopped goes on
        where it was.

    Returns:
      The quantized parameters, the rules to run them with, and a report.

    Raises:
      TypeError: If `loss` is missing, or an argument is of the wrong kind.
      ValueError: If calibration data holds NaN (the batch is named) or is empty, masks
        do not fit the tokens, lack the reference or name a modality without tokens,
        `params` and `batches` do not fit the program, the group size does not divide
        a layer's input size or a layer is quantized already (it is named), `groups`
        does not fit the program, there is nothing to quantize, `store` was begun
        with other settings (the first that differs is named) or is damaged, or a
        setting of GPTQ is given without ``rounding="gptq"``.
      OSError: If another call is working with `store`, or it cannot be written to.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jeff.quantize import QuantConfig
      >>> def apply(p, x):  # [B, N, 32]
      ...     return jax.nn.relu((x * p["norm"]) @ p["up"]) @ p["down"]
      >>> key_x, *keys = jax.random.split(jax.random.key(0), 3)
      >>> up, down = (jax.random.normal(k, (32, 32)) for k in keys)
      >>> params = {"norm": jnp.ones(32).at[3].set(8.0), "up": up, "down": down}
      >>> vision = jnp.arange(6)[None] < 4
      >>> batch = Batch(inputs=(jax.random.normal(key_x, (1, 6, 32)),),
      ...               masks={"vision": vision, "language": ~vision})
      >>> config = BalanceConfig(weights=QuantConfig(bits=3, group_size=32))
      >>> q = mbq(apply, params, [batch], config,
      ...         loss=lambda y, _: (y**2).mean())
      >>> for g in q.report.groups:
      ...     print(g.sites, "folded into", g.fold)
      ('up',) folded into ('norm',)
      ('down',) folded into ('up',)

    Note:
      The grid's exponents are those of the program, 0 to 0.95; groups with
      grouped-query attention share scales per key/value channel, which the original
      skips.

    References:
      arXiv 2412.19509, section 3.2, equations 8 to 13.
    """
    with begin(
        "mbq",
        apply,
        params,
        batches,
        config,
        loss=loss,
        where=where,
        groups=groups,
        clip_where=clip_where,
        store=store,
    ) as call:
        return balance(
            call.job,
            searched(config, config.loss, call.weigh),
            call.seen,
            weigh_clip=call.weigh_clip,
            weigh_hessian=call.weigh_hessian,
            store=store,
        )
