"""Balance groups: which linears are scaled together, judged where, folded into what.

All of it is read off the program: sites that share an input are scaled together, the
inspected region ends at the first site that depends on all of them, and the scale is
folded into whatever produces the input channel by channel.
"""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jeff import program, tree
from jeff.mbq.groups.spec import GroupSpec
from jeff.program import channels, piece, walk
from jeff.program.blocks import Stack

__all__ = ["Group", "infer_groups", "weight_of"]


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Linears of a block that are scaled together.

    Attributes:
      sites: Their names in the template block.
      inspect: Site at whose output candidates are judged.
      y_shape: Shape of that output, ``[..., N]``.
      region: The sub-program from the shared input to that output.
      targets: Per entry weight, the channel of each element along the input axis.
      sources: Per entry weight, the channels whose scale divides it; ``None`` if the
        group cannot be scaled.
      share: int ``[K]``, channels of one class must have one scale.
      elementwise: Whether the sources are norms (used at no site themselves).
      note: Why there is no fold, if there is none.

    Examples:
      >>> import jax.numpy as jnp
      >>> apply = lambda p, x: (x * p["norm"]) @ p["w"]
      >>> params = {"norm": jnp.ones(4), "w": jnp.ones((4, 2))}
      >>> block = program.whole(apply, params, jnp.ones((3, 4)))
      >>> (group,) = infer_groups(block, lambda site: True)
      >>> group.sites, group.y_shape, group.fold, group.elementwise
      (('w',), (3, 2), ('norm',), True)
      >>> group.targets["w"].index.shape, group.share  # rows of w; none are tied
      ((4, 1), array([0, 1, 2, 3]))
    """

    sites: tuple[str, ...]
    inspect: str
    y_shape: tuple[int, ...]
    region: piece.Piece
    targets: Mapping[str, channels.ChannelMap]
    sources: Mapping[str, channels.ChannelMap] | None
    share: np.ndarray
    elementwise: bool
    note: str = ""

    @property
    def fold(self) -> tuple[str, ...]:
        """Names of the leaves the scale is folded into; empty if it cannot be."""
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
      specs: Groups named by hand, then the only ones; inferred if ``None``.

    Returns:
      The groups; one without `Group.sources` cannot be scaled, and says why.

    Raises:
      ValueError: If a named site or leaf does not exist, `where` refuses a site, named
        sites do not share an input, or the inspected site does not depend on all of
        them.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> def apply(p, x):
      ...     h = jax.nn.relu(p["norm"] * x @ p["up"])
      ...     return h @ p["down"]
      >>> params = {"norm": jnp.ones(4), "up": jnp.ones((4, 8)),
      ...           "down": jnp.ones((8, 4))}
      >>> block = program.whole(apply, params, jnp.ones((2, 4)))
      >>> for g in infer_groups(block, lambda site: True):
      ...     print(g.sites, "judged at", g.inspect, "folded into", g.fold)
      ('up',) judged at up folded into ('norm',)
      ('down',) judged at down folded into ('up',)
    """
    listed = _sites(stack)
    chosen = [s for s in listed if s.kind == "dot" and s.parts and where(s)]
    if specs is None:
        shared: dict[int, list[str]] = {}
        for site in chosen:
            shared.setdefault(site.input_id, []).append(site.name)
        specs = [GroupSpec(sites=tuple(names)) for names in shared.values()]
    may = {s.name for s in chosen}
    return tuple(_group(stack, spec, may) for spec in specs)


def weight_of(step: walk.Step) -> int:
    """Which operand of a site is the weight.

    Args:
      step: The step of a site.

    Returns:
      0 or 1.
    """
    assert step.weight is not None
    return step.weight


def _sites(stack: Stack) -> list[program.Site]:
    return [stack.piece.found.sites.named(n) for n in stack.sites]


def _group(stack: Stack, spec: GroupSpec, may: set[str]) -> Group:
    found = stack.piece.found
    members = _members(stack, spec, may)
    _check_fold(stack, spec)
    steps = [found.steps[n] for n in spec.sites]
    inspect = spec.inspect
    if inspect is None:
        largest = max(members, key=lambda site: site.macs).name
        inspect = _meeting_site(stack, steps) or largest
    elif inspect not in stack.sites:
        raise ValueError(
            f"inspect names no site of the block: {inspect!r}; "
            f"it has {', '.join(stack.sites)}"
        )
    x = steps[0].inputs[1 - weight_of(steps[0])].root
    stop = found.steps[inspect].outputs[0]
    region = piece.make_piece(found, stack.piece.frame, [x], [stop])
    lost = [n for n in spec.sites if n not in region.sites()]
    if spec.inspect is not None and lost:
        raise ValueError(f"inspect {inspect!r} does not depend on {', '.join(lost)}")
    targets, sources, share, note = _channels(stack, spec, steps, members)
    at_sites = {n for s in found.sites for n in s.leaves}
    return Group(
        sites=spec.sites,
        inspect=inspect,
        y_shape=tuple(found.sites.named(inspect).y_shape),
        region=region,
        targets=targets,
        sources=sources,
        share=share,
        elementwise=bool(sources) and not set(sources or ()) & at_sites,
        note=note,
    )


