"""MBQ and the methods it is compared with, all of one signature.

Each takes a program, its parameters and calibration batches, and returns parameters
whose linears are `QTensor`. They differ in one thing: how the balance scales that are
folded in before rounding are found.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import base, program, quantize, tree
from jeff.mbq import scales
from jeff.mbq.calibration import Batch, check_batches
from jeff.mbq.config import BalanceConfig
from jeff.mbq.groups import Group, GroupSpec, infer_groups
from jeff.mbq.running_mean import RunningMean
from jeff.mbq.search import StackSearch, candidate_scales
from jeff.mbq.sensitivity import sensitivity
from jeff.mbq.smoothquant_scale import smoothquant_scale
from jeff.mbq.token_weights import floored, token_weights
from jeff.program.blocks import Stack

__all__ = ["GroupReport", "Quantized", "Report", "awq", "mbq", "rtn", "smoothquant"]

Loss = Callable[[Any, Any], jax.Array]
Where = Callable[[program.Site], bool]


class GroupReport(NamedTuple):
    """What was decided for one group of one block.

    Attributes:
      block: Number of the block.
      sites: The linears, by their names in that block.
      inspect: The site whose output was compared.
      fold: Leaves the scale was folded into; empty if it was not.
      exponent: The exponent chosen, NaN where none was searched.
      ratios: Weight of each modality's tokens in the loss.
      losses: ``[grid]``, loss of every candidate; empty if not searched.
      scale: ``[K]``, the scale that was folded in.
      change: Relative change of the block's output by the fold.
      note: Why there is no fold, if there is none.
    """

    block: int
    sites: tuple[str, ...]
    inspect: str
    fold: tuple[str, ...]
    exponent: float
    ratios: Mapping[str, float]
    losses: np.ndarray
    scale: np.ndarray
    change: float
    note: str


class Report(NamedTuple):
    """What a method did.

    Attributes:
      groups: One entry per group and block.
      sensitivities: Per inspected site and modality, ``[blocks]``; empty unless the
        method weighs modalities.
      notes: Lines a user should read.
      dense_bytes: Bytes of the quantized weights at 16 bits each.
      stored_bytes: Bytes they really take now.
    """

    groups: tuple[GroupReport, ...]
    sensitivities: Mapping[str, Mapping[str, np.ndarray]]
    notes: tuple[str, ...]
    dense_bytes: int
    stored_bytes: int


class Quantized(NamedTuple):
    """Quantized parameters and how to run them.

    Attributes:
      params: The params tree with `QTensor` leaves.
      rules: Rules for `jeff.rewrite` (activation quantization; else empty).
      report: What was done.
    """

    params: Any
    rules: tuple[base.Rule, ...]
    report: Report


def rtn(
    apply: Callable[..., Any],
    params: Any,
    batches: Sequence[Batch],
    config: BalanceConfig,
    *,
    loss: Loss | None = None,
    where: Where | None = None,
    groups: Sequence[GroupSpec] | None = None,
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

    Returns:
      The quantized parameters.

    Raises:
      ValueError: If the group size does not divide a layer's input size (the layer is
        named), or there is nothing to quantize.

    Examples:
      >>> import jax.numpy as jnp
      >>> apply = lambda p, x: x @ p["w"]
      >>> config = BalanceConfig(weights=quantize.QuantConfig(bits=8, group_size=32))
      >>> q = rtn(apply, {"w": jnp.eye(32)}, [Batch((jnp.ones((1, 32)),))], config)
      >>> type(q.params["w"]).__name__
      'QTensor'
    """
    del loss, groups
    job = _Job.start(apply, params, batches, config, where, None)
    return job.finish((), {})


