"""Equal sub-programs in straight-line code, found from the equations alone."""

from collections.abc import Sequence
from typing import Any

from jeff.program import marks, walk
from jeff.program import piece as piece_lib
from jeff.program.sites import Found
from jeff.program.stack import LeafRef, Stack

__all__ = ["named_stack", "sequence_stacks"]


def sequence_stacks(found: Found) -> list[Stack]:
    """Runs of structurally equal sub-programs around sites, in program order.

    The longest run is taken first, then the longest before and after it.

    Args:
      found: The program; only steps outside of loops are looked at.

    Returns:
      A stack per run; none if nothing is repeated.
    """
    steps = found.program.frame.steps
    at = [i for i, s in enumerate(steps) if s.path in found.by_path]
    return _runs(found, at)


def _runs(found: Found, at: Sequence[int]) -> list[Stack]:
    best = _longest_run(found, at)
    if best is None:
        return []
    first, sites, stack = best
    return [*_runs(found, at[:first]), stack, *_runs(found, at[first + sites :])]


def _longest_run(found: Found, at: Sequence[int]) -> tuple[int, int, Stack] | None:
    """The first site of the run, its number of sites, and the stack."""
    frame = found.program.frame
    signature = [_site_signature(found, frame.steps[i]) for i in at]
    best: tuple[int, int, Stack] | None = None
    for period in range(1, len(at) // 2 + 1):
        for first in range(len(at) - 2 * period + 1):
            count = 1
            while (
                signature[first : first + period]
                == signature[first + count * period : first + (count + 1) * period]
            ):
                count += 1
            if count < 2 or (best is not None and count * period <= best[1]):
                continue
            starts = [at[first + i * period] for i in range(count)]
            made = _equal_blocks(found, starts)
            if made is not None:
                best = (first, count * period, made)
    return best


def named_stack(found: Found, names: Sequence[str]) -> Stack:
    """The stack whose blocks begin with the sites called `names`.

    Args:
      found: The program.
      names: Name of the first site of every block, in program order.

    Returns:
      The stack.

    Raises:
      ValueError: If a name is not a site outside of loops, or blocks are not equal.
    """
    if len(names) < 2:
        raise ValueError(f"boundaries needs two sites or more, got {len(names)}")
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
    own = {
        id(v): (j, k) for j, s in enumerate(template) for k, v in enumerate(s.outputs)
    }
    external: list[walk.Value] = []
    for step in template:
        for v in step.inputs:
            known = id(v) in own or v.literal is not None
            if not known and all(v is not e for e in external):
                external.append(v)
    rows = [[*external]]
    for begin in begins[1:]:
        row = _corresponding(
            template, frame.steps[begin : begin + length], own, external
        )
        if row is None:
            return None
        rows.append(row)
    carried = _carried(frame, begins, length, external, rows, template)
    if carried is None:
        return None
    state, stop = carried
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
    if a.eqn.primitive.name == marks.PRIMITIVE:  # names play no part
        return True
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


def _carried(frame, begins, length, external, rows, template):
    """Which of the values that enter a block are its state, and what they become.

    The others are weights, or side inputs: the same for all blocks, or made before
    the first.

    Returns:
      Positions in `external`, and per position the output of the template that is the
      next block's; ``None`` if the blocks are not joined alike.
    """
    made_in = {
        id(v): (block, j, k)
        for block, begin in enumerate(begins)
        for j, step in enumerate(frame.steps[begin : begin + length])
        for k, v in enumerate(step.outputs)
    }
    state, stop = [], []
    for i, value in enumerate(external):
        column = [row[i] for row in rows]
        if any(v.aval.shape != value.aval.shape for v in column):
            return None
        if value.is_weight:
            if not all(v.is_weight and v.aval == value.aval for v in column):
                return None
            continue
        places = [made_in.get(id(v)) for v in column]
        if all(place is None for place in places):
            continue
        (_, j, k) = places[1] or (0, 0, 0)
        expected = [None, *((block, j, k) for block in range(len(rows) - 1))]
        if places != expected:
            return None
        state.append(i)
        stop.append(template[j].outputs[k])
    return (state, stop) if state else None


def _assemble(found, frame, piece, external, rows, state, begins) -> Stack | None:
    names = []
    for begin in begins:
        pairs = {}
        for j, step in enumerate(frame.steps[begins[0] : begins[1]]):
            if step.path in found.by_path:
                other = frame.steps[begin + j]
                pairs[found.by_path[step.path][0].name] = found.by_path[other.path][
                    0
                ].name
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
        sides.append(
            tuple(row[place[id(v)]] if id(v) in place else v for v in piece.side)
        )
    differs = tuple(
        any(s[i] is not sides[0][i] for s in sides) for i in range(len(piece.side))
    )
    return Stack(
        piece=piece,
        count=len(rows),
        leaves=tuple(leaves),
        sites=piece.sites(),
        per_block_side=differs,
        names=tuple(names),
        iterations=(None,) * len(rows),
        _entry=tuple(external[i] for i in state),
        _sides=tuple(sides),
    )
