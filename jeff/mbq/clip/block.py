"""The clipping search on the weights of a block, tokens weighed or all alike.

Once a block's scales are folded, every group of input channels of every output channel
gets the limit that costs its partial product least, on a sample of the calibration
tokens (`jeff.mbq.clip.search`, AWQ). With the token weights of MBQ an error in a vision
token counts for what its modality's sensitivity says.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jeff import program, quantize
from jeff.mbq.blocks.inputs import BlockInputs
from jeff.mbq.blocks.plan import BlockPlan
from jeff.mbq.blocks.prefix import Entering
from jeff.mbq.calibration.batches import Batch
from jeff.mbq.call.job import Job
from jeff.mbq.call.weighing import Weigh
from jeff.mbq.clip.search import clip_errors, clip_weight, shrunk
from jeff.mbq.clip.tokens import Picks, pick_tokens
from jeff.mbq.config import BalanceConfig
from jeff.mbq.report import ClipReport
from jeff.mbq.rounding.matrices import Matrices

__all__ = ["StackClip", "clip_block"]


class StackClip(BlockInputs):
    """The compiled clipping search of a stack's blocks.

    Attributes:
      sample: ``sample(weights, state, side, index) -> [[*batch, S, K]]``: the rows
        `index` of every input.
    """

    def __init__(self, plan: BlockPlan, parts: Mapping[str, program.Part]):
        """Prepares the functions of a plan.

        Args:
          plan: What is quantized.
          parts: The leaves to quantize and their axes, by the names in the params.
        """
        super().__init__(plan, parts)
        self.sample = jax.jit(self._sample)

    def search(
        self,
        name: str,
        w: jax.Array,
        xs: Sequence[jax.Array],
        shares: Sequence[jax.Array],
        config: quantize.QuantConfig,
    ) -> tuple[jax.Array, np.ndarray, float, float]:
        """Clips one weight.

        Args:
          name: The weight, one of `leaves` whose inputs are known.
          w: The weight itself, scales folded in.
          xs: ``[*batch, S, K]`` per input, its sampled rows.
          shares: ``[S]`` per input, weight of every row.
          config: The quantizer.

        Returns:
          ``(clipped, steps, before, after)``, see `ClipReport`.
        """
        channels = self.leaves[name]
        layout = Matrices.of(
            w.shape,
            contract_axes=channels.contract_axes,
            stack_axes=channels.stack_axes,
        )
        met = [
            xs[i].reshape(-1, *xs[i].shape[-2:])
            if (np.diff(index) == 1).all()
            else xs[i][..., index].reshape(-1, *xs[i].shape[-2:])
            for i, index in channels.inputs
        ]
        clipped, steps, before, after = _clip(
            layout.split(w),
            jnp.concatenate(met, axis=1),  # [stack, tokens, K]
            jnp.concatenate([shares[i] for i, _ in channels.inputs]),
            config=config,
            size=config.group_size or layout.k,
        )
        steps = np.asarray(steps).reshape(*layout.stacked, *steps.shape[1:])
        return layout.restore(clipped, w.shape), steps, float(before), float(after)

    def rows(self, number: int) -> int:
        """How many rows an input has (each entry of it, where there are experts).

        Args:
          number: Of the input.

        Returns:
          Their number.
        """
        view = self._views[number]
        return int(np.prod(view.x_shape[len(view.batch) : -1], dtype=np.int64))

    def _sample(self, weights, state, side, index) -> list[jax.Array]:
        sampled = []
        operands = self.operands(weights, state, side)
        for x, view, at in zip(operands, self._views, index, strict=True):
            batch = len(view.batch)
            rows = x.reshape(*x.shape[:batch], -1, x.shape[-1])
            sampled.append(jnp.take(rows, at, axis=batch).astype(jnp.float32))
        return sampled


@functools.partial(jax.jit, static_argnames=("config", "size"))
def _clip(
    matrices: jax.Array,
    x: jax.Array,
    shares: jax.Array,
    *,
    config: quantize.QuantConfig,
    size: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Clipped ``[stack, K, N]``, steps, mean errors without and with; one per shape."""
    one_group = dataclasses.replace(config, group_size=None)

    def one(pair):
        w, rows = pair
        errors = clip_errors(
            w,
            rows,
            lambda group: quantize.fake_quant(group, one_group),
            shares,
            group_size=size,
        )
        steps = jnp.argmin(errors, axis=0)
        clipped = clip_weight(w, shrunk(w, steps))
        mean = errors[0].mean(), errors.min(axis=0).mean()
        return clipped, steps.astype(jnp.uint8), *mean

    clipped, steps, before, after = jax.lax.map(one, (matrices, x))
    return clipped, steps, before.mean(), after.mean()


