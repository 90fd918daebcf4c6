"""How every method begins: arguments checked, the store opened, tokens weighed."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from jeff.mbq.blocks.inputs import BlockInputs
from jeff.mbq.blocks.store import BlockStore
from jeff.mbq.calibration.batches import Batch
from jeff.mbq.call import weighing
from jeff.mbq.call.fingerprint import fingerprint
from jeff.mbq.call.job import Job, Where, start
from jeff.mbq.call.weighing import Weigh
from jeff.mbq.config import BalanceConfig, check_used
from jeff.mbq.groups.spec import GroupSpec
from jeff.mbq.report import Sensitivities

__all__ = ["Call", "begin"]

_OF_GPTQ = ("weighted_hessian", "act_order", "damping")


class Call(NamedTuple):
    """A method call whose heavy work may begin.

    Attributes:
      job: The checked arguments.
      seen: Modality sensitivities; empty if no token is weighed by gradients.
      weigh: How tokens weigh in the search of scales; of MBQ only.
      weigh_clip: How they weigh in the search of limits; ``None``: all alike.
      weigh_hessian: How they weigh in GPTQ's Hessians; ``None``: all alike.
    """

    job: Job
    seen: Sensitivities
    weigh: Weigh
    weigh_clip: Weigh | None
    weigh_hessian: Weigh | None


@contextlib.contextmanager
def begin(
    method: str,
    apply: Callable[..., Any],
    params: Any,
    batches: Sequence[Batch],
    config: BalanceConfig,
    *,
    loss: Callable[[Any, Any], jax.Array] | None,
    where: Where | None,
    groups: Sequence[GroupSpec] | None,
    clip_where: Where | None,
    store: BlockStore | None,
    unused: Sequence[str] = (),
) -> Iterator[Call]:
    """Checks the arguments of a method, and finds how its tokens weigh.

    A context: as long as it is open, no other call can have the store.

    Args:
      method: Its name; only ``"mbq"`` weighs tokens in its searches.
      apply: ``apply(params, *inputs)``.
      params: Parameters.
      batches: Calibration data.
      config: Settings.
      loss: As for `jeff.mbq.mbq`.
      where: Which sites to quantize.
      groups: Balance groups.
      clip_where: Which of the sites to clip.
      store: Where finished blocks are kept.
      unused: Settings that the method does not look at.

    Yields:
      The call.

    Raises:
      OSError: If another call has the store, or it cannot be written to.
      TypeError: As `jeff.mbq.mbq`.
      ValueError: As `jeff.mbq.mbq`.
    """
    if store is not None and not isinstance(store, BlockStore):
        raise TypeError(f"store must be a BlockStore, got {store!r}")
    if clip_where is not None and "clip" in unused:
        raise ValueError(f"clip_where has no effect in {method}")
    searches = method == "mbq"
    hessian = clip = False
    if isinstance(config, BalanceConfig):
        check_used(config, method, unused)
        if config.rounding != "gptq":
            check_used(config, f'{method} with rounding="nearest"', _OF_GPTQ)
        hessian = config.rounding == "gptq" and config.weighted_hessian
        clip = searches and config.clip and config.reweight != "none"
        if searches or hessian:
            weighing.check_loss(config, loss)
    job = start(apply, params, batches, config, where, groups, clip_where)
    weighed = job.scaled if searches else []
    if hessian or clip:
        weighed += job.inputs
        _check_inputs(job, "weighted_hessian" if hessian else "clip")
    if searches or hessian:
        weighing.check_call(job.batches, job.config, weighed)
    by_gradient = weighing.needs_loss(config) and any(groups for _, groups in weighed)
    with contextlib.nullcontext() if store is None else store.locked():
        if store is not None:
            store.begin(fingerprint(method, job, groups, loss if by_gradient else None))
        weigh, seen = weighing.balanced(
            apply, params, job.batches, config, loss, weighed, store
        )
        yield Call(
            job=job,
            seen=seen,
            weigh=weigh,
            weigh_clip=weigh if clip else None,
            weigh_hessian=weigh if hessian else None,
        )


def _check_inputs(job: Job, setting: str) -> None:
    """Refuses masks that do not fit the inputs whose tokens are weighed."""
    shape = weighing.tokens_shape(job.batches[0], job.config)
    if job.config.reweight == "none" or not shape:
        return
    for plan in job.plans:
        BlockInputs.of(plan, job.leaves).check_tokens(shape, f"set {setting}=False")
