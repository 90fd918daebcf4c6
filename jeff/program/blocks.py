"""The repeated units of a program, for work that must fit one block in memory."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jeff import tree
from jeff.program import piece as piece_lib
from jeff.program import trace, walk
from jeff.program.sites import Found, find

__all__ = ["LeafRef", "Stack", "blocks", "whole"]


class LeafRef(NamedTuple):
    """Where a block's weight is kept.

    Attributes:
      name: Path of the leaf.
      index: Entry of the stacked leaf, or ``None`` if the leaf is the block's own.
      axis: Stack axis of the leaf, or ``None``.
    """

    name: str
    index: int | None
    axis: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """A run of equal blocks: one template, and the weights of each block.

    The template is a pure function ``state -> state`` over the weights of one block
    (`piece`), so work on every block shares one compiled program.

    Attributes:
      piece: The template, from the state before a block to the state after it.
      count: Number of blocks.
      leaves: Per block, where each of the template's weights is kept.
      sites: Names of the template's sites, in program order.
      per_block_side: Which side inputs differ from block to block.
      names: Per block, the site that corresponds to each of the template's.
      iterations: Per block, its iteration of the scan; ``None`` in straight-line code.
    """

    piece: piece_lib.Piece
    count: int
    leaves: tuple[Mapping[str, LeafRef], ...]
    sites: tuple[str, ...]
    per_block_side: tuple[bool, ...]
    names: tuple[Mapping[str, str], ...]
    iterations: tuple[int | None, ...]
    _entry: tuple[walk.Value, ...]
    _sides: tuple[tuple[walk.Value, ...], ...]
    _frame: walk.Frame

    def weights(self, params: Any, block: int) -> dict[str, Any]:
        """The weights of one block, by the template's names.

        Args:
          params: Params tree; leaves may be stored.
          block: Number of the block.

        Returns:
          A value per weight of the template.

        Raises:
          ValueError: If there is no such block.
        """
        self._check(block)
        leaves, _ = tree.flatten(params)
        entries = {}
        for name, ref in self.leaves[block].items():
            leaf = leaves[ref.name]
            entries[name] = leaf if ref.index is None else _take(leaf, ref)
        return entries

    def enter(
        self, params: Any, *inputs: Any, **kwargs: Any
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Runs the program up to the first block.

        Returns:
          ``(state, sides)``: the state before the first block, and the side inputs;
          those that differ from block to block have a leading axis of `count`.
        """
        found = self.piece.found
        values = trace.program_inputs(params, inputs, kwargs)
        return self._enter(found, values)

    def side(self, sides: Sequence[Any], block: int) -> tuple[Any, ...]:
        """The side inputs of one block."""
        self._check(block)
        return tuple(
            s[block] if own else s
            for s, own in zip(sides, self.per_block_side, strict=True)
        )

    def run(self, weights: Mapping[str, Any], state: Sequence[Any], side: Sequence[Any]
            ) -> tuple[Any, ...]:
        """One block: the next state."""
        return self.piece(weights, state, side)

    def _check(self, block: int) -> None:
        if not 0 <= block < self.count:
            raise ValueError(f"block must be in [0, {self.count}), got {block}")

    def _enter(self, found, values):
        outer = found.program.frame
        if self._frame is outer:
            wanted = [*self._entry]
            flat, offsets = [], []
            for value, own in zip(
                range(len(self.per_block_side)), self.per_block_side, strict=True
            ):
                rows = [s[value] for s in self._sides] if own else [self._sides[0][value]]
                offsets.append((len(wanted) + len(flat), len(rows), own))
                flat += rows
            got = piece_lib.capture(found, outer, [*wanted, *flat], values)
            sides = tuple(
                jax.numpy.stack(got[at : at + n]) if own else got[at]
                for at, n, own in offsets
            )
            return tuple(got[: len(wanted)]), sides
        got = piece_lib.capture(
            found, outer, [*self._entry, *self._sides[0]], values
        )
        n = len(self._entry)
        return tuple(got[:n]), tuple(got[n:])