def smoothquant(
    apply: Callable[..., Any],
    params: Any,
    batches: Sequence[Batch],
    config: BalanceConfig,
    *,
    loss: Loss | None = None,
    where: Where | None = None,
    groups: Sequence[GroupSpec] | None = None,
) -> Quantized:
    """SmoothQuant: scales from the largest activations and weights, no search.

    Only groups whose input comes from a norm are scaled, as in the original.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Full-precision parameters.
      batches: Calibration data.
      config: Settings; `BalanceConfig.smoothing` is the exponent.
      loss: Not used; every method takes it.
      where: Which sites to quantize; the products of the repeated blocks if ``None``.
      groups: Balance groups; inferred if ``None``.

    Returns:
      The quantized parameters.

    Raises:
      ValueError: As `mbq`.

    References:
      SmoothQuant, arXiv 2211.10438, equation 4.
    """
    del loss
    job = _Job.start(apply, params, batches, config, where, groups)

    def choose(search: StackSearch, group: int, block, weights, features):
        chosen = search.groups[group]
        if not chosen.elementwise:
            return None, "its input does not come from a norm"
        peak = functools.reduce(jnp.maximum, (f.peak for f, _ in features()))
        largest = _largest_weights(weights, chosen)
        scale = smoothquant_scale(
            _shared_max(peak, chosen.share), _shared_max(largest, chosen.share),
            config.smoothing,
        )
        return _Choice(scale, config.smoothing, np.zeros(0), {}), ""

    return job.balance(choose, {})


def awq(
    apply: Callable[..., Any],
    params: Any,
    batches: Sequence[Batch],
    config: BalanceConfig,
    *,
    loss: Loss | None = None,
    where: Where | None = None,
    groups: Sequence[GroupSpec] | None = None,
) -> Quantized:
    """AWQ's scale search: plain mean squared error over all tokens.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Full-precision parameters.
      batches: Calibration data.
      config: Settings; `BalanceConfig.loss` and `BalanceConfig.reweight` do not apply.
      loss: Not used; every method takes it.
      where: Which sites to quantize; the products of the repeated blocks if ``None``.
      groups: Balance groups; inferred if ``None``.

    Returns:
      The quantized parameters.

    Raises:
      ValueError: As `mbq`.

    References:
      AWQ, arXiv 2306.00978, section 3.2. Its clip search is not part of this version.
    """
    del loss
    job = _Job.start(apply, params, batches, config, where, groups)
    return job.balance(job.searcher("mse", lambda group, block, batch: (None, {})), {})


def mbq(
    apply: Callable[..., Any],
    params: Any,
    batches: Sequence[Batch],
    config: BalanceConfig,
    *,
    loss: Loss | None = None,
    where: Where | None = None,
    groups: Sequence[GroupSpec] | None = None,
) -> Quantized:
    """Modality-balanced quantization.

    The same search as AWQ, but every token's error weighs what the loss's gradient
    says about its modality (`sensitivity`, `token_weights`).

    Args:
      apply: ``apply(params, *inputs)``.
      params: Full-precision parameters; leaves of the quantized sites must be dense.
      batches: Calibration data with `Batch.masks`.
      config: Settings.
      loss: ``loss(outputs, targets)``: the sum over a batch's samples of each
        sample's mean loss. Needed unless `BalanceConfig.reweight` takes no gradient.
      where: Which sites to quantize; the products of the repeated blocks if ``None``.
      groups: Balance groups named by hand; inferred from the program if ``None``.

    Returns:
      The quantized parameters, the rules to run them with, and a report.

    Raises:
      ValueError: If calibration data holds NaN (the batch is named), masks do not fit
        the tokens, the group size does not divide a layer's input size (the layer is
        named), or there is nothing to quantize.
      TypeError: If `loss` is missing.

    Note:
      The grid's exponents are those of the program, 0 to 0.95; groups with
      grouped-query attention share scales per key/value channel, which the original
      skips.

    References:
      arXiv 2412.19509, section 3.2, equations 8 to 13.
    """
    job = _Job.start(apply, params, batches, config, where, groups)
    gradients = config.reweight in ("ratio", "ratio_floor")
    if gradients and loss is None:
        raise TypeError(f"loss is needed for reweight={config.reweight!r}")
    seen: dict[str, dict[str, np.ndarray]] = {}
    if gradients:
        assert loss is not None
        seen = job.sensitivities(loss)
    weigh = job.weigher(seen)
    return job.balance(job.searcher(config.loss, weigh), seen)