def clip_block(
    job: Job,
    plan: BlockPlan,
    weigh: Weigh | None,
    block: int,
    weights: Mapping[str, jax.Array],
    entering: Sequence[Entering],
) -> tuple[dict[str, jax.Array], list[ClipReport], list[str]]:
    """Clips the weights of a block.

    Args:
      job: The call.
      plan: The plan of the block.
      weigh: How tokens weigh; all alike if ``None``.
      block: Its number.
      weights: Its dense weights, scales folded in.
      entering: What enters it. The inputs are those that the quantized prefix gives
        where that is kept for the scales too (`BalanceConfig.distort`).

    Returns:
      The clipped weights by the template's names, a report of each, and a line per
      weight that could not be clipped.
    """
    stack, clip = plan.stack, StackClip.of(plan, job.leaves)
    clipped, reports, notes = {}, [], []
    chosen = [n for n in clip.leaves if _may_clip(plan, n)]
    if not chosen:
        return {}, [], []
    xs, shares = _sampled(job, clip, weigh, block, weights, entering)
    for name in chosen:
        ref, channels = stack.leaves[block][name], clip.leaves[name]
        why_not = channels.why_not
        if (ref.name, ref.index) in job.shared:
            why_not = "several blocks share it"
        if why_not:
            notes.append(f"{ref.name}: not clipped, {why_not}")
            continue
        clipped[name], *found = clip.search(
            name, weights[name], xs, shares, job.config.weights
        )
        reports.append(ClipReport(block, ref.name, *found))
    return clipped, reports, notes


def _may_clip(plan: BlockPlan, name: str) -> bool:
    """Whether all sites of a weight may be clipped."""
    sites = plan.stack.piece.found.sites
    users = [n for n in plan.stack.sites if name in sites.named(n).leaves]
    return bool(users) and plan.clipped.issuperset(users)


def _sampled(job, clip, weigh, block, weights, entering):
    """Per input, the sampled rows of all batches, and the weight of each."""
    batches = [e.batch for e in entering]
    picks = [
        pick_tokens(
            _kinds(batches, clip.rows(i), None if weigh is None else job.config),
            job.config.clip_tokens,
        )
        for i in range(len(clip.groups))
    ]
    xs, shares = [], []
    for number, e in enumerate(entering):
        state = e.quantized if job.config.distort else e.clean
        mine = [p[number] for p in picks]
        got = clip.sample(weights, state, e.side, [index for index, _ in mine])
        # Rows that only fill the sample of a batch up come last.
        counts = [int((share > 0).sum()) for _, share in mine]
        xs.append([x[..., :n, :] for x, n in zip(got, counts, strict=True)])
        shares.append(
            [
                _shares((index[:n], share[:n]), group, weigh, block, e.batch)
                for (index, share), n, group in zip(
                    mine, counts, clip.groups, strict=True
                )
            ]
        )
    joined = [jnp.concatenate(rows, axis=-2) for rows in zip(*xs, strict=True)]
    return joined, [jnp.concatenate(a) for a in zip(*shares, strict=True)]


def _kinds(
    batches: Sequence[Batch], rows: int, weighed: BalanceConfig | None
) -> list[np.ndarray]:
    """The modality of every row, -1 for none; all alike if tokens are not weighed.

    Tokens with weights of their own are of one kind, those that weigh 0 of none.
    """
    if weighed is not None and weighed.reweight == "tokens":
        return [
            np.where(np.asarray(b.weights).ravel() > 0, 0, -1).astype(np.int32)
            for b in batches
        ]
    if weighed is None:
        return [np.zeros(rows, np.int32) for _ in batches]
    kinds = []
    for batch in batches:
        kind = np.full(rows, -1, np.int32)
        for i, mask in enumerate(batch.masks.values()):
            kind[np.asarray(mask).ravel()] = i
        kinds.append(kind)
    return kinds


def _shares(picks: Picks, group, weigh, block, batch) -> jax.Array:
    index, share = picks
    if weigh is None:
        return jnp.asarray(share)
    weights = weigh(group, block, batch)[0]
    return weights.reshape(-1)[index] * share