def _members(stack, spec, may) -> list[program.Site]:
    """The sites of a group, checked."""
    for name in spec.sites:
        if name not in stack.sites:
            raise ValueError(
                f"no site {name!r} in the block; it has {', '.join(stack.sites)}"
            )
        if name not in may:
            raise ValueError(f"site {name!r} of a group is not one to be quantized")
    members = [s for s in _sites(stack) if s.name in spec.sites]
    if len({m.input_id for m in members}) > 1:
        raise ValueError(f"sites {', '.join(spec.sites)} do not share an input")
    return members


def _check_fold(stack, spec) -> None:
    """Refuses to fold into what is no leaf of the params."""
    known = stack.piece.found.traced.names
    for name in spec.fold or ():
        if name not in known:
            near = tree.nearest(name, [*stack.leaves[0], *known])
            raise ValueError(f"fold names no leaf of params: {name!r}; {near}")


def _channels(stack, spec, steps, members):
    """``(targets, sources or None, share, why there are no sources)`` of a group."""
    k = members[0].shape[-2]
    nothing = np.arange(k)
    targets, share = _targets(steps, k)
    if targets is None:
        return {}, None, nothing, "the weight mixes its input channels"
    if spec.fold is not None and not spec.fold:
        return targets, None, share, "no folding was asked for"
    others = [
        s.name
        for s in _sites(stack)
        if s.input_id == members[0].input_id and s.name not in spec.sites
    ]
    if others:
        why = f"its input is also that of {', '.join(others)}"
        return targets, None, share, why
    got = channels.find_sources(steps[0], _contracted(steps[0])[1], spec.fold)
    if got is None:
        who = "no parameter produces"
        if spec.fold is not None:
            who = f"{', '.join(spec.fold)} does not produce"
        return targets, None, share, f"{who} its input channel by channel"
    sources, ties = got
    own = sorted(set(sources) & set(targets))
    if own:  # dividing and multiplying one leaf would change nothing
        return targets, None, share, f"{', '.join(own)} produces its own input"
    outside = [n for n in sources if n not in stack.leaves[0]]
    if outside:
        return targets, None, share, f"{', '.join(outside)} is outside of the block"
    tied = {n: None for n in (*sources, *spec.sites) for n in _tied(stack, n)}
    if tied:
        return targets, None, share, f"{', '.join(tied)} is also used elsewhere"
    return targets, sources, _join(share, ties), ""


def _contracted(step: walk.Step) -> tuple[list[int], list[int]]:
    """Contracted axes of a product's weight and activation, in the leaf's order."""
    contract, _ = step.eqn.params["dimension_numbers"]
    side = weight_of(step)
    w, x = contract[side], contract[1 - side]
    order = sorted(range(len(w)), key=lambda i: w[i])
    return [w[i] for i in order], [x[i] for i in order]


def _targets(steps, k: int):
    """Channel maps of the group's own weights, and which channels they tie."""
    targets: dict[str, channels.ChannelMap] = {}
    share = np.arange(k)
    for step in steps:
        got = channels.weight_channels(step, _contracted(step)[0])
        if got is None:
            return None, share
        maps, ties = got
        share = _join(share, ties)
        for name, found in maps.items():
            found = _merged(targets.get(name, found), found)
            if found is None:
                return None, share
            targets[name] = found
    return targets, share


def _merged(
    a: channels.ChannelMap, b: channels.ChannelMap
) -> channels.ChannelMap | None:
    """Two maps of one weight (slices of it at two sites), if they agree."""
    i, j = np.broadcast_arrays(a.index, b.index)
    if a.offset != b.offset or ((i != j) & (i >= 0) & (j >= 0)).any():
        return None
    return channels.ChannelMap(np.maximum(i, j), a.offset)


def _join(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The finest classes that respect both."""
    a = a.copy()
    for value in np.unique(b):
        classes = np.unique(a[b == value])
        a[np.isin(a, classes)] = classes.min()
    return a


def _tied(stack: Stack, name: str) -> list[str]:
    """Leaves that stand for one of the template's and are used in another place too.

    Such a place is a site outside of the block, or the block next to it.
    """
    sites = stack.piece.found.sites
    uses = collections.Counter(leaf for s in sites for leaf in s.leaves)
    of_template = name.split("@")[0]
    tied, seen = [], set()
    for refs, names in zip(stack.leaves, stack.names, strict=True):
        if of_template not in refs:
            continue
        ref = refs[of_template]
        own = sum(ref.name in sites.named(names[n]).leaves for n in stack.sites)
        if ref in seen or uses[ref.name] > own:
            tied.append(ref.name)
        seen.add(ref)
    return tied


def _meeting_site(stack: Stack, steps: Sequence[walk.Step]) -> str | None:
    """The block's first site that depends on all of the steps; the step if single."""
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
            name = found.by_path[step.path][0].name
            return name if name in stack.sites else None
        for value in step.outputs:
            reach.setdefault(value.number, set()).update(union)
    return None