class _Choice(NamedTuple):
    scale: jax.Array
    exponent: float
    losses: np.ndarray
    ratios: dict[str, float]


@dataclasses.dataclass(eq=False)
class _Job:
    """One call of a method: the checked arguments and the stacks found."""

    apply: Callable[..., Any]
    params: Any
    batches: tuple[Batch, ...]
    config: BalanceConfig
    where: Where
    stacks: tuple[Stack, ...]
    groups: dict[int, tuple[Group, ...]]
    notes: list[str]

    @classmethod
    def start(cls, apply, params, batches, config, where, specs) -> "_Job":
        """Checks the arguments before any heavy work."""
        batches = check_batches(batches)
        inputs = batches[0].inputs
        stacks = program.blocks(apply, params, *inputs)
        if not stacks:
            stacks = (program.whole(apply, params, *inputs),)
        chosen = where or (lambda site: True)
        job = cls(apply, params, batches, config, chosen, stacks, {}, [])
        if not job.leaves():
            raise ValueError("there is no site to quantize in the repeated blocks")
        for name, part in job.leaves().items():
            job.check_leaf(name, part)
        for i, stack in enumerate(stacks):
            own = [s for s in specs or () if s.sites[0] in stack.sites]
            job.groups[i] = infer_groups(stack, job.quantizes, own or None)
        return job

    def quantizes(self, site: program.Site) -> bool:
        """Whether a site is one of those to quantize."""
        return site.kind == "dot" and len(site.parts) == 1 and self.where(site)

    def leaves(self) -> dict[str, program.Part]:
        """The leaves to quantize, and how they are contracted."""
        found = {}
        for stack in self.stacks:
            sites = stack.piece.found.sites
            for block in range(stack.count):
                for name in stack.names[block].values():
                    site = sites.named(name)
                    if self.quantizes(site):
                        found[site.leaf] = site.parts[0]
        return found

    def check_leaf(self, name: str, part: program.Part) -> None:
        """One clear error for a leaf that cannot be quantized."""
        leaf = tree.get(self.params, name)
        if base.is_stored(leaf):
            raise ValueError(f"layer {name!r} is stored already; start from dense")
        try:
            jax.eval_shape(
                lambda w: quantize.quantize(
                    w, self.config.weights, contract_axes=part.contract_axes,
                    stack_axes=part.stack_axes), jax.ShapeDtypeStruct(
                        leaf.shape, leaf.dtype))
        except ValueError as error:
            raise ValueError(f"layer {name!r}: {error}") from None

    def sensitivities(self, loss: Loss) -> dict[str, dict[str, np.ndarray]]:
        """Per inspected template site and modality, one number per block."""
        wanted = {
            stack.names[b][g.inspect]
            for i, stack in enumerate(self.stacks)
            for g in self.groups[i] if g.sources is not None
            for b in range(stack.count)
        }
        got = sensitivity(self.apply, self.params, self.batches, loss, sites=wanted)
        table: dict[str, dict[str, np.ndarray]] = {}
        for i, stack in enumerate(self.stacks):
            for group in self.groups[i]:
                if group.sources is None:
                    continue
                rows = [
                    _at_block(got[stack.names[b][group.inspect]], stack.iterations[b])
                    for b in range(stack.count)
                ]
                table[group.inspect] = {
                    m: np.array([row[m] for row in rows]) for m in rows[0]
                }
        return table

    def weigher(self, seen):
        """``weigh(group, block, batch) -> token weights or None``."""
        config = self.config
        ratios: dict[str, dict[str, np.ndarray]] = {}
        for site, by_modality in seen.items():
            if config.reference not in by_modality:
                raise ValueError(
                    f"reference must be one of {sorted(by_modality)}, "
                    f"got {config.reference!r}"
                )
            ratios[site] = {}
            for m, g in by_modality.items():
                ratio = g / by_modality[config.reference]
                if config.reweight == "ratio_floor":
                    ratio = np.asarray(floored(ratio))
                ratios[site][m] = ratio
        counts = {
            m: float(sum(np.sum(np.asarray(b.masks[m])) for b in self.batches))
            for m in self.batches[0].masks
        }
        average = "modalities" if config.loss == "mse" else "tokens"

        def weigh(group: Group, block: int, batch: Batch):
            if config.reweight == "none":
                return None, {}
            if config.reweight in ("uniform", "answer"):
                return token_weights(
                    batch.masks, mode=config.reweight, reference=config.reference,
                    average=average, counts=counts), {}
            row = {m: float(r[block]) for m, r in ratios[group.inspect].items()}
            return token_weights(
                batch.masks, row, mode="ratio", reference=config.reference,
                average=average, counts=counts), row

        return weigh

    def searcher(self, loss: str, weigh):
        """The grid search as a chooser of scales."""
        config = self.config

        def choose(search: StackSearch, group: int, block, weights, features):
            chosen = search.groups[group]
            magnitude = functools.reduce(
                RunningMean.merge, (f.magnitude for f, _ in features()))
            candidates = candidate_scales(
                magnitude, jnp.asarray(chosen.share), grid=config.grid,
                share=config.share)
            total, row = None, {}
            for feature, batch in features():
                tokens, row = weigh(chosen, block, batch)
                if tokens is None:
                    tokens = np.ones(feature.y.shape[:-1], np.float32)
                got = search.losses(
                    weights, feature, candidates,
                    _fit_tokens(tokens, feature.y.shape, chosen), group=group,
                    config=config.weights, activation_bits=config.activation_bits,
                )[loss]
                total = got if total is None else total.merge(got)
            assert total is not None
            losses = np.asarray(total.value)
            index = int(scales.best_candidate(losses))
            return _Choice(candidates[index], index / config.grid, losses, row), ""

        return choose

    def balance(self, choose, seen) -> Quantized:
        """Finds and folds the scales of every block, then quantizes."""
        reports: list[GroupReport] = []
        params = self.params
        for i, stack in enumerate(self.stacks):
            search = StackSearch.of(stack, self.groups[i])
            for block in range(stack.count):
                reports += [
                    _left_out(g, block, stack, g.note)
                    for g in self.groups[i] if g.sources is None
                ]
            blocks = self._balance_stack(search, choose, reports)
            params = _write_back(params, stack, blocks)
        return dataclasses.replace(self, params=params).finish(tuple(reports), seen)

    def _balance_stack(self, search: StackSearch, choose, reports):
        stack = search.stack
        entered = [stack.enter(self.params, *b.inputs) for b in self.batches]
        states = [state for state, _ in entered]
        changed = []
        for block in range(stack.count):
            weights = _dense_weights(stack.weights(self.params, block))
            sides = [stack.side(side, block) for _, side in entered]
            folded = dict(weights)
            streams = _Stream(search, weights, states, sides, self.batches)
            for group, described in enumerate(search.groups):
                choice, note = choose(
                    search, group, block, weights, streams.of(group))
                if choice is None:
                    reports.append(_left_out(described, block, stack, note))
                    continue
                trial, change = search.fold(
                    weights, folded, choice.scale, states[0], sides[0], group=group)
                report = _reported(described, block, stack, choice, float(change))
                if not report.change <= self.config.fold_tolerance:
                    report = report._replace(
                        fold=(), note=f"folding changes the block by {report.change:.1e}")
                else:
                    folded = trial
                reports.append(report)
            states = [
                search.run(weights, s, d) for s, d in zip(states, sides, strict=True)
            ]
            changed.append(folded)
        return changed

    def finish(self, reports, seen) -> Quantized:
        """Rounds the leaves and puts the result together."""
        leaves = self.leaves()
        notes = list(self.notes)
        for r in reports:
            if r.note:
                notes.append(f"block {r.block}, {', '.join(r.sites)}: {r.note}")
        stored = {}
        for name, part in leaves.items():
            w = tree.get(self.params, name)
            stored[name], one_sided = _quantize(
                w, config=self.config.weights, contract_axes=part.contract_axes,
                stack_axes=part.stack_axes)
            if count := int(one_sided):
                notes.append(
                    f"{name}: {count} groups do not straddle zero and are clipped by "
                    'zero_point="int"; try "int_incl_zero"')
        rules: tuple[base.Rule, ...] = ()
        if self.config.activation_bits is not None:
            rules = (quantized_activations(self.config.activation_bits),)
        report = Report(
            tuple(reports), seen, tuple(dict.fromkeys(notes)),
            2 * sum(q.size for q in stored.values()),
            sum(q.nbytes for q in stored.values()),
        )
        return Quantized(tree.update(self.params, stored), rules, report)