def blocks(
    apply: Callable[..., Any],
    params: Any,
    *inputs: Any,
    boundaries: Sequence[str] | None = None,
    **kwargs: Any,
) -> tuple[Stack, ...]:
    """The repeated units of a program: scanned layers, or equal layers in sequence.

    A scan over stacked weights is one stack. In straight-line code, the longest run
    of structurally equal sub-programs is found from the equations alone; names play
    no part.

    Args:
      apply: ``apply(params, *inputs, **kwargs)``.
      params: Params tree.
      *inputs: Inputs, or their shapes.
      boundaries: For straight-line code, the names of the first site of each block,
        if the automatic choice is not wanted.
      **kwargs: Keyword inputs.

    Returns:
      The stacks, in program order; empty if nothing is repeated.

    Raises:
      ValueError: If `boundaries` names an unknown site, or its blocks are not equal.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> def model(p, x):
      ...     return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])[0]
      >>> params = {"w": jnp.ones((5, 4, 4))}
      >>> (stack,) = blocks(model, params, jnp.ones((2, 4)))
      >>> stack.count, stack.sites
      (5, ('w',))
    """
    found = find(trace.tracer_of(apply).trace(params, inputs, kwargs))
    key = ("blocks", None if boundaries is None else tuple(boundaries))
    if key not in found.memo:
        found.memo[key] = _stacks(found, boundaries)
    return found.memo[key]


def _stacks(found: Found, boundaries: Sequence[str] | None) -> tuple[Stack, ...]:
    if boundaries is not None:
        return (_named_stack(found, boundaries),)
    stacks = [
        _scan_stack(found, step)
        for step in found.program.frame.steps
        if step.eqn.primitive.name == "scan" and _steps_through_weights(step)
    ]
    if not stacks:
        stack = _sequence_stack(found)
        stacks = [stack] if stack is not None else []
    return tuple(stacks)


def _steps_through_weights(step: walk.Step) -> bool:
    return bool(step.children) and step.children[0].trips > 1 and any(
        s.kind != "lookup" and s.inputs[s.weight].is_weight
        and step.children[0].path in s.inputs[s.weight].origin.loops
        for frame in _frames(step) for s in frame.steps if s.weight is not None
    )


def _frames(step: walk.Step) -> Iterable[walk.Frame]:
    for child in step.children:
        yield child
        for inner in child.steps:
            yield from _frames(inner)


def _scan_stack(found: Found, step: walk.Step) -> Stack:
    frame = step.children[0]
    first, stop = frame.num_consts, frame.num_consts + frame.num_carry
    moving = [
        i for i in range(frame.num_carry)
        if frame.outputs[i] is not frame.inputs[first + i]
    ]
    state_in = [frame.inputs[first + i] for i in moving]
    piece = piece_lib.make_piece(
        found, frame, state_in, [frame.outputs[i] for i in moving], deep=True
    )
    outer = dict(zip((id(v) for v in frame.inputs), step.inputs, strict=True))
    sliced = {id(v) for v in frame.inputs[stop:]}
    count = frame.trips or 0
    order = range(count)
    if step.eqn.params["reverse"]:
        order = range(count - 1, -1, -1)
    leaves = []
    for i in order:
        leaves.append({
            n: _scan_ref(v, outer, sliced, i) for n, v in piece.weights.items()
        })
    own = tuple(id(v) in sliced for v in piece.side)
    same = {name: name for name in piece.sites()}
    return Stack(
        piece=piece, count=count, leaves=tuple(leaves), sites=piece.sites(),
        per_block_side=own, names=(same,) * count, iterations=tuple(order),
        _entry=tuple(step.inputs[first + i] for i in moving),
        _sides=(tuple(outer.get(id(v), v) for v in piece.side),), _frame=frame,
    )


def _scan_ref(value, outer, sliced, i) -> LeafRef:
    name = value.origin.leaves[0]
    if id(value) not in sliced:
        return LeafRef(name, None, None)
    (axis,) = (a.axis for a in outer[id(value)].origin.axes[0])
    if value.origin.axes != tuple(
        (walk.origin_lib.Atom(a, s.size),)
        for a, s in _plain_axes(value.origin)
    ):
        raise ValueError(f"the stacked leaf {name!r} is reshaped before the scan")
    return LeafRef(name, i, axis)


def _plain_axes(origin):
    """Axis and atom of every axis, if each is one whole axis in the leaf's order."""
    atoms = [axis[0] if len(axis) == 1 else None for axis in origin.axes]
    if any(a is None or a.axis is None for a in atoms):
        return []
    return sorted((a.axis, a) for a in atoms if a is not None)


