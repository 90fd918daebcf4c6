"""The inputs of a block's weights: one per distinct input, shared by its readers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jeff import program
from jeff.mbq.blocks.capture import Capture
from jeff.mbq.blocks.plan import BlockPlan
from jeff.mbq.calibration.batches import fits_tokens
from jeff.mbq.groups.infer import weight_of
from jeff.mbq.rounding.entries import entry_axes

__all__ = ["BlockInputs", "Channels"]


class Channels(NamedTuple):
    """Which inputs a weight is multiplied with.

    Attributes:
      inputs: Per such input, its number and, per channel of the weight, the channel of
        the input ``[K]``.
      contract_axes: Contracted axes of a block's weight.
      stack_axes: Axes of it of which each entry has an input of its own.
      why_not: Why they are not known; empty if they are.
    """

    inputs: tuple[tuple[int, np.ndarray], ...]
    contract_axes: tuple[int, ...]
    stack_axes: tuple[int, ...]
    why_not: str


class BlockInputs:
    """The distinct inputs of the weights that a plan quantizes.

    Attributes:
      stack: The stack of blocks.
      groups: Per input, the group of sites that share it (twice the same where experts
        and others read one).
      leaves: Per weight to be quantized, by the template's names, its channels.
    """

    def __init__(self, plan: BlockPlan, parts: Mapping[str, program.Part]):
        """Finds the inputs.

        Args:
          plan: What is quantized.
          parts: The leaves to quantize and their axes, by the names in the params.
        """
        self.stack = stack = plan.stack
        found = stack.piece.found
        self._number: dict[str, int] = {}  # of the input, by site
        distinct: dict[Any, int] = {}
        members, operands = [], []
        for group in plan.inputs:
            for site in group.sites:
                step = found.steps[site]
                view = found.by_path[step.path][1]
                key = (group.sites, view.batch, view.k)
                if key not in distinct:
                    distinct[key] = len(distinct)
                    members.append((group, view))
                    operands.append(step.inputs[1 - weight_of(step)])
                self._number[site] = distinct[key]
        self.groups = tuple(group for group, _ in members)
        self._views = [view for _, view in members]
        self._capture = Capture(stack, operands)
        self.leaves = {
            name: self._channels(name, parts[ref.name], ref.axis)
            for name, ref in stack.leaves[plan.block].items()
            if ref.name in parts
        }

    @classmethod
    def of(cls, plan: BlockPlan, parts: Mapping[str, program.Part]):
        """The object of a plan; made once per program and choice of sites.

        Args:
          plan: What is quantized.
          parts: The leaves to quantize and their axes.

        Returns:
          The same object for the same stack and sites, with what it has compiled.
        """
        memo = plan.stack.piece.found.memo
        key = (cls.__name__, id(plan.stack), plan.sites)
        if key not in memo:
            memo[key] = cls(plan, parts)
        return memo[key]

    def check_tokens(self, tokens: Sequence[int], why: str) -> None:
        """Refuses masks that do not fit the inputs of the sites.

        Args:
          tokens: Shape of the masks, ``(B, N)``.
          why: Which setting weighs tokens, and how not to.

        Raises:
          ValueError: If an input has not one row per token; the site is named.
        """
        for group, view in zip(self.groups, self._views, strict=True):
            shape = view.x_shape[len(view.batch) :]
            if not fits_tokens(shape, tokens):
                raise ValueError(
                    f"masks must have a token for every row of the input of site "
                    f"{group.sites[0]!r}, which has shape {shape}; got masks of shape "
                    f"{tuple(tokens)} (leave the site out with where, or {why})"
                )

    def operands(
        self, weights: Mapping[str, Any], state: Sequence[Any], side: Sequence[Any]
    ) -> list[jax.Array]:
        """The inputs, computed from what enters the block.

        Args:
          weights: The block's weights.
          state: The state before it.
          side: Its side inputs.

        Returns:
          ``[*batch, ..., K]`` per input.
        """
        got = self._capture(weights, state, side)
        return [view.x_view(x) for x, view in zip(got, self._views, strict=True)]

    def _channels(self, name: str, part: program.Part, axis: int | None) -> Channels:
        contract = entry_axes(part.contract_axes, axis)
        found = self.stack.piece.found
        value = self.stack.piece.weights[name]
        shape, stacked = value.aval.shape, entry_axes(part.stack_axes, axis)
        inputs: dict[int, np.ndarray] = {}
        why_not = "it is multiplied with no activation of the block"
        for site, i in self._number.items():
            if name not in found.sites.named(site).leaves:
                continue
            step, view = found.steps[site], self._views[i]
            index = _order(self.groups[i].targets.get(name), shape, contract)
            why_not = ""
            if index is None or sorted(index) != list(range(view.k)):
                why_not = (
                    "its input channels do not match those of the input one to one"
                )
            elif view.batch:
                operand = step.inputs[weight_of(step)]
                own = found.by_path[step.path][1].w_permutation[: len(view.batch)]
                same = operand.root.number == value.root.number
                same &= operand.aval.shape == shape  # else another shape of the leaf
                if not same or stacked not in ((), own):
                    why_not = "which of its entries meets which input is not known"
                stacked = own
            elif stacked:
                why_not = "each input is multiplied with only one of its entries"
            if why_not or index is None:
                break
            inputs[i] = index
        return Channels(tuple(inputs.items()), contract, stacked, why_not)


def _order(found: Any, shape: Sequence[int], contract: Sequence[int]):
    """The channel of every entry along the flattened contraction axes, or ``None``."""
    if found is None:
        return None
    index = np.asarray(found.index)
    index = index.reshape((1,) * (len(shape) - index.ndim) + index.shape)
    others = tuple(a for a in range(len(shape)) if a not in contract)
    low = index.min(axis=others, keepdims=True)
    if (low != index.max(axis=others, keepdims=True)).any():
        return None
    wide = [n if a in contract else 1 for a, n in enumerate(shape)]
    low = np.broadcast_to(low, wide).transpose((*contract, *others))
    return low.reshape(-1)