@functools.partial(
    jax.jit, static_argnames=("config", "contract_axes", "stack_axes")
)
def _quantize(w, *, config, contract_axes, stack_axes):
    """The stored weight, and how many groups the quantizer must clip."""
    axes = {"contract_axes": contract_axes, "stack_axes": stack_axes}
    one_sided = quantize.one_sided_groups(w, config, **axes)
    return quantize.quantize(w, config, **axes), one_sided.sum()


class _Stream:
    """Features of the batches at one block; kept only if there is one batch.

    With more batches they are computed again for every pass, so that the size of the
    calibration set does not set the memory.
    """

    def __init__(self, search, weights, states, sides, batches):
        self._search, self._weights = search, weights
        self._inputs = list(zip(states, sides, batches, strict=True))
        self._kept = None

    def of(self, group: int):
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


def quantized_activations(bits: int) -> base.Rule:
    """A rule that rounds the input of every site whose weight is a `QTensor`.

    Args:
      bits: Width of the symmetric codes, one scale per token, found at run time.

    Returns:
      The rule.
    """

    def rule(site, op, x, w):
        if isinstance(w, quantize.QTensor) and site.kind == "dot":
            x = quantize.fake_quant_activations(x, bits=bits)
        return op(x, w)

    return rule


def _fit_tokens(tokens: jax.Array, shape, group: Group) -> jax.Array:
    rows = 1
    for n in shape[:-1]:
        rows *= n
    if tokens.size != rows:
        raise ValueError(
            f"masks have shape {tokens.shape}, but the output of site "
            f"{group.inspect!r} has shape {tuple(shape)}"
        )
    return tokens.reshape(shape[:-1])


