"""Where in the tree of voters every random leaf of a program stands.

A level is a step of depth in random weights: a leaf that meets a value which no random
weight has touched is on level 1, one that meets outputs of level 1 on level 2, and so
on. A leaf added to the outputs of a product (a bias) is on the product's level.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jeff.program import graph
from jeff.program.origin import Atom
from jeff.program.site import Site
from jeff.program.sites import Found

__all__ = ["Leaf", "Levels", "levels"]


class Leaf(NamedTuple):
    """How one random leaf is used.

    Attributes:
      level: Its level in the tree, from 1: the lowest of its uses.
      direct: Whether it is used at sites alone, all of it and in one order at all of
        them, so that a rule can take care of every use.
      contract: Its contracted axes at its first site, in the order in which they are
        contracted; ``()`` if it has none.
      kept: Its other axes beside the stack, in the order of its first site if it is a
        matrix, else as they are stored.
      stack: Its axes along which loops step, at its first site if it has one.
      reason: Why it is not direct, ``""`` if it is.
      matrix: Whether it is direct and contracted, so that an entry of its stack is a
        matrix ``[K, N]`` of the axes in `contract` and those in `kept`.
    """

    level: int
    direct: bool
    contract: tuple[int, ...]
    kept: tuple[int, ...]
    stack: tuple[int, ...]
    reason: str
    matrix: bool


class Levels(NamedTuple):
    """The levels of a program.

    Attributes:
      leaves: By name of random leaf.
      depth: By name of site with a random leaf, the level at which it multiplies; in
        a loop that of its first turn.
      number: Levels of the program.
      widest: Words that one voter's values take at a time: the most that an equation
        behind random weights takes in and gives, without its weights.
    """

    leaves: Mapping[str, Leaf]
    depth: Mapping[str, int]
    number: int
    widest: int


def levels(found: Found, random: Mapping[str, tuple[int, ...]]) -> Levels:
    """Reads the levels off a program's data flow.

    Args:
      found: The program.
      random: Names of the random leaves and the shape of each.

    Returns:
      The levels.
    """
    lowest: dict[str, int] = {}
    at: dict[int, int] = {}
    step_depth: dict[int, int] = {}
    widest = 0
    for step in found.program.frame.steps:
        depth = max((at.get(v.number, 0) for v in step.inputs), default=0)
        names = {n for v in step.inputs for n in v.leaves if n in random}
        if not names:
            out = depth
        elif all(v.is_weight for v in step.outputs):  # its uses are yet to come
            out = depth
        else:
            products = list(_sites(step))
            out = depth + 1 if products else max(depth, 1)
            for name in names:
                lowest[name] = min(lowest.get(name, out), out)
            step_depth.update((id(s), out) for s in products)
        if out:
            behind = [v for v in step.inputs if at.get(v.number)]
            widest = max(widest, _words([*behind, *step.outputs]), _widest(step))
        for value in step.outputs:
            at[value.number] = max(at.get(value.number, 0), out)
    other = dict(_other_uses(found.program.frame))
    stacks = dict(_stacks(found.program.frame))
    depth = {n: step_depth.get(id(s), 0) for n, s in found.steps.items()}
    leaves = {}
    for name, shape in random.items():
        own = [s for s in found.sites if name in s.leaves]
        reason = other.get(name) or _reason(own, name, shape, found)
        first = next((p for s in own for p in s.parts if p.leaf == name), None)
        contract = first.contract_axes if first else ()
        stack = first.stack_axes if first else stacks.get(name, ())
        matrix = not reason and bool(contract)
        stored = [a for a in range(len(shape)) if a not in (*stack, *contract)]
        leaves[name] = Leaf(
            level=lowest.get(name, 1),
            direct=not reason,
            contract=contract,
            kept=_kept(own[0], shape, found) if matrix else tuple(stored),
            stack=stack,
            reason=reason,
            matrix=matrix,
        )
    number = max([leaf.level for leaf in leaves.values()], default=0)
    return Levels(leaves, depth, number, widest)


def _words(values: Iterable[graph.Value]) -> int:
    """Sizes of activations."""
    shapes = [getattr(v.aval, "shape", ()) for v in values if not v.is_weight]
    return sum(math.prod(shape) for shape in shapes)


def _widest(step: graph.Step) -> int:
    """The most that an equation inside of a step takes in and gives."""
    inner = [s for child in step.children for s in child.steps]
    sizes = [max(_words([*s.inputs, *s.outputs]), _widest(s)) for s in inner]
    return max(sizes, default=0)


def _other_uses(frame: graph.Frame) -> Iterator[tuple[str, str]]:
    """Leaves used other than at sites, in a program and those inside it, and how."""
    for step in frame.steps:
        names = {n for v in step.inputs for n in v.leaves}
        how = f"used at {step.eqn.primitive.name}"
        if step.weight is not None and step.weight_value.is_weight:
            names -= {*step.weight_value.leaves}
        elif step.children:  # what is not handed on is changed by a loop
            names -= {n for c in step.children for v in c.inputs for n in v.leaves}
        elif all(v.is_weight for v in step.outputs):
            if not any(_changed(step, v) for v in step.outputs):
                continue
            how = f"changed at {step.eqn.primitive.name}"
        yield from ((name, how) for name in names)
        for child in step.children:
            yield from _other_uses(child)
    for i, value in enumerate(frame.outputs):
        carried = frame.inputs[frame.num_consts :][: frame.num_carry]
        if not (i < len(carried) and value is carried[i]):
            yield from ((name, "given back as it is") for name in value.leaves)


def _stacks(frame: graph.Frame) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Axes of leaves along which loops step, at sites and elsewhere."""
    for step in frame.steps:
        for value in step.inputs:
            if value.origin is not None and value.origin.is_view and value.origin.stack:
                yield value.origin.leaves[0], tuple(sorted({*value.origin.stack}))
        for child in step.children:
            yield from _stacks(child)


