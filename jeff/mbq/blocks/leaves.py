"""Which leaves of a program are quantized, and which stay dense and why."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jeff import program
from jeff.program.blocks import Stack

__all__ = ["Where", "leaves_of", "left_dense", "outside", "shared_leaves"]

Where = Callable[[program.Site], bool]
"""A choice of sites, such as `where` and `clip_where` of the methods."""


def leaves_of(stacks: Sequence[Stack], quantizes: Where) -> dict[str, program.Part]:
    """The leaves to quantize, in all blocks.

    Args:
      stacks: The stacks of blocks.
      quantizes: Which sites to quantize.

    Returns:
      How each is contracted, by name.
    """
    return {site.leaf: site.parts[0] for site in _all_sites(stacks) if quantizes(site)}


def shared_leaves(
    apply: Callable[..., Any], params: Any, inputs: tuple[Any, ...], quantizes: Where
) -> dict[str, program.Part]:
    """The leaves of all products of the program, wherever they are.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Parameters.
      inputs: Inputs of a batch.
      quantizes: Which sites to quantize.

    Returns:
      How each is contracted, by name.
    """
    sites = program.sites(apply, params, *inputs)
    return {s.leaf: s.parts[0] for s in sites if quantizes(s)}


def outside(stacks: Sequence[Stack], quantizes: Where) -> tuple[str, ...]:
    """A line per site that was asked for and lies outside of the repeated blocks.

    Args:
      stacks: The stacks of blocks.
      quantizes: Which sites were asked for.

    Returns:
      The lines.
    """
    inside = {s.name for s in _all_sites(stacks)}
    inside |= {s.name for stack in stacks for s in _nested_sites(stack)}
    return tuple(
        f"{site.name} stays dense: it is in no repeated block"
        for site in stacks[0].piece.found.sites
        if site.name not in inside and quantizes(site)
    )


def left_dense(stacks: Sequence[Stack], wanted: Where) -> tuple[str, ...]:
    """A line per weight of a block that cannot be quantized, and why.

    Args:
      stacks: The stacks of blocks.
      wanted: Which sites were asked for.

    Returns:
      The lines.
    """
    notes = []
    for site in _all_sites(stacks):
        why = ""
        if site.kind != "dot":
            why = f"it is used by a {site.kind}"
        elif not site.parts:
            why = f"the weight is computed from {', '.join(site.leaves)}"
        elif len(site.parts) > 1:
            why = f"the weight is {len(site.parts)} leaves side by side"
        if why and wanted(site):
            notes.append(f"{site.name} stays dense: {why}")
    for stack in stacks:
        for site in _nested_sites(stack):
            if wanted(site):
                notes.append(f"{site.name} stays dense: it is in a loop of the block")
    return tuple(dict.fromkeys(notes))


def _all_sites(stacks: Sequence[Stack]) -> Iterator[program.Site]:
    for stack in stacks:
        known = stack.piece.found.sites
        for names in stack.names:
            for name in names.values():
                yield known.named(name)


def _nested_sites(stack: Stack) -> list[program.Site]:
    """Sites in loops and branches of the template block."""
    found = stack.piece.found
    loops = [s.path for s in stack.piece.steps if s.path in found.inside]
    sites = [s for s in found.sites if s.kind != "mark"]
    return [s for s in sites if any(s.path[: len(p)] == p for p in loops)]
