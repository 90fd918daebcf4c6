"""A piece of a program between two points, as a pure function of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jeff import base
from jeff.program import evaluation, graph, reach, trace
from jeff.program.origin import Atom
from jeff.program.run import Run, Scope
from jeff.program.sites import Found

__all__ = ["Piece", "entry_weights", "make_piece"]


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

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff.program.cut import cut
      >>> def mlp(p, x):
      ...     return jnp.cos(x @ p["up"]) @ p["down"]
      >>> params, x = {"up": jnp.eye(2), "down": jnp.eye(2)}, jnp.zeros(2)
      >>> piece = cut(mlp, "down", "down").at(params, x).piece
      >>> piece.sites(), list(piece.weights)
      (('down',), ['down'])
      >>> print(piece({"down": 3 * jnp.eye(2)}, [jnp.ones(2)])[0])
      [3. 3.]
    """

    found: Found
    frame: graph.Frame
    start: tuple[graph.Value, ...]
    stop: tuple[graph.Value, ...]
    weights: Mapping[str, graph.Value]
    side: tuple[graph.Value, ...]
    steps: tuple[graph.Step, ...]

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
        return self.run(Run(tuple(rules)), weights, x, side)[0]

    def run(
        self,
        run: Run,
        weights: Mapping[str, Any],
        x: Sequence[Any],
        side: Sequence[Any] = (),
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Runs the piece with other hooks.

        Args:
          run: The hooks.
          weights: A value per name in `self.weights`; dense or stored.
          x: A value per entry of `self.start`.
          side: A value per entry of `self.side`.

        Returns:
          ``(outs, taps)``: a value per entry of `self.stop`, and by site's name what
          its tap emitted.

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
        run.found = self.found
        scope = Scope((0,) * len(self.frame.loops), {})
        taps = evaluation.run_steps(run, self.steps, env, scope)
        outs = (evaluation.dense(evaluation.read(env, v)) for v in self.stop)
        return tuple(outs), taps

    def sites(self) -> tuple[str, ...]:
        """Names of the sites inside, which have weights.

        Returns:
          The names, in program order.
        """
        at = self.found.by_path
        return tuple(at[s.path][0].name for s in self.steps if s.path in at)

    def marks(self) -> tuple[str, ...]:
        """Names of the marks inside.

        Returns:
          The names, in program order.
        """
        at = self.found.marks
        return tuple(at[s.path].name for s in self.steps if s.path in at)


def make_piece(
    found: Found,
    frame: graph.Frame,
    start: Sequence[graph.Value],
    stop: Sequence[graph.Value],
    *,
    deep: bool = False,
) -> Piece:
    """The piece of `frame` from `start` to `stop`.

    Whatever `stop` needs that does not depend on `start` becomes a weight (a
    parameter leaf or an entry of its stack, else unchanged), a side input (an
    activation), or is computed inside (what depends on parameters and constants
    only).

    Args:
      found: The program.
      frame: The frame.
      start: Values of it to start from.
      stop: Values of it to end with.
      deep: Whether to compute inside everything that can be computed from the inputs
        of the frame, so that only those are side inputs.

    Returns:
      The piece.
    """
    begun = {v.number for v in start}
    depends = reach.dependents(frame, begun)
    steps: set[int] = set()
    weights: dict[str, graph.Value] = {}
    side: dict[int, graph.Value] = {}
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


def _whole_leaf(found: Found, value: graph.Value) -> str | None:
    """The leaf a value is, as a whole or as one entry of its stack, axes in order."""
    origin = value.origin
    if origin is None or not origin.is_view:
        return None
    (name,) = origin.leaves
    leaf = found.program.leaves[name].aval
    kept = [i for i in range(len(leaf.shape)) if i not in origin.stack]
    plain = [(Atom(i, leaf.shape[i]),) for i in kept]
    return name if list(origin.axes) == plain else None


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

    Raises:
      ValueError: If `params` has not the leaves the program was traced with, or
        `index` not one entry per loop.
    """
    leaves = trace.check_params(found.traced, params)
    env: dict[int, Any] = {v.number: leaves[n] for n, v in found.program.leaves.items()}
    frames = piece.frame.loops
    if len(index) != len(frames):
        raise ValueError(f"index has {len(index)} entries for {len(frames)} loops")
    evaluation.constants(found, env)
    for frame, i in zip(frames, index, strict=True):
        step, stop = frame.step, frame.num_consts + frame.num_carry
        assert step is not None
        for outer, inner in zip(step.inputs[stop:], frame.inputs[stop:], strict=True):
            if outer.is_weight:
                assert frame.parent is not None
                (array,) = evaluation.evaluate(found, frame.parent, [outer], env)
                env[inner.number] = _entry(array, i)
    return {
        n: evaluation.evaluate(found, piece.frame, [v], env)[0]
        for n, v in piece.weights.items()
    }


def _entry(array: Any, i: int) -> Any:
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
