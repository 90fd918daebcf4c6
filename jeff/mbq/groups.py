"""Balance groups: which linears are scaled together, judged where, folded into what.

All of it is read off the program: sites that share an input are scaled together, the
inspected region ends at the first site that depends on all of them, and the scale is
folded into whatever produces the input channel by channel.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jeff import program
from jeff.program import channels, piece, walk
from jeff.program.blocks import Stack

__all__ = ["Group", "GroupSpec", "infer_groups"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupSpec:
    """A group named by hand, where the inference is not wanted.

    Attributes:
      sites: Names of the sites that share an input (as in the first block).
      inspect: Site whose output the candidates are judged by; inferred if ``None``.
      fold: Leaves to divide by the scale; inferred if ``None``, no folding (and so no
        scaling) if empty.

    Examples:
      >>> GroupSpec(sites=("gate", "up"), inspect="down").fold is None
      True
    """

    sites: tuple[str, ...]
    inspect: str | None = None
    fold: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Linears of a block that are scaled together.

    Attributes:
      sites: Their names in the template block.
      inspect: Site at whose output candidates are judged.
      region: The sub-program from the shared input to that output.
      targets: Per entry weight, the channel of each element along the input axis.
      sources: Per entry weight, the channels whose scale divides it; ``None`` if no
        parameter produces the input channel by channel.
      share: int ``[K]``, channels of one class must have one scale.
      elementwise: Whether the sources are norms (used at no site themselves).
      note: Why there is no fold, if there is none.
    """

    sites: tuple[str, ...]
    inspect: str
    region: piece.Piece
    targets: Mapping[str, channels.ChannelMap]
    sources: Mapping[str, channels.ChannelMap] | None
    share: np.ndarray
    elementwise: bool
    note: str = ""

    @property
    def fold(self) -> tuple[str, ...]:
        """Names of the leaves the scale is folded into."""
        return tuple(self.sources or ())


def infer_groups(
    stack: Stack,
    where: Callable[[program.Site], bool],
    specs: Sequence[GroupSpec] | None = None,
) -> tuple[Group, ...]:
    """The balance groups of a block, in program order.

    Args:
      stack: The block (see `jeff.blocks`).
      where: Which sites may be scaled.
      specs: Groups named by hand; inferred from the program if ``None``.

    Returns:
      The groups; one without `Group.sources` cannot be scaled, and says why.

    Raises:
      ValueError: If a named site or leaf does not exist, or named sites do not share
        an input.
    """
    found = stack.piece.found
    listed = [found.sites.named(n) for n in stack.sites]
    sites = [s for s in listed if s.kind == "dot" and s.parts and where(s)]
    if specs is None:
        shared: dict[int, list[str]] = {}
        for site in sites:
            shared.setdefault(site.input_id, []).append(site.name)
        specs = [GroupSpec(sites=tuple(names)) for names in shared.values()]
    return tuple(_group(stack, spec) for spec in specs)


def _group(stack: Stack, spec: GroupSpec) -> Group:
    found, frame = stack.piece.found, stack.piece.frame
    for name in spec.sites:
        if name not in stack.sites:
            raise ValueError(
                f"no site {name!r} in the block; it has {', '.join(stack.sites)}"
            )
    members = [found.sites.named(n) for n in spec.sites]
    if len({m.input_id for m in members}) > 1:
        raise ValueError(f"sites {', '.join(spec.sites)} do not share an input")
    steps = [found.steps[n] for n in spec.sites]
    inspect = spec.inspect or _meeting_site(stack, steps) or spec.sites[-1]
    if inspect not in stack.sites:
        raise ValueError(f"no site {inspect!r} in the block to inspect")
    x = steps[0].inputs[1 - weight_of(steps[0])].root
    region = piece.make_piece(found, frame, [x], [found.steps[inspect].outputs[0]])
    targets, share, note = _targets(steps)
    if note:
        return Group(spec.sites, inspect, region, {}, None, share, False, note)
    sources, note = _sources(stack, spec, steps, share)
    at_sites = {n for s in found.sites for n in s.leaves}
    return Group(
        sites=spec.sites, inspect=inspect, region=region, targets=targets,
        sources=sources, share=share, note=note,
        elementwise=bool(sources) and not set(sources or ()) & at_sites,
    )


def weight_of(step: walk.Step) -> int:
    """Which operand of a site is the weight."""
    assert step.weight is not None
    return step.weight


def contracted(step: walk.Step) -> tuple[list[int], list[int]]:
    """Contracted axes of a product's weight and activation, in the leaf's order."""
    contract, _ = step.eqn.params["dimension_numbers"]
    side = weight_of(step)
    w, x = contract[side], contract[1 - side]
    order = sorted(range(len(w)), key=lambda i: w[i])
    return [w[i] for i in order], [x[i] for i in order]


def _targets(steps):
    """Channel maps of the group's own weights, and which channels they tie."""
    targets: dict[str, channels.ChannelMap] = {}
    share: np.ndarray | None = None
    for step in steps:
        w_axes, _ = contracted(step)
        got = channels.weight_channels(step, w_axes)
        if got is None:
            shape = step.inputs[1].aval.shape
            return {}, np.arange(shape[0]), "the weight mixes its input channels"
        maps, ties = got
        share = ties if share is None else _join(share, ties)
        targets.update(maps)
    assert share is not None
    return targets, share, ""


def _sources(stack, spec, steps, share):
    """Where the scale can be folded, or why it cannot."""
    if spec.fold is not None and not spec.fold:
        return None, "no folding was asked for"
    _, x_axes = contracted(steps[0])
    got = channels.find_sources(steps[0], x_axes, spec.fold)
    if got is None:
        what = f"{', '.join(spec.fold)} does not produce" if spec.fold else (
            "no parameter produces")
        return None, f"{what} the input channel by channel"
    sources, ties = got
    share[:] = _join(share, ties)
    tied = [n for n in (*sources, *spec.sites) if _used_elsewhere(stack, n)]
    if tied:
        return None, f"{', '.join(tied)} is also used elsewhere"
    return sources, ""


def _join(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The finest classes that respect both."""
    a = a.copy()
    for value in np.unique(b):
        classes = np.unique(a[b == value])
        a[np.isin(a, classes)] = classes.min()
    return a


def _used_elsewhere(stack: Stack, name: str) -> bool:
    """Whether a leaf of the template is used at sites outside the stack's blocks."""
    found = stack.piece.found
    leaf = name.split("@")[0]
    own = sum(leaf in found.sites.named(n).leaves for n in stack.sites)
    everywhere = sum(leaf in s.leaves for s in found.sites)
    owners = sum(refs.get(leaf, None) == stack.leaves[0].get(leaf)
                 for refs in stack.leaves)
    return everywhere > own or (leaf in stack.leaves[0] and owners > 1)


def _meeting_site(stack: Stack, steps: Sequence[walk.Step]) -> str | None:
    """The first site that depends on all of the steps; the step itself if single."""
    found, frame = stack.piece.found, stack.piece.frame
    if len(steps) == 1:
        return found.by_path[steps[0].path][0].name
    reach: dict[int, set[int]] = {s.outputs[0].number: {i} for i, s in enumerate(steps)}
    for step in frame.steps:
        union: set[int] = set()
        for value in step.inputs:
            union |= reach.get(value.number, set())
        if not union:
            continue
        if len(union) == len(steps) and step.path in found.by_path:
            return found.by_path[step.path][0].name
        for value in step.outputs:
            reach.setdefault(value.number, set()).update(union)
    return None
