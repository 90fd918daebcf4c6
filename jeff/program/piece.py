"""A piece of a program between two points, as a pure function of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jeff import base
from jeff.program import compat, trace, walk
from jeff.program.origin import Atom
from jeff.program.rewrite import Run, Scope
from jeff.program.sites import Found

__all__ = ["Piece", "make_piece"]


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """The steps between some values of a frame, with the side inputs they need.

    Call it as ``piece(weights, x, side)``. It is pure, so it goes under ``jit``,
    ``vmap`` and ``grad``; `rules` act at the sites inside it.

    Attributes:
      found: The program it was cut from.
      frame: The frame (whole program, or body of one loop iteration) it lies in.
      start: The values it starts from.
      stop: The values it ends with.
      weights: Parameter leaves (slices of them inside a scan) it uses, by leaf.
      side: Other values it needs: masks, rotary tables, residual branches.
      steps: The steps it runs, in order.
    """

    found: Found
    frame: walk.Frame
    start: tuple[walk.Value, ...]
    stop: tuple[walk.Value, ...]
    weights: Mapping[str, walk.Value]
    side: tuple[walk.Value, ...]
    steps: tuple[walk.Step, ...]

    def __call__(
        self,
        weights: Mapping[str, Any],
        x: Sequence[Any],
        side: Sequence[Any] = (),
        *,
        rules: Sequence[base.Rule] = (),
    ) -> tuple[Any, ...]:
        """Runs the piece.

        Args:
          weights: A value per name in `self.weights`; dense or stored.
          x: A value per entry of `self.start`.
          side: A value per entry of `self.side`.
          rules: Rules for the sites inside.

        Returns:
          A value per entry of `self.stop`.

        Raises:
          ValueError: If a weight is missing or an input has another shape.
        """
        missing = [n for n in self.weights if n not in weights]
        if missing:
            raise ValueError(f"weights lacks {', '.join(missing)}")
        env: dict[int, Any] = {}
        for name, value in self.weights.items():
            _bind_input(env, value, weights[name], f"weights[{name!r}]")
        for label, values, given in (("x", self.start, x), ("side", self.side, side)):
            if len(values) != len(given):
                raise ValueError(f"{label} has {len(given)} entries, not {len(values)}")
            for i, (value, array) in enumerate(zip(values, given, strict=True)):
                _bind_input(env, value, array, f"{label}[{i}]")
        run = Run(tuple(rules), found=self.found)
        scope = Scope((0,) * len(self.frame.loops), {})
        run_steps(run, self.steps, env, scope)
        return tuple(_dense(read(env, v)) for v in self.stop)

    def sites(self) -> tuple[str, ...]:
        """Names of the sites inside, in program order."""
        at = self.found.by_path
        return tuple(at[s.path][0].name for s in self.steps if s.path in at)


def make_piece(
    found: Found,
    frame: walk.Frame,
    start: Sequence[walk.Value],
    stop: Sequence[walk.Value],
    *,
    deep: bool = False,
) -> Piece:
    """The piece of `frame` from `start` to `stop`.

    Whatever `stop` needs that does not depend on `start` becomes a weight (a
    parameter leaf or an entry of its stack, else unchanged), a side input (an
    activation), or is computed inside (what depends on parameters and constants
    only). With `deep`, everything that can be computed
    from the inputs of the frame is computed inside, and only those are side inputs.
    """
    begun = {v.number for v in start}
    depends = _dependents(frame, begun)
    steps: set[int] = set()
    weights: dict[str, walk.Value] = {}
    side: dict[int, walk.Value] = {}
    queue, seen = list(stop), set()
    while queue:
        value = queue.pop()
        if value.number in seen or value.number in begun or value.literal is not None:
            continue
        seen.add(value.number)
        value = frame.first.get(value.number, value)
        step = value.step
        local = step is not None and value.frame is frame
        inside = deep or value.number in depends or value.origin is not None
        if local and inside:
            assert step is not None
            if id(step) not in steps:
                steps.add(id(step))
                queue.extend(step.inputs)
        elif (name := _whole_leaf(found, value)) is not None and name not in weights:
            weights[name] = value
        else:
            side[value.number] = value
    ordered = tuple(s for s in frame.steps if id(s) in steps)
    return Piece(
        found,
        frame,
        tuple(start),
        tuple(stop),
        dict(sorted(weights.items())),
        tuple(side.values()),
        ordered,
    )


def _whole_leaf(found: Found, value: walk.Value) -> str | None:
    """The leaf a value is, as a whole or as one entry of its stack, axes in order."""
    origin = value.origin
    if origin is None or not origin.is_view:
        return None
    (name,) = origin.leaves
    leaf = found.program.leaves[name].aval
    kept = [i for i in range(len(leaf.shape)) if i not in origin.stack]
    plain = [(Atom(i, leaf.shape[i]),) for i in kept]
    return name if list(origin.axes) == plain else None


def _dependents(frame: walk.Frame, begun: set[int]) -> set[int]:
    depends = set(begun)
    for step in frame.steps:
        if any(v.number in depends for v in step.inputs):
            depends.update(v.number for v in step.outputs)
    return depends


def evaluate(
    found: Found,
    frame: walk.Frame,
    wanted: Sequence[walk.Value],
    env: dict[int, Any],
    scope: Scope | None = None,
) -> list[Any]:
    """Computes `wanted` from what `env` holds, running no step that is not needed."""
    needed: set[int] = set()
    queue, seen = list(wanted), set()
    while queue:
        value = queue.pop()
        if value.number in env or value.number in seen or value.literal is not None:
            continue
        seen.add(value.number)
        value = frame.first.get(value.number, value)
        if value.step is None:
            raise ValueError(f"{value} is not available here")
        needed.add(id(value.step))
        queue.extend(value.step.inputs)
    steps = [s for s in frame.steps if id(s) in needed]
    run = Run(found=found)
    run_steps(run, steps, env, scope or Scope((0,) * len(frame.loops), {}))
    return [read(env, v) for v in wanted]


def run_steps(run: Run, steps: Sequence[walk.Step], env: dict[int, Any], scope) -> None:
    """Runs steps one after another in `env` (values by number)."""
    for step in steps:
        operands = [read(env, v) for v in step.inputs]
        outs, _ = run.equation(step.eqn, operands, step.path, scope)
        for value, out in zip(step.outputs, outs, strict=True):
            env.setdefault(value.number, out)


def read(env: Mapping[int, Any], value: walk.Value) -> Any:
    """The value's array: a literal, or from `env`."""
    return value.literal if value.number not in env else env[value.number]


