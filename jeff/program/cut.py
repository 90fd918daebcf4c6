"""Cutting the sub-program between two points out of a program."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jeff import base
from jeff.program import evaluation, trace, walk
from jeff.program import piece as piece_lib
from jeff.program.site import Site
from jeff.program.sites import Found, find

__all__ = ["BoundCut", "Cut", "Point", "after", "before", "cut"]


class Point(NamedTuple):
    """A point of a program.

    Attributes:
      site: Name of a site, which may be a mark.
      end: ``"input"`` (the activation it multiplies, before any cast) or
        ``"output"``.

    Examples:
      >>> before("layers.up")
      Point(site='layers.up', end='input')
    """

    site: str
    end: str


def before(site: "str | Site") -> Point:
    """The point where a site's input is ready.

    Args:
      site: A site, or its name.

    Returns:
      The point.
    """
    return Point(_name(site), "input")


def after(site: "str | Site") -> Point:
    """The point where a site's output is ready.

    Args:
      site: A site, or its name.

    Returns:
      The point.
    """
    return Point(_name(site), "output")


def cut(
    apply: Callable[..., Any],
    start: "Point | str | None",
    stop: "Point | str | None",
) -> "Cut":
    """The sub-program between two points, with its side inputs found and captured.

    Under a scan it is the body of one iteration. This is what a scale search runs,
    what "start at the faulty layer" runs, and what block-by-block work runs.

    Args:
      apply: ``apply(params, *inputs, **kwargs)``.
      start: Where to start: a `Point`, a site's name (its input), or ``None`` for the
        inputs of the program.
      stop: Where to stop: a `Point`, a site's name (its output), or ``None`` for the
        outputs of the program.

    Returns:
      A `Cut`; ``.at(params, *inputs)`` fits it to shapes.

    Raises:
      ValueError: If a point's end is neither ``"input"`` nor ``"output"``.

    Examples:
      >>> import jax.numpy as jnp
      >>> def mlp(p, x):
      ...     return jnp.tanh(x @ p["up"]) @ p["down"] + x
      >>> params = {"up": jnp.eye(2), "down": 2 * jnp.eye(2)}
      >>> piece = cut(mlp, before("down"), None).at(params, jnp.ones((1, 2)))
      >>> h, side = piece.capture(params, jnp.ones((1, 2)))
      >>> print(piece(piece.weights(params), 0 * h, side))  # the residual is a side
      [[1. 1.]]
    """
    return Cut(apply, _point(start, "input"), _point(stop, "output"))


@dataclasses.dataclass(frozen=True)
class Cut:
    """A pair of points of a program, not yet fitted to shapes.

    Attributes:
      apply: The program.
      start: Where to start; ``None``: at its inputs.
      stop: Where to stop; ``None``: at its outputs.
    """

    apply: Callable[..., Any]
    start: Point | None
    stop: Point | None

    def at(self, params: Any, *inputs: Any, **kwargs: Any) -> "BoundCut":
        """Finds the sub-program for arguments of these shapes.

        Args:
          params: Params tree; leaves may be stored, or shapes only.
          *inputs: Inputs of the whole program, or their shapes.
          **kwargs: Keyword inputs.

        Returns:
          The sub-program.

        Raises:
          ValueError: If a site does not exist, the points lie in different loops, or
            `stop` does not depend on `start`.
          NotImplementedError: If a point lies inside a while loop or a branch.
        """
        found = find(trace.tracer_of(self.apply).trace(params, inputs, kwargs))
        frames = [_frame(found, p) for p in (self.start, self.stop) if p is not None]
        if None in (self.start, self.stop):
            frames.append(found.program.frame)
        if any(f is not frames[0] for f in frames):
            raise ValueError(
                f"{self.start} and {self.stop} do not lie in the same loop body"
            )
        frame = frames[0]
        evaluation.frames_around(frame)
        start = _start_values(found, self.start, params)
        stop = (
            [found.steps[self.stop.site].outputs[0]]
            if self.stop and self.stop.end == "output"
            else [_input(found, self.stop)]
            if self.stop
            else list(frame.outputs)
        )
        made = piece_lib.make_piece(found, frame, start, stop)
        if self.start is not None and not _reaches(made):
            raise ValueError(f"{self.stop} does not depend on {self.start}")
        return BoundCut(made, self.start is not None, self.stop is not None)


@dataclasses.dataclass(frozen=True, eq=False)
class BoundCut:
    """A sub-program fitted to shapes: ``y = cut(weights, x, side)``.

    Made by `Cut.at`; the example at `cut` shows it in use.

    Attributes:
      piece: The sub-program.
      single_start: Whether it starts at a point, so that `x` is one array.
      single_stop: Whether it stops at a point, so that it returns one array.
    """

    piece: piece_lib.Piece
    single_start: bool
    single_stop: bool

    def __call__(
        self,
        weights: Mapping[str, Any],
        x: Any,
        side: Sequence[Any] = (),
        *,
        rules: Sequence[base.Rule] = (),
    ) -> Any:
        """Runs the sub-program.

        Args:
          weights: From `weights`, or changed ones of the same shapes.
          x: The value at `start` (a tuple of the program's inputs for ``None``).
          side: From `capture`.
          rules: Rules for the sites inside.

        Returns:
          The value at `stop` (the program's output for ``None``).

        Raises:
          ValueError: If a weight is missing or a value has another shape.
        """
        outs = self.piece(weights, (x,) if self.single_start else x, side, rules=rules)
        if self.single_stop:
            return outs[0]
        return jax.tree.unflatten(self.piece.found.traced.out_tree, outs)

    def weights(self, params: Any, index: Sequence[int] = ()) -> dict[str, Any]:
        """The weights it uses.

        Args:
          params: Params tree; leaves may be stored.
          index: Iteration of each loop around the cut, outermost first.

        Returns:
          Weights by name of the leaf: inside a scan, the entries of one iteration.

        Raises:
          ValueError: If `params` has not the leaves the program was traced with, or
            `index` not one entry per loop.
        """
        return piece_lib.entry_weights(self.piece.found, self.piece, params, index)

    def capture(self, params: Any, *inputs: Any, **kwargs: Any) -> tuple[Any, tuple]:
        """Runs the program up to the cut.

        Args:
          params: Params tree; leaves may be stored.
          *inputs: Inputs of the whole program.
          **kwargs: Keyword inputs.

        Returns:
          ``(x, side)``: the value at `start` and the side inputs, each with one
          leading axis per scan around the cut.

        Raises:
          ValueError: If `params` has not the leaves the program was traced with.
        """
        piece = self.piece
        trace.check_params(piece.found.traced, params)
        values = trace.program_inputs(params, inputs, kwargs)
        wanted = [*piece.start, *piece.side]
        got = evaluation.capture(piece.found, piece.frame, wanted, values)
        n = len(piece.start)
        x = got[0] if self.single_start else tuple(got[:n])
        return x, tuple(got[n:])


def _name(site: "str | Site") -> str:
    return site if isinstance(site, str) else site.name


def _point(point: "Point | str | None", end: str) -> Point | None:
    if point is None or isinstance(point, Point):
        if point is not None and point.end not in ("input", "output"):
            raise ValueError(f"a point's end is 'input' or 'output', got {point.end!r}")
        return point
    return Point(_name(point), end)


def _frame(found: Found, point: Point) -> walk.Frame:
    found.sites.named(point.site)
    return found.steps[point.site].outputs[0].frame


def _input(found: Found, point: Point) -> walk.Value:
    step = found.steps[point.site]
    if step.kind == "mark":
        return step.inputs[0]
    _, view = found.by_path[step.path]
    value = step.inputs[view.activation]
    return value.root if value.root.frame is value.frame else value


def _start_values(found, point, params) -> list[walk.Value]:
    if point is None:
        return list(found.program.frame.inputs[len(found.traced.names) :])
    if point.end == "input":
        return [_input(found, point)]
    return [found.steps[point.site].outputs[0]]


def _reaches(made: piece_lib.Piece) -> bool:
    begun = {v.number for v in made.start}
    used = {v.number for s in made.steps for v in s.inputs}
    return bool(begun & (used | {v.number for v in made.stop}))