def _changed(step: graph.Step, value: graph.Value) -> bool:
    """Whether a step makes more than a view of a weight.

    An entry of a stack that is taken by a number is none either: only a scan says
    which entry it is that an iteration takes.
    """
    origin, before = value.origin, step.inputs[0].origin
    if origin is None or before is None or origin.derived:
        return True
    return origin.stack != before.stack


def _sites(step: graph.Step) -> Iterator[graph.Step]:
    """The sites at a step: itself, or those of the programs inside it."""
    if step.weight is not None and step.weight_value.is_weight:
        yield step
    for child in step.children:
        for inner in child.steps:
            yield from _sites(inner)


def _reason(own: list[Site], name: str, shape: Sequence[int], found: Found) -> str:
    """Why the uses of a leaf are not all products with it as it is stored."""
    if not own:
        return "at no site"
    lost = {n for line in found.sites.opaque for n in line.replace("+", " ").split()}
    if name in found.sites.elementwise or name in lost:
        return "used in a way that is not followed"
    for site in own:
        if site.derived or len(site.parts) != 1:
            return "changed before it is used"
        if site.custom:
            return "used in a function with a derivative of its own"
        if not _is_whole(site, found.steps[site.name].weight_value, shape):
            return "used in parts or in another order"
        if site.kind != "dot":
            return f"used in a {site.kind}"
        part, first = site.parts[0], own[0].parts[0]
        if {*part.contract_axes} != {*first.contract_axes}:
            return "contracted along other axes at another use"
        if part.stack_axes != first.stack_axes:
            return "a stack of other axes at another use"
        if len(site.shape) != 2:
            return "a stack at its site"
        if len(shape) - len(part.stack_axes) < 2:
            return "a vector at its site"
        kept = _kept(site, shape, found), _kept(own[0], shape, found)
        if part.contract_axes != first.contract_axes or kept[0] != kept[1]:
            return "in another order at another use"
    return ""


def _kept(site: Site, shape: Sequence[int], found: Found) -> tuple[int, ...]:
    """Axes of a leaf that a product keeps, in its order; those of size 1 last."""
    _, view = found.by_path[site.path]
    origin, part = found.steps[site.name].weight_value.origin, site.parts[0]
    assert origin is not None
    free = view.w_permutation[len(view.contract) :]
    atoms = [a for i in free for a in origin.axes[i] if a.size > 1]
    inside = tuple(a.axis for a in atoms if a.axis is not None)
    known = {*inside, *part.contract_axes, *part.stack_axes}
    return (*inside, *(a for a in range(len(shape)) if a not in known))


def _is_whole(site: Site, value: graph.Value, shape: Sequence[int]) -> bool:
    """Whether a site uses every entry of a leaf once, stacks in order."""
    origin = value.origin
    assert origin is not None
    if any(a >= b for a, b in zip(origin.stack, origin.stack[1:], strict=False)):
        return False
    turns = zip(site.trips, site.strides, strict=True)
    taken = [trips for trips, stride in turns if not stride]
    if taken != [shape[axis] for axis in origin.stack]:
        return False
    atoms = [a for axis in origin.axes for a in axis if a.size > 1]
    rest = [Atom(i, n) for i, n in enumerate(shape) if n > 1 and i not in origin.stack]
    return sorted(atoms, key=lambda a: -1 if a.axis is None else a.axis) == rest
