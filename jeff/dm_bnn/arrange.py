"""How a program's voters will be drawn: its levels, its tree, the way of every leaf."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jeff import tree
from jeff.dm_bnn.chunks import words_of_voter
from jeff.dm_bnn.flipout import layout
from jeff.dm_bnn.levels import Levels, levels
from jeff.dm_bnn.mean_field import MeanField
from jeff.dm_bnn.ways import Ways, ways_of
from jeff.program import trace
from jeff.program.presentation import Presentation
from jeff.program.site import Site
from jeff.program.sites import find

__all__ = ["Arrangement", "arrange"]


class Arrangement(NamedTuple):
    """How voters are drawn.

    Attributes:
      voters: Branches at each level, one number per level of the program.
      levels: Where every random leaf stands.
      ways: How each is drawn.
      views: By site, how it presents itself.
      sites: The program's sites.
      words: That one voter holds at a time, see `jeff.dm_bnn.chunks`.
    """

    voters: tuple[int, ...]
    levels: Levels
    ways: Ways
    views: Mapping[str, Presentation]
    sites: tuple[Site, ...]
    words: int


def arrange(
    apply: Callable[..., Any],
    posterior: Any,
    x: Any,
    *,
    voters: int | Sequence[int],
    mode: str,
    shared: bool = False,
    approximate: bool = False,
    joint: bool = False,
) -> Arrangement:
    """Reads a program and arranges its voters.

    Args:
      apply: ``apply(params, x)``.
      posterior: Its params, or their shapes.
      x: Its input, or shapes.
      voters: Branches at each level.
      mode: As in `predict`.
      shared: As in `predict`.
      approximate: As in `predict`.
      joint: As in `predict`.

    Returns:
      The arrangement.

    Raises:
      ValueError: As `predict`.
      TypeError: If a number of voters is no whole number.
    """
    leaves, _ = tree.flatten(posterior)
    random = {n: a.shape for n, a in leaves.items() if isinstance(a, MeanField)}
    if not random:
        raise ValueError(
            "posterior has no random leaf: make some with dm_bnn.posterior(params, std)"
        )
    found = find(trace.tracer_of(apply).trace(posterior, (x,), {}))
    read = levels(found, random)
    branches = _branches(voters, read.number)
    examples = {a.shape[0] for a in jax.tree.leaves(x) if getattr(a, "shape", ())}
    ways = ways_of(
        mode, read, found.sites, branches, examples=examples, approximate=approximate,
        shared=shared,
    )  # fmt: skip
    views = {site.name: view for site, view in found.by_path.values()}
    if joint:
        _refuse_apart(mode, ways, views)
    sizes = {name: math.prod(shape) for name, shape in random.items()}
    words = words_of_voter(read, ways, found.sites, sizes)
    return Arrangement(branches, read, ways, views, tuple(found.sites), words)


def _refuse_apart(mode: str, ways: Ways, views: Mapping[str, Presentation]) -> None:
    """Refuses noise per example where several examples must have it in common."""
    for name, way in ways.sites.items():
        shape = views[name].x_shape
        examples = shape[layout(views[name]).x[0]] if len(shape) > 1 else 1
        if way in ("lrt", "flipout") and examples > 1:
            raise ValueError(
                f"mode={mode!r} gives each example noise of its own, and joint=True "
                f"asks for outputs of the same weights: the input {shape} of {name!r} "
                f"has {examples} examples; take mode='best'"
            )


def _branches(voters: int | Sequence[int], number: int) -> tuple[int, ...]:
    """Branches at each of the program's levels."""
    given = (voters,) if not isinstance(voters, Sequence) else tuple(voters)
    try:
        given = tuple(operator.index(t) for t in given)
    except TypeError as error:
        raise TypeError(f"voters must be whole numbers, got {voters!r}") from error
    if not given or min(given) < 1:
        raise ValueError(f"voters must be positive, got {voters!r}")
    if any(t > 1 for t in given[number:]):
        raise ValueError(
            f"voters {voters!r} has branches at level "
            f"{max(i for i, t in enumerate(given, 1) if t > 1)}, but random weights "
            f"are only {number} deep in this program"
        )
    return (*given, *[1] * number)[:number]