def _take(leaf: Any, ref: LeafRef) -> Any:
    if hasattr(leaf, "take") and hasattr(leaf, "can_index"):
        if leaf.can_index(ref.axis):
            return jax.tree.map(
                lambda a: jax.lax.index_in_dim(a, ref.index, ref.axis, keepdims=False),
                leaf,
            )
        leaf = leaf.decode()
    return jax.lax.index_in_dim(leaf, ref.index, ref.axis, keepdims=False)


# Straight-line code.


def _sequence_stack(found: Found) -> Stack | None:
    """The longest run of structurally equal sub-programs around sites."""
    frame = found.program.frame
    at = [i for i, s in enumerate(frame.steps) if s.path in found.by_path]
    signature = [_site_signature(found, frame.steps[i]) for i in at]
    best: tuple[int, Any] | None = None
    for period in range(1, len(at) // 2 + 1):
        for first in range(len(at) - 2 * period + 1):
            count = 1
            while signature[first : first + period] == signature[
                first + count * period : first + (count + 1) * period
            ]:
                count += 1
            if count < 2 or (best is not None and count * period <= best[0]):
                continue
            starts = [at[first + i * period] for i in range(count)]
            made = _equal_blocks(found, starts)
            if made is not None:
                best = (count * period, made)
    return None if best is None else best[1]


def whole(apply: Callable[..., Any], params: Any, *inputs: Any, **kwargs: Any) -> Stack:
    """The whole program as a stack of one block, for programs without repetition.

    Args:
      apply: ``apply(params, *inputs, **kwargs)``.
      params: Params tree.
      *inputs: Inputs, or their shapes.
      **kwargs: Keyword inputs.

    Returns:
      One block whose state are the inputs.
    """
    found = find(trace.tracer_of(apply).trace(params, inputs, kwargs))
    if "whole" in found.memo:
        return found.memo["whole"]
    frame = found.program.frame
    start = frame.inputs[len(found.traced.names):]
    piece = piece_lib.make_piece(found, frame, start, frame.outputs)
    refs = {n: LeafRef(n, None, None) for n in piece.weights}
    found.memo["whole"] = Stack(
        piece=piece, count=1, leaves=(refs,), sites=piece.sites(),
        per_block_side=(False,) * len(piece.side),
        names=({n: n for n in piece.sites()},), iterations=(None,),
        _entry=tuple(start), _sides=(piece.side,), _frame=frame,
    )
    return found.memo["whole"]


def _named_stack(found: Found, names: Sequence[str]) -> Stack:
    for name in names:
        found.sites.named(name)
    steps = found.program.frame.steps
    position = {id(s): i for i, s in enumerate(steps)}
    try:
        starts = [position[id(found.steps[n])] for n in names]
    except KeyError:
        raise ValueError("boundaries must be sites outside of loops") from None
    stack = _equal_blocks(found, starts)
    if stack is None:
        raise ValueError(f"the blocks starting at {', '.join(names)} are not equal")
    return stack


def _site_signature(found, step) -> Any:
    site, _ = found.by_path[step.path]
    return (site.kind, site.shape, site.x_shape, site.dtype, len(site.leaves))


def _equal_blocks(found, starts: Sequence[int]) -> Stack | None:
    """A stack whose blocks have their first sites at `starts`, if they are equal."""
    frame = found.program.frame
    length = starts[1] - starts[0]
    if any(b - a != length for a, b in zip(starts, starts[1:], strict=False)):
        return None
    best: tuple[int, Stack] | None = None
    for back in range(min(length, starts[0] + 1)):
        made = _match(found, frame, [s - back for s in starts], length)
        if made is not None and (best is None or len(made.piece.start) < best[0]):
            best = (len(made.piece.start), made)
    return None if best is None else best[1]


def _match(found, frame, begins: Sequence[int], length: int) -> Stack | None:
    if begins[-1] + length > len(frame.steps):
        return None
    template = frame.steps[begins[0] : begins[0] + length]
    own = {id(v): (j, k) for j, s in enumerate(template)
           for k, v in enumerate(s.outputs)}
    external: list[walk.Value] = []
    for step in template:
        for v in step.inputs:
            known = id(v) in own or v.literal is not None
            if not known and all(v is not e for e in external):
                external.append(v)
    rows = [[*external]]
    for begin in begins[1:]:
        row = _corresponding(template, frame.steps[begin : begin + length], own, external)
        if row is None:
            return None
        rows.append(row)
    state = _states(external, rows)
    if not state:
        return None
    stop = _state_outputs(frame, begins, length, rows, state, template)
    if stop is None:
        return None
    piece = piece_lib.make_piece(found, frame, [external[i] for i in state], stop)
    return _assemble(found, frame, piece, external, rows, state, begins)


def _corresponding(template, block, own, external) -> list[walk.Value] | None:
    """What each external value of the template corresponds to in another block."""
    mapped: dict[int, walk.Value] = {}
    mine = {id(v): (j, k) for j, s in enumerate(block) for k, v in enumerate(s.outputs)}
    for a, b in zip(template, block, strict=True):
        if not _same_equation(a, b):
            return None
        for u, v in zip(a.inputs, b.inputs, strict=True):
            if u.literal is not None or v.literal is not None:
                if u.literal is None or v.literal is None or u.number != v.number:
                    return None
            elif id(u) in own or id(v) in mine:
                if own.get(id(u)) != mine.get(id(v)):
                    return None
            elif mapped.setdefault(id(u), v) is not v:
                return None
    return [mapped[id(v)] for v in external]


def _same_equation(a: walk.Step, b: walk.Step) -> bool:
    if a.eqn.primitive is not b.eqn.primitive or len(a.inputs) != len(b.inputs):
        return False
    if [v.aval for v in a.outputs] != [v.aval for v in b.outputs]:
        return False
    return all(
        _same_param(value, b.eqn.params.get(name))
        for name, value in a.eqn.params.items()
        if name not in _DERIVATIVES
    )


# Derivative rules are objects made anew by each trace; their primals are compared.
_DERIVATIVES = frozenset({"jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd", "out_trees"})


def _same_param(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if hasattr(a, "eqns") or hasattr(a, "jaxpr"):
        return str(a) == str(b)
    return bool(a == b)


def _states(external, rows) -> list[int] | None:
    """Which of the values that enter a block are its state.

    The others are weights, or side inputs (the same for all blocks, or constants).
    """
    state = []
    for i, value in enumerate(external):
        column = [row[i] for row in rows]
        if value.is_weight:
            if not all(v.is_weight and v.aval == value.aval for v in column):
                return None
        elif any(v.aval.shape != value.aval.shape for v in column):
            return None
        elif value.origin is None and not all(v is value for v in column):
            state.append(i)
    return state


def _state_outputs(frame, begins, length, rows, state, template):
    """The template's outputs that become the next block's state."""
    stop = []
    for i in state:
        place = None
        for row, begin in zip(rows[1:], begins[:-1], strict=True):
            block = frame.steps[begin : begin + length]
            mine = {id(v): (j, k) for j, s in enumerate(block)
                    for k, v in enumerate(s.outputs)}
            here = mine.get(id(row[i]))
            if here is None or (place is not None and here != place):
                return None
            place = here
        if place is None:
            return None
        stop.append(template[place[0]].outputs[place[1]])
    return stop


def _assemble(found, frame, piece, external, rows, state, begins) -> Stack | None:
    names = []
    for begin in begins:
        pairs = {}
        for j, step in enumerate(frame.steps[begins[0] : begins[1]]):
            if step.path in found.by_path:
                other = frame.steps[begin + j]
                pairs[found.by_path[step.path][0].name] = (
                    found.by_path[other.path][0].name)
        names.append(pairs)
    place = {id(v): i for i, v in enumerate(external)}
    leaves: list[dict[str, LeafRef]] = [{} for _ in rows]
    for name, value in piece.weights.items():
        for block, row in enumerate(rows):
            other = row[place[id(value)]] if id(value) in place else value
            if other.origin is None or not other.origin.is_view:
                return None
            leaves[block][name] = LeafRef(other.origin.leaves[0], None, None)
    sides = []
    for row in rows:
        sides.append(tuple(row[place[id(v)]] if id(v) in place else v
                           for v in piece.side))
    differs = tuple(
        any(s[i] is not sides[0][i] for s in sides) for i in range(len(piece.side))
    )
    return Stack(
        piece=piece, count=len(rows), leaves=tuple(leaves), sites=piece.sites(),
        per_block_side=differs, names=tuple(names), iterations=(None,) * len(rows),
        _entry=tuple(external[i] for i in state),
        _sides=tuple(sides), _frame=frame,
    )
