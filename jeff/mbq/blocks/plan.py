"""What is to be done to each block of a stack: which sites, in which groups."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from jeff import base, tree
from jeff.mbq.blocks.leaves import Where
from jeff.mbq.groups.attention_scores import score_sites
from jeff.mbq.groups.infer import Group, infer_groups
from jeff.mbq.groups.spec import GroupSpec
from jeff.program.blocks import Stack

__all__ = ["BlockPlan", "plan_blocks"]


@dataclasses.dataclass(frozen=True, eq=False)
class BlockPlan:
    """What is quantized in some blocks of a stack; names are the template's.

    Attributes:
      stack: The stack.
      block: Number of the first block that it is the plan of.
      sites: Sites whose weights are quantized.
      groups: Groups to be scaled; those that cannot be say why.
      clipped: Those of `sites` whose weights may be clipped.
    """

    stack: Stack
    block: int
    sites: frozenset[str]
    groups: tuple[Group, ...]
    clipped: frozenset[str]

    @property
    def scaled(self) -> list[Group]:
        """The groups that can be scaled."""
        return [g for g in self.groups if g.sources is not None]

    @functools.cached_property
    def inputs(self) -> tuple[Group, ...]:
        """All sites by the input they share, whatever is scaled."""
        return infer_groups(self.stack, lambda site: site.name in self.sites)


def plan_blocks(
    stacks: Sequence[Stack],
    params: Any,
    quantizes: Where,
    clips: Where | None,
    specs: Sequence[GroupSpec] | None,
) -> tuple[tuple[BlockPlan | None, ...], ...]:
    """The plan of every block of every stack; blocks that need the same share one.

    Args:
      stacks: The stacks.
      params: Parameters.
      quantizes: Which sites to quantize, asked block by block.
      clips: Which of them to clip; ``None``: all that feed no attention scores.
      specs: Groups named by hand, then the only ones; inferred if ``None``.

    Returns:
      Per stack and block, a plan, or ``None`` if nothing of the block is quantized.

    Raises:
      ValueError: If a group does not fit the program, or names a site that is
        quantized in no block, or only in part.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff import program
      >>> def apply(p, x):
      ...     for w in p["layers"]:
      ...         x = jnp.tanh(x @ w)
      ...     return x
      >>> params, x = {"layers": [jnp.eye(2)] * 3}, jnp.ones((1, 2))
      >>> stacks = program.blocks(apply, params, x)
      >>> some = lambda site: site.name != "layers.1"
      >>> ((first, second, third),) = plan_blocks(stacks, params, some, None, None)
      >>> first is third, second, first.sites
      (True, None, frozenset({'layers.0'}))
    """
    plans, used = [], set()
    for stack in stacks:
        known = stack.piece.found.sites
        scores = score_sites(stack) if clips is None else frozenset()
        made: dict[Any, BlockPlan] = {}
        row: list[BlockPlan | None] = []
        for block, names in enumerate(stack.names):
            sites = {n: known.named(names[n]) for n in stack.sites}
            chosen = frozenset(n for n, s in sites.items() if quantizes(s))
            clipped = frozenset(
                n
                for n in chosen
                if (n not in scores if clips is None else clips(sites[n]))
            )
            if not chosen:
                row.append(None)
                continue
            if (chosen, clipped) not in made:
                mine = specs
                if specs is not None:
                    mine = [s for s in specs if chosen.intersection(s.sites)]
                    used.update(mine)
                groups = _groups(stack, chosen, mine)
                made[chosen, clipped] = BlockPlan(stack, block, chosen, groups, clipped)
            row.append(made[chosen, clipped])
        plans.append(_foldable(params, stack, row))
    for spec in specs or ():
        if spec not in used:  # says what is wrong with it
            (stack,) = [s for s in stacks if spec.sites[0] in s.sites][:1]
            _groups(stack, frozenset(), [spec])
    return tuple(plans)


def _groups(stack, chosen, specs) -> tuple[Group, ...]:
    return infer_groups(stack, lambda site: site.name in chosen, specs)


def _foldable(params, stack, row) -> tuple[BlockPlan | None, ...]:
    """The plans; a group that would be folded into a stored weight is not scaled."""
    leaves, _ = tree.flatten(params)
    checked: dict[int, BlockPlan] = {}
    for plan in {id(p): p for p in row if p is not None}.values():
        blocks = [r for r, p in zip(stack.leaves, row, strict=True) if p is plan]
        groups = []
        for group in plan.groups:
            owners = [refs[n].name for refs in blocks for n in group.fold]
            stored = sorted({n for n in owners if base.is_stored(leaves[n])})
            if stored:
                note = (
                    f"{', '.join(stored)} is stored already, so nothing folds into it"
                )
                group = dataclasses.replace(group, sources=None, note=note)
            groups.append(group)
        checked[id(plan)] = dataclasses.replace(plan, groups=tuple(groups))
    return tuple(None if p is None else checked[id(p)] for p in row)