def frames_around(frame: walk.Frame) -> list[walk.Frame]:
    """The frames from the whole program to `frame`.

    Raises:
      NotImplementedError: If one of them is a while loop, a branch or a shard_map.
    """
    chain: list[walk.Frame] = []
    at: walk.Frame | None = frame
    while at is not None:
        chain.insert(0, at)
        at = at.parent
    for inner in chain[1:]:
        if inner.kind != "scan":
            raise NotImplementedError(
                f"cannot cut inside a {inner.kind}: only whole programs and scan bodies"
            )
    return chain


def capture(
    found: Found, frame: walk.Frame, wanted: Sequence[walk.Value], values: Sequence[Any]
) -> list[Any]:
    """Values in the middle of a program, with one leading axis per loop around.

    Args:
      found: The program.
      frame: The frame the wanted values live in.
      wanted: The values.
      values: Flat inputs of the program.
    """
    chain = frames_around(frame)
    env: dict[int, Any] = {}
    for value, array in zip(chain[0].inputs, values, strict=True):
        env[value.number] = array
    _consts(found, env)
    return _capture(found, chain, wanted, env, ())


def _consts(found: Found, env: dict[int, Any]) -> None:
    jaxpr = found.traced.jaxpr
    values = found.program.consts
    for value, array in zip(values, compat.consts_of(jaxpr), strict=True):
        env[value.number] = array


def _capture(found, chain, wanted, env, iterations) -> list[Any]:
    frame, rest = chain[0], chain[1:]
    scope = Scope(iterations, {})
    if not rest:
        return [_dense(v) for v in evaluate(found, frame, wanted, env, scope)]
    child = rest[0]
    step = child.step
    operands = evaluate(found, frame, step.inputs, env, scope)
    first, stop = child.num_consts, child.num_consts + child.num_carry
    env = {**env, **{v.number: a for v, a in zip(step.inputs, operands, strict=True)}}

    def body(carry, slices):
        i, xs = slices
        local = dict(env)
        for value, array in zip(child.inputs[first:stop], carry, strict=True):
            local[value.number] = array
        for value, array in zip(child.inputs[stop:], xs, strict=True):
            local[value.number] = array
        inner = _capture(found, rest, wanted, dict(local), (*iterations, i))
        outs = evaluate(
            found,
            child,
            child.outputs[: child.num_carry],
            local,
            Scope((*iterations, i), {}),
        )
        return [_dense(v) for v in outs], inner

    params = step.eqn.params
    carry = [_dense(v) for v in operands[first:stop]]
    xs = [
        v if not base.is_stored(v) or v.can_index(0) else v.decode()
        for v in operands[stop:]
    ]
    steps = jax.numpy.arange(params["length"])
    _, inner = jax.lax.scan(
        body, carry, (steps, xs), length=params["length"], reverse=params["reverse"]
    )
    return inner


def entry_weights(
    found: Found, piece: Piece, params: Any, index: Sequence[int] = ()
) -> dict[str, Any]:
    """The weights a piece needs, from a params tree.

    Args:
      found: The program.
      piece: The piece.
      params: The params tree.
      index: Iteration of each loop around the piece, outermost first.

    Returns:
      A value per name in ``piece.weights``; one iteration's slices inside a scan.
    """
    leaves = trace.check_params(found.traced, params)
    env: dict[int, Any] = {v.number: leaves[n] for n, v in found.program.leaves.items()}
    frames = piece.frame.loops
    if len(index) != len(frames):
        raise ValueError(f"index has {len(index)} entries for {len(frames)} loops")
    _consts(found, env)
    for frame, i in zip(frames, index, strict=True):
        step, stop = frame.step, frame.num_consts + frame.num_carry
        assert step is not None
        for outer, inner in zip(step.inputs[stop:], frame.inputs[stop:], strict=True):
            if outer.is_weight:
                assert frame.parent is not None
                (array,) = evaluate(found, frame.parent, [outer], env)
                env[inner.number] = slice_stack(array, i)
    return {
        n: evaluate(found, piece.frame, [v], env)[0] for n, v in piece.weights.items()
    }


def slice_stack(array: Any, i: int) -> Any:
    """Entry `i` of a stack, stored or dense."""
    if base.is_stored(array):
        if not array.can_index(0):
            return array.decode()[i]
        return jax.tree.map(lambda a: a[i], array)
    return array[i]


def _bind_input(env, value, array, label) -> None:
    shape = tuple(getattr(array, "shape", ()))
    if shape != value.aval.shape:
        raise ValueError(f"{label} has shape {shape}, expected {value.aval.shape}")
    env[value.number] = array


def _dense(value):
    return value.decode() if base.is_stored(value) else value