def _at_block(row: Mapping[str, jax.Array], iteration: int | None) -> dict[str, float]:
    return {
        m: float(v if iteration is None else v[iteration]) for m, v in row.items()
    }


def _dense_weights(weights: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {n: base.decoded(w) for n, w in weights.items()}


def _largest_weights(weights, group: Group) -> jax.Array:
    """``[K]``: largest absolute weight of each input channel over the group."""
    k = group.share.size
    peak = jnp.zeros(k, jnp.float32)
    for name, channel_map in group.targets.items():
        w = jnp.abs(weights[name].astype(jnp.float32))
        index = np.broadcast_to(channel_map.index, w.shape).ravel()
        peak = peak.at[index].max(w.ravel())
    return peak


def _shared_max(values: jax.Array, share: np.ndarray) -> jax.Array:
    """Every channel's class maximum."""
    best = jnp.zeros_like(values).at[share].max(values)
    return best[share]


def _left_out(group: Group, block, stack, note) -> GroupReport:
    return GroupReport(
        block, _own_names(group, block, stack), stack.names[block][group.inspect], (),
        float("nan"), {}, np.zeros(0), np.ones(group.share.size), 0.0, note)


def _reported(group: Group, block, stack, choice: _Choice, change) -> GroupReport:
    return GroupReport(
        block, _own_names(group, block, stack), stack.names[block][group.inspect],
        tuple(stack.leaves[block][n].name for n in group.fold), choice.exponent,
        choice.ratios, choice.losses, np.asarray(choice.scale), change, "")


def _own_names(group: Group, block: int, stack: Stack) -> tuple[str, ...]:
    return tuple(stack.names[block][n] for n in group.sites)


def _write_back(params: Any, stack: Stack, blocks: Sequence[Mapping[str, Any]]) -> Any:
    """The params tree with the blocks' weights replaced."""
    leaves, _ = tree.flatten(params)
    stacked: dict[tuple[str, int], dict[int, Any]] = {}
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
        changes[name] = jnp.stack([slices[i] for i in sorted(slices)], axis)
    return tree.update(params, changes)
