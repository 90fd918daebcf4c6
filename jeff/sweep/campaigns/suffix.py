"""The end of a program as a program of its own, fed with cached activations."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jeff import base
from jeff.program import Cut, Point, evaluation, graph, reach, rewrite, trace
from jeff.program.piece import Piece
from jeff.program.rewrite import Rewritten
from jeff.program.run import Run

__all__ = ["Crossing", "Suffix", "crossing_values", "fit", "rewritten"]


class Crossing(NamedTuple):
    """A value that crosses the cut.

    Attributes:
      value: The value.
      axis: Its axis of examples; ``None`` if it does not depend on the inputs.
    """

    value: graph.Value
    axis: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class Suffix:
    """``apply_suffix(params, *cached) -> logits``: a program from a point to its end.

    Made by `prefix`, which shows it in use.

    Attributes:
      apply: The whole program.
      point: Where the suffix starts.
      params: The params of the whole program, without faults.
      inputs: Shape and dtype of one example of each input.
      names: Leaves that a call is given, by name: those used only in the suffix.
      axes: Axis of examples of every cached value.
      rules: Rules at the sites of the suffix, the first outermost.
    """

    apply: Callable[..., Any]
    point: Point
    params: Any
    inputs: tuple[Any, ...]
    names: frozenset[str]
    axes: tuple[int, ...]
    rules: tuple[base.Rule, ...] = ()

    def __call__(self, params: Mapping[str, Any], *cached: Any) -> jax.Array:
        """Runs the end of the program.

        Args:
          params: Leaves by name, of `names`; dense or stored.
          *cached: The cached activations, each ``[batch, ...]``.

        Returns:
          What the whole program returns.

        Raises:
          ValueError: If `params` has not the leaves of `names`, or the number of
            cached activations is another one.
        """
        return self.run(Run(self.rules), params, cached, {})[0]

    def run(
        self,
        run: Run,
        params: Mapping[str, Any],
        inputs: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> tuple[Any, dict[str, Any]]:
        """Runs the end of the program with other hooks, as `jeff.rewrite`'s does.

        Args:
          run: The hooks, `rules` among them.
          params: Leaves by name, of `names`; dense or stored.
          inputs: The cached activations, each ``[batch, ...]``.
          kwargs: Keyword inputs; a suffix has none.

        Returns:
          ``(out, taps)``: what the whole program returns, and by site's name what its
          tap emitted.

        Raises:
          TypeError: If there are keyword inputs.
          ValueError: As a call.
        """
        if kwargs:
            raise TypeError(f"a suffix takes no keyword inputs: {', '.join(kwargs)}")
        cached = tuple(inputs)
        wrong = sorted(self.names ^ set(params))
        if wrong:
            raise ValueError(
                f"params of a suffix must be its own, got {sorted(params)}: "
                f"{wrong[0]!r} is one too {'many' if wrong[0] in params else 'few'}"
            )
        if len(cached) != len(self.axes):
            raise ValueError(f"expected {len(self.axes)} inputs, got {len(cached)}")
        piece = fit(self.apply, self.point, self.params, self.inputs, len(cached[0]))
        depends = reach.on_inputs(piece.found)
        axes, arrays = iter(self.axes), iter(cached)
        values = []
        for value in (*piece.start, *piece.side):
            array = None
            if value.number in depends:
                array = jnp.moveaxis(next(arrays), 0, next(axes))
            values.append(array)
        self._fill(piece, values)
        known = trace.check_params(piece.found.traced, self.params)
        weights = {n: params.get(n, known[n]) for n in piece.weights}
        n = len(piece.start)
        outs, taps = piece.run(run, weights, values[:n], values[n:])
        return jax.tree.unflatten(piece.found.traced.out_tree, outs), taps

    def with_rules(self, *rules: base.Rule) -> "Suffix":
        """The same with more rules, inside those it has, as `jeff.rewrite` does.

        Args:
          *rules: Rules; sites have the names, uses and keys of the whole program.

        Returns:
          Another suffix.
        """
        return dataclasses.replace(self, rules=(*self.rules, *rules))

    def _fill(self, piece: Piece, values: list[Any]) -> None:
        """Computes the values that do not depend on the inputs."""
        crossing = (*piece.start, *piece.side)
        missing = [i for i, array in enumerate(values) if array is None]
        if not missing:
            return
        avals = piece.found.traced.jaxpr.in_avals
        leaves, _ = jax.tree.flatten(self.params, is_leaf=base.is_stored)
        zeros = [jnp.zeros(a.shape, a.dtype) for a in avals[len(leaves) :]]
        wanted = [crossing[i] for i in missing]
        got = evaluation.capture(piece.found, piece.frame, wanted, [*leaves, *zeros])
        for i, array in zip(missing, got, strict=True):
            values[i] = array


def fit(
    apply: Callable[..., Any],
    point: Point,
    params: Any,
    inputs: Sequence[Any],
    batch: int,
) -> Piece:
    """The sub-program from a point to the end, for a number of examples.

    Args:
      apply: The whole program.
      point: Where to start.
      params: Its params.
      inputs: Shape and dtype of one example of each input (any pytrees).
      batch: Number of examples.

    Returns:
      The sub-program.

    Raises:
      ValueError: If there is no such site, or it lies in a loop or a branch.
    """
    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((batch, *a.shape), a.dtype), tuple(inputs)
    )
    bound = Cut(apply, None, None).at(params, *shapes)
    found = bound.piece.found
    site = found.sites.named(point.site)
    frame = found.steps[site.name].outputs[0].frame
    if frame is not found.program.frame:
        raise ValueError(
            f"site {site.name!r} lies in a {frame.kind}, whose iterations are not told "
            "apart: cut at a site outside of it, or write the loop out"
        )
    return Cut(apply, point, None).at(params, *shapes).piece


def crossing_values(small: Piece, large: Piece, batch: int) -> tuple[Crossing, ...]:
    """The values a suffix starts from, with their axis of examples.

    Args:
      small: The suffix for `batch` examples.
      large: The same for one more.
      batch: The number.

    Returns:
      One per value, in the order of ``piece.start`` and ``piece.side``.

    Raises:
      ValueError: If the program does something else for another number of examples,
        or mixes examples, so that a value has no such axis.
    """
    depends = reach.on_inputs(small.found)
    few, many = (*small.start, *small.side), (*large.start, *large.side)
    if len(few) != len(many):
        raise ValueError(f"the program is another one for {batch + 1} examples")
    found = []
    for value, other in zip(few, many, strict=True):
        axis = None
        if value.number in depends:
            shapes = value.aval.shape, other.aval.shape
            grown = [i for i, (a, b) in enumerate(zip(*shapes, strict=True)) if a != b]
            if len(grown) != 1 or shapes[0][grown[0]] != batch:
                raise ValueError(
                    f"a value of shape {shapes[0]} crosses the cut and has no axis of "
                    f"{batch} examples: the program mixes examples"
                )
            axis = grown[0]
        found.append(Crossing(value, axis))
    return tuple(found)


def rewritten(apply: Callable[..., Any], *rules: base.Rule) -> Suffix | Rewritten:
    """A program with rules at its sites and stored weights allowed, suffixes included.

    Args:
      apply: ``apply(params, *inputs)``, or a `Suffix`.
      *rules: The rules, the first outermost.

    Returns:
      A function of the same signature, whose method `run` takes other hooks.
    """
    if isinstance(apply, Suffix):
        return apply.with_rules(*rules)
    return rewrite(apply, *rules)
