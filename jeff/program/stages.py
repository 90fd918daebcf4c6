"""A program cut at several sites into stages that run one after another."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jeff.program import evaluation, graph, reach, trace
from jeff.program import piece as piece_lib
from jeff.program.sites import Found, find

__all__ = ["Stages", "stages"]


@dataclasses.dataclass(frozen=True, eq=False)
class Stages:
    """Consecutive stages of a program, the first up to the output of the first site.

    Attributes:
      found: The program.
      sites: Names of the sites, in program order.
      live: Per site, the values that are needed after it; the site's output first.
      pieces: One more than sites: what computes the next live values from the last
        ones, then the program's outputs.
    """

    found: Found
    sites: tuple[str, ...]
    live: tuple[tuple[graph.Value, ...], ...]
    pieces: tuple[piece_lib.Piece, ...]

    def run(self, stage: int, params: Any, values: Sequence[Any]) -> tuple[Any, ...]:
        """Runs one stage.

        Args:
          stage: Its number.
          params: Params tree; leaves may be stored.
          values: The flat inputs of the program for stage 0, else what the stage
            before returned.

        Returns:
          The live values after it, or the program's flat outputs.
        """
        piece = self.pieces[stage]
        leaves = trace.check_params(self.found.traced, params)
        env: dict[int, Any] = {}
        evaluation.constants(self.found, env)
        env.update({v.number: leaves[n] for n, v in self.found.program.leaves.items()})
        weights = {n: leaves[n] for n in piece.weights}
        return piece(weights, values, [env[v.number] for v in piece.side])


def stages(
    apply: Callable[..., Any], sites: Sequence[str], params: Any, *inputs: Any
) -> Stages:
    """Cuts a program behind each of some sites.

    What depends on params only is computed again in every stage that needs it, so that
    the live values are activations.

    Args:
      apply: ``apply(params, *inputs)``.
      sites: Names of sites outside loops and branches, in any order.
      params: Params tree; leaves may be stored, or shapes only.
      *inputs: Inputs, or their shapes.

    Returns:
      The stages, in program order.

    Raises:
      ValueError: If there is no such site, it is named twice, or lies in a loop or a
        branch.

    Examples:
      >>> import jax.numpy as jnp
      >>> def mlp(p, x):
      ...     return jnp.tanh(x @ p["up"]) @ p["down"] + x
      >>> params, x = {"up": jnp.eye(2), "down": 2 * jnp.eye(2)}, jnp.zeros((1, 2))
      >>> cut = stages(mlp, ["up"], params, x)
      >>> hidden, residual = cut.run(0, params, [x])
      >>> print(cut.run(1, params, [hidden + 9, residual])[0].round())
      [[2. 2.]]
    """
    found = find(trace.tracer_of(apply).trace(params, inputs, {}))
    frame = found.program.frame
    position = {id(step): i for i, step in enumerate(frame.steps)}
    places = []
    for name in sites:
        step = found.steps[found.sites.named(name).name]
        kind = step.outputs[0].frame.kind
        if id(step) not in position:
            raise ValueError(
                f"site {name!r} lies in a {kind}, whose iterations are not told apart"
            )
        places.append((position[id(step)], name))
    if len({name for _, name in places}) != len(places):
        raise ValueError(f"sites names a site twice: {list(sites)}")
    order = tuple(name for _, name in sorted(places))
    depends = reach.on_inputs(found)
    live = tuple(_live(found, name, position, depends) for name in order)
    starts = (frame.inputs[len(found.traced.names) :], *live)
    stops = (*live, frame.outputs)
    pieces = tuple(
        piece_lib.make_piece(found, frame, start, stop, deep=True)
        for start, stop in zip(starts, stops, strict=True)
    )
    return Stages(found, order, live, pieces)


def _live(found, name, position, depends) -> tuple[graph.Value, ...]:
    """Activations that are known behind a site and needed later, its output first."""
    frame, step = found.program.frame, found.steps[name]
    end = position[id(step)] + 1
    known: dict[int, graph.Value] = {}
    for value in (*frame.inputs, *(v for s in frame.steps[:end] for v in s.outputs)):
        if value.number in depends:
            known.setdefault(value.number, value)
    later = [v for s in frame.steps[end:] for v in s.inputs]
    needed = {v.number for v in (*later, *frame.outputs)}
    output = step.outputs[0].number
    return (
        known[output],
        *(v for n, v in known.items() if n in needed and n != output),
    )
