"""The Hessians of a block: one per distinct input, shared by the sites that read it."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import program
from jeff.mbq.calibration import fits_tokens
from jeff.mbq.capture import Capture
from jeff.mbq.groups import Group, weight_of
from jeff.mbq.hessian import activation_hessian
from jeff.mbq.rounding import entry_axes
from jeff.mbq.running_mean import RunningMean
from jeff.program.blocks import Stack

__all__ = ["Channels", "StackHessians"]


class Channels(NamedTuple):
    """Which Hessian belongs to a weight.

    Attributes:
      inputs: Per input that the weight is multiplied with, the number of its Hessian
        and, per channel of the weight, the channel of the input ``[K]``.
      contract_axes: Contracted axes of a block's weight.
      stack_axes: Axes of it of which each entry has a Hessian of its own.
      why_not: Why there is no Hessian for it; empty if there is one.
    """

    inputs: tuple[tuple[int, np.ndarray], ...]
    contract_axes: tuple[int, ...]
    stack_axes: tuple[int, ...]
    why_not: str


class StackHessians:
    """The compiled Hessians of a stack's blocks.

    Attributes:
      stack: The stack of blocks.
      groups: Per Hessian, the group of sites that share its input (twice the same
        where experts and others read one).
      leaves: Per weight to be quantized, by the template's names, its channels.
      measure: ``measure(weights, state, side, tokens) -> (RunningMean, ...)``: the
        Hessians of one batch, `tokens` being a weight ``[B, N]`` or ``None`` per group.
    """

    def __init__(
        self,
        stack: Stack,
        groups: Sequence[Group],
        parts: Mapping[str, program.Part],
    ):
        """Prepares the functions of a stack.

        Args:
          stack: The stack the groups were inferred from.
          groups: The groups.
          parts: The leaves to quantize and their axes, by the names in the params.
        """
        self.stack = stack
        found = stack.piece.found
        self._inputs: dict[str, int] = {}  # by site
        distinct: dict[Any, int] = {}
        members, operands = [], []
        for group in groups:
            for site in group.sites:
                step = found.steps[site]
                view = found.by_path[step.path][1]
                key = (group.sites, view.batch, view.k)
                if key not in distinct:
                    distinct[key] = len(distinct)
                    members.append((group, view))
                    operands.append(step.inputs[1 - weight_of(step)])
                self._inputs[site] = distinct[key]
        self.groups = tuple(group for group, _ in members)
        self._views = [view for _, view in members]
        self._capture = Capture(stack, operands)
        self.leaves = {
            name: self._channels(name, parts[ref.name], ref.axis)
            for name, ref in stack.leaves[0].items()
            if ref.name in parts
        }
        self.measure = jax.jit(self._measure)

    @classmethod
    def of(
        cls,
        stack: Stack,
        groups: Sequence[Group],
        parts: Mapping[str, program.Part],
    ) -> "StackHessians":
        """The Hessians of a stack; made once per program and choice of sites.

        Args:
          stack: The stack.
          groups: Its groups.
          parts: The leaves to quantize and their axes.

        Returns:
          The same object for the same stack and sites, with what it has compiled.
        """
        memo = stack.piece.found.memo
        key = ("gptq", id(stack), tuple(g.sites for g in groups))
        if key not in memo:
            memo[key] = cls(stack, groups, parts)
        return memo[key]

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """Refuses masks that do not fit the inputs of the sites.

        Args:
          tokens: Shape of the masks, ``(B, N)``.

        Raises:
          ValueError: If an input has not one row per token; the site is named.
        """
        for group, view in zip(self.groups, self._views, strict=True):
            shape = view.x_shape[len(view.batch) :]
            if not fits_tokens(shape, tokens):
                raise ValueError(
                    f"masks must have a token for every row of the input of site "
                    f"{group.sites[0]!r}, which has shape {shape}; got masks of shape "
                    f"{tuple(tokens)} (leave the site out with where, or set "
                    "weighted_hessian=False)"
                )

    def hessian(self, name: str, means: Sequence[RunningMean]) -> jax.Array:
        """The Hessian of one weight.

        Args:
          name: A weight of `leaves` that has one.
          means: From `measure`, merged over batches.

        Returns:
          float32 ``[*stack, K, K]`` in the weight's order of channels, the sum over the
          inputs it is multiplied with.
        """
        parts = [
            means[i].value[..., index[:, None], index[None, :]]
            if (np.diff(index) != 1).any()
            else means[i].value
            for i, index in self.leaves[name].inputs
        ]
        return functools.reduce(jnp.add, parts)

    def _measure(self, weights, state, side, tokens) -> tuple[RunningMean, ...]:
        operands = self._capture(weights, state, side)
        means = []
        for x, view, a in zip(operands, self._views, tokens, strict=True):
            x, batch = view.x_view(x), len(view.batch)
            if a is not None:
                rows = a.reshape(x.shape[batch:-1])
                a = jnp.broadcast_to(rows, x.shape[:-1])
            means.append(activation_hessian(x, a, batch_axes=batch))
        return tuple(means)

    def _channels(self, name: str, part: program.Part, axis: int | None) -> Channels:
        contract = entry_axes(part.contract_axes, axis)
        found = self.stack.piece.found
        value = self.stack.piece.weights[name]
        shape, stacked = value.aval.shape, entry_axes(part.stack_axes, axis)
        inputs: dict[int, np.ndarray] = {}
        why_not = "it is multiplied with no activation of the block"
        for site, i in self._inputs.items():
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
