"""One call of a method: checked arguments, what is quantized, and the rounding."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff import base, program, quantize, tree
from jeff.mbq.activations import quantized_activations
from jeff.mbq.calibration import Batch, check_batches, check_program
from jeff.mbq.config import BalanceConfig
from jeff.mbq.group_spec import GroupSpec
from jeff.mbq.groups import Group, infer_groups
from jeff.mbq.masks import is_traced
from jeff.mbq.report import GroupReport, Quantized, Report
from jeff.mbq.rounding import Rounded, round_leaf
from jeff.mbq.weighing import Sensitivities
from jeff.program.blocks import Stack

__all__ = ["Job", "Where", "start"]

Where = Callable[[program.Site], bool]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """The checked arguments of a method, and what was found in the program.

    Attributes:
      apply: ``apply(params, *inputs)``.
      params: Parameters, dense where they are to be quantized.
      batches: Calibration data.
      config: Settings.
      stacks: Each stack of blocks with its groups; the whole program as one block if
        nothing is repeated.
      leaves: The leaves to quantize, and how they are contracted.
      notes: Lines for the report: what stays dense.
    """

    apply: Callable[..., Any]
    params: Any
    batches: tuple[Batch, ...]
    config: BalanceConfig
    stacks: tuple[tuple[Stack, tuple[Group, ...]], ...]
    leaves: dict[str, program.Part]
    notes: tuple[str, ...]

    @property
    def scaled(self) -> list[tuple[Stack, list[Group]]]:
        """Each stack with those of its groups that can be scaled."""
        return [
            (stack, [g for g in groups if g.sources is not None])
            for stack, groups in self.stacks
        ]

    def finish(
        self,
        folded: Mapping[str, jax.Array] | None = None,
        rounded: Mapping[str, Rounded] | None = None,
        reports: Sequence[GroupReport] = (),
        seen: Sensitivities | None = None,
        notes: Sequence[str] = (),
    ) -> Quantized:
        """Rounds the leaves that are not rounded yet and puts the result together.

        Args:
          folded: Dense leaves that scales were folded into, by name.
          rounded: Leaves that were rounded as soon as their scales were known.
          reports: What was decided for each group.
          seen: Modality sensitivities, if any.
          notes: Further lines for the report.

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
        rules: tuple[base.Rule, ...] = ()
        if self.config.activation_bits is not None:
            rules = (quantized_activations(self.config.activation_bits),)
        report = Report(
            groups=tuple(reports),
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
) -> Job:
    """Checks the arguments of a method before any heavy work.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Parameters.
      batches: Calibration data.
      config: Settings.
      where: Which sites to quantize; the products of the blocks if ``None``.
      specs: Groups named by hand, then the only ones; inferred if ``None``.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: As `jeff.mbq.mbq`.
    """
    if not isinstance(config, BalanceConfig):
        raise TypeError(f"config must be a BalanceConfig, got {type(config).__name__}")
    if where is not None and not callable(where):
        raise TypeError(f"where must be a function of a site, got {where!r}")
    batches = check_batches(batches)
    inputs = batches[0].inputs
    check_program(apply, params, inputs)
    stacks = program.blocks(apply, params, *inputs)
    stacks = stacks or (program.whole(apply, params, *inputs),)
    wanted = where or (lambda site: True)

    def quantizes(site):
        return site.kind == "dot" and len(site.parts) == 1 and wanted(site)

    leaves = _leaves(stacks, quantizes)
    notes = _left_dense(stacks, wanted)
    if where is not None:
        notes += _outside(stacks, quantizes)
    if not leaves:  # weights that every iteration of a loop shares, as in an LSTM
        leaves = _shared_leaves(apply, params, inputs, quantizes)
        notes = tuple(f"{n}: shared by a loop's iterations, not scaled" for n in leaves)
        stacks = ()
    if not leaves:
        raise ValueError(
            "there is no product to quantize in the program"
            + (" that where accepts" if where else "")
        )
    for name, part in leaves.items():
        _check_leaf(params, name, part, config)
    grouped = _with_groups(stacks, quantizes, specs)
    return Job(
        apply=apply,
        params=params,
        batches=batches,
        config=config,
        stacks=tuple((s, _foldable(params, s, groups)) for s, groups in grouped),
        leaves=leaves,
        notes=notes,
    )


def _with_groups(stacks, quantizes, specs):
    """Each stack with its groups; every spec must belong to one."""
    if specs is None:
        return tuple((s, infer_groups(s, quantizes)) for s in stacks)
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
    return tuple(
        (s, infer_groups(s, quantizes, [p for p in specs if p.sites[0] in s.sites]))
        for s in stacks
    )


def _foldable(params, stack, groups) -> tuple[Group, ...]:
    """The groups; one that would be folded into a stored weight is left unscaled."""
    leaves, _ = tree.flatten(params)
    checked = []
    for group in groups:
        owners = [refs[n].name for refs in stack.leaves for n in group.fold]
        stored = sorted({n for n in owners if base.is_stored(leaves[n])})
        if stored:
            note = f"{', '.join(stored)} is stored already, so nothing folds into it"
            group = dataclasses.replace(group, sources=None, note=note)
        checked.append(group)
    return tuple(checked)


def _leaves(stacks, quantizes) -> dict[str, program.Part]:
    """The leaves to quantize, in all blocks."""
    return {site.leaf: site.parts[0] for site in _all_sites(stacks) if quantizes(site)}


def _shared_leaves(apply, params, inputs, quantizes) -> dict[str, program.Part]:
    """The leaves of all products of the program, wherever they are."""
    sites = program.sites(apply, params, *inputs)
    return {s.leaf: s.parts[0] for s in sites if quantizes(s)}


def _outside(stacks, quantizes) -> tuple[str, ...]:
    """A line per site that was asked for and lies outside of the repeated blocks."""
    inside = {s.name for s in _all_sites(stacks)}
    inside |= {s.name for stack in stacks for s in _nested_sites(stack)}
    return tuple(
        f"{site.name} stays dense: it is in no repeated block"
        for site in stacks[0].piece.found.sites
        if site.name not in inside and quantizes(site)
    )


def _all_sites(stacks):
    for stack in stacks:
        known = stack.piece.found.sites
        for names in stack.names:
            for name in names.values():
                yield known.named(name)


def _left_dense(stacks, wanted) -> tuple[str, ...]:
    """A line per weight of a block that cannot be quantized, and why."""
    notes = []
    for site in _all_sites(stacks):
        why = ""
        if site.kind != "dot":
            why = f"it is used by a {site.kind}"
        elif not site.parts:
            why = f"the weight is computed from {', '.join(site.leaves)}"
        elif len(site.parts) > 1:
            why = f"the weight is {len(site.parts)} leaves side by side"
        if why and wanted(site):
            notes.append(f"{site.name} stays dense: {why}")
    for stack in stacks:
        for site in _nested_sites(stack):
            if wanted(site):
                notes.append(f"{site.name} stays dense: it is in a loop of the block")
    return tuple(dict.fromkeys(notes))


def _nested_sites(stack: Stack) -> list[program.Site]:
    """Sites in loops and branches of the template block."""
    found = stack.piece.found
    loops = [s.path for s in stack.piece.steps if s.path in found.inside]
    return [s for s in found.sites if any(s.path[: len(p)] == p for p in loops)]


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
