"""One call of a method: checked arguments, what is quantized, and the rounding."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff import base, program, quantize, tree
from jeff.mbq.blocks.leaves import Where, leaves_of, left_dense, outside, shared_leaves
from jeff.mbq.blocks.plan import BlockPlan, plan_blocks
from jeff.mbq.calibration.batches import Batch, check_batches, check_program
from jeff.mbq.calibration.masks import is_traced
from jeff.mbq.config import BalanceConfig
from jeff.mbq.groups.infer import Group
from jeff.mbq.groups.spec import GroupSpec
from jeff.mbq.report import (
    ClipReport,
    GroupReport,
    Quantized,
    Report,
    Sensitivities,
)
from jeff.mbq.rounding.activations import quantized_activations
from jeff.mbq.rounding.entries import Rounded, round_leaf
from jeff.program.blocks import Stack

__all__ = ["Job", "Where", "start"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """The checked arguments of a method, and what was found in the program.

    Attributes:
      apply: ``apply(params, *inputs)``.
      params: Parameters, dense where they are to be quantized.
      batches: Calibration data.
      config: Settings.
      stacks: Each stack of blocks with the plan of every block, ``None`` where nothing
        is quantized; the whole program as one block if nothing is repeated.
      leaves: The leaves to quantize, and how they are contracted.
      notes: Lines for the report: what stays dense.
    """

    apply: Callable[..., Any]
    params: Any
    batches: Sequence[Batch]
    config: BalanceConfig
    stacks: tuple[tuple[Stack, tuple[BlockPlan | None, ...]], ...]
    leaves: dict[str, program.Part]
    notes: tuple[str, ...]

    @property
    def plans(self) -> list[BlockPlan]:
        """The distinct plans, in program order."""
        plans = (p for _, row in self.stacks for p in row if p is not None)
        return list({id(p): p for p in plans}.values())

    @property
    def scaled(self) -> list[tuple[Stack, list[Group]]]:
        """Each stack with those of its groups that can be scaled."""
        return [(plan.stack, plan.scaled) for plan in self.plans]

    @property
    def inputs(self) -> list[tuple[Stack, list[Group]]]:
        """Each stack with all of its sites by the input they share."""
        return [(plan.stack, list(plan.inputs)) for plan in self.plans]

    @functools.cached_property
    def shared(self) -> frozenset[tuple[str, int | None]]:
        """Leaves (and entries of stacked ones) that serve several blocks."""
        uses = collections.Counter(
            (ref.name, ref.index)
            for stack, _ in self.stacks
            for refs in stack.leaves
            for ref in refs.values()
        )
        return frozenset(ref for ref, count in uses.items() if count > 1)

    def finish(
        self,
        folded: Mapping[str, jax.Array] | None = None,
        rounded: Mapping[str, Rounded] | None = None,
        reports: Sequence[GroupReport] = (),
        seen: Sensitivities | None = None,
        notes: Sequence[str] = (),
        clips: Sequence[ClipReport] = (),
    ) -> Quantized:
        """Rounds the leaves that are not rounded yet and puts the result together.

        Args:
          folded: Dense leaves that scales were folded into, by name.
          rounded: Leaves that were rounded as soon as their scales were known.
          reports: What was decided for each group.
          seen: Modality sensitivities, if any.
          notes: Further lines for the report.
          clips: What was decided for each clipped weight.

        Returns:
          What a method returns.

        Raises:
          ValueError: If a scale overflows its dtype; the leaf is named.
        """
        notes = [*self.notes, *notes]
        for r in reports:
            if r.note:
                notes.append(f"block {r.block}, {', '.join(r.sites)}: {r.note}")
        stored = {}
        rounded = rounded or {}
        for name, part in self.leaves.items():
            done = rounded.get(name)
            if done is None:
                leaf = tree.get(self.params, name)
                done = round_leaf(leaf, part, self.config.weights)
            stored[name] = done.weight
            if done.clipped:
                notes.append(
                    f"{name}: {done.clipped} groups do not straddle zero and are "
                    'clipped by zero_point="int"; try "int_incl_zero"'
                )
            if self.config.activation_bits is not None and _is_torn(done.weight):
                size = done.weight.shape[done.weight.contract[-1]]
                notes.append(
                    f"{name}: its product takes the activations as they are: its last "
                    f"contracted axis, of {size}, is no multiple of 32 and cannot be "
                    "merged with the others while packed"
                )
        rules: tuple[base.Rule, ...] = ()
        if self.config.activation_bits is not None:
            rules = (quantized_activations(self.config.activation_bits),)
        report = Report(
            groups=tuple(reports),
            clips=tuple(clips),
            sensitivities=seen or {},
            notes=tuple(dict.fromkeys(notes)),
            dense_bytes=2 * sum(q.size for q in stored.values()),
            stored_bytes=sum(q.nbytes for q in stored.values()),
        )
        changes = {**(folded or {}), **stored}
        return Quantized(tree.update(self.params, changes), rules, report)


def start(
    apply: Callable[..., Any],
    params: Any,
    batches: Sequence[Batch],
    config: BalanceConfig,
    where: Where | None,
    specs: Sequence[GroupSpec] | None,
    clip_where: Where | None = None,
) -> Job:
    """Checks the arguments of a method before any heavy work.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Parameters.
      batches: Calibration data.
      config: Settings.
      where: Which sites to quantize; the products of the blocks if ``None``.
      specs: Groups named by hand, then the only ones; inferred if ``None``.
      clip_where: Which of the sites to clip; if ``None``, those that do not feed
        attention scores.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: As `jeff.mbq.mbq`.
    """
    if not isinstance(config, BalanceConfig):
        raise TypeError(f"config must be a BalanceConfig, got {type(config).__name__}")
    for name, choice in (("where", where), ("clip_where", clip_where)):
        if choice is not None and not callable(choice):
            raise TypeError(f"{name} must be a function of a site, got {choice!r}")
    if clip_where is not None and not config.clip:
        raise ValueError("clip_where has no effect without config.clip=True")
    batches = check_batches(batches)
    inputs = batches[0].inputs
    check_program(apply, params, inputs)
    stacks = program.blocks(apply, params, *inputs)
    stacks = stacks or (program.whole(apply, params, *inputs),)
    wanted = where or (lambda site: True)

    def quantizes(site):
        return site.kind == "dot" and len(site.parts) == 1 and wanted(site)

    leaves = leaves_of(stacks, quantizes)
    notes = left_dense(stacks, wanted)
    if where is not None:
        notes += outside(stacks, quantizes)
    if not leaves:  # weights that every iteration of a loop shares, as in an LSTM
        leaves = shared_leaves(apply, params, inputs, quantizes)
        notes = _shared_notes(leaves, config)
        stacks = ()
    if not leaves:
        raise ValueError(
            "there is no product to quantize in the program"
            + (" that where accepts" if where else "")
        )
    for name, part in leaves.items():
        _check_leaf(params, name, part, config)
    clips = clip_where if config.clip else _nothing
    specs = _check_specs(stacks, specs)
    plans = plan_blocks(stacks, params, quantizes, clips, specs)
    if stacks and clip_where is not None:
        if not any(p.clipped for row in plans for p in row if p is not None):
            raise ValueError("clip_where accepts no site that is quantized")
    return Job(
        apply=apply,
        params=params,
        batches=batches,
        config=config,
        stacks=tuple(zip(stacks, plans, strict=True)),
        leaves=leaves,
        notes=notes,
    )


def _shared_notes(leaves: Iterable[str], config: BalanceConfig) -> tuple[str, ...]:
    """What is not done to weights that every iteration of a loop shares."""
    left = "not scaled or clipped" if config.clip else "not scaled"
    notes = [f"{n}: shared by a loop's iterations, {left}" for n in leaves]
    if config.distort:
        notes.append("distort has no effect: no weight is in a block")
    return tuple(notes)


def _nothing(site: program.Site) -> bool:
    """The choice of no site."""
    del site
    return False


def _is_torn(w: quantize.QTensor) -> bool:
    """Whether a product must decode a weight before rules see it as a matrix."""
    return w.pad > 0 and sum(w.shape[a] > 1 for a in w.contract) > 1


def _check_specs(stacks, specs) -> tuple[GroupSpec, ...] | None:
    """The groups named by hand; every one must belong to a stack."""
    if specs is None:
        return None
    if isinstance(specs, GroupSpec) or not isinstance(specs, Iterable):
        raise TypeError(f"groups must be a sequence of GroupSpec, got {specs!r}")
    specs = tuple(specs)
    for i, spec in enumerate(specs):
        if not isinstance(spec, GroupSpec):
            raise TypeError(f"groups[{i}] must be a GroupSpec, got {spec!r}")
        if not any(spec.sites[0] in stack.sites for stack in stacks):
            known = ", ".join(n for stack in stacks for n in stack.sites)
            raise ValueError(
                f"groups[{i}] names no site of the first block: {spec.sites[0]!r}; "
                f"it has {known}"
            )
    return specs


def _check_leaf(params, name, part, config) -> None:
    """One clear error for a leaf that cannot be quantized."""
    leaf = tree.get(params, name)
    if base.is_stored(leaf):
        raise ValueError(
            f"params: layer {name!r} is a {type(leaf).__name__} already; start from "
            "dense weights"
        )
    if not is_traced(leaf) and not jnp.isfinite(leaf).all():
        raise ValueError(f"params: layer {name!r} holds NaN or infinity")
    quantizer = functools.partial(
        quantize.quantize,
        config=config.weights,
        contract_axes=part.contract_axes,
        stack_axes=part.stack_axes,
    )
    try:
        jax.eval_shape(quantizer, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    except ValueError as error:
        raise ValueError(f"layer {name!r}: {error}") from None
