"""The Hessians of a block: one per distinct input, shared by the sites that read it."""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jeff import program
from jeff.mbq.blocks.inputs import BlockInputs
from jeff.mbq.blocks.plan import BlockPlan
from jeff.mbq.gptq.hessian import activation_hessian
from jeff.mbq.running_mean import RunningMean

__all__ = ["StackHessians"]


class StackHessians(BlockInputs):
    """The compiled Hessians of a stack's blocks.

    Attributes:
      measure: ``measure(weights, state, side, tokens) -> (RunningMean, ...)``: the
        Hessians of one batch, `tokens` being a weight ``[B, N]`` or ``None`` per input.
    """

    def __init__(self, plan: BlockPlan, parts: Mapping[str, program.Part]):
        """Prepares the functions of a plan.

        Args:
          plan: What is quantized.
          parts: The leaves to quantize and their axes, by the names in the params.
        """
        super().__init__(plan, parts)
        self.measure = jax.jit(self._measure)

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
        means = []
        operands = self.operands(weights, state, side)
        for x, view, a in zip(operands, self._views, tokens, strict=True):
            batch = len(view.batch)
            if a is not None:
                rows = a.reshape(x.shape[batch:-1])
                a = jnp.broadcast_to(rows, x.shape[:-1])
            means.append(activation_hessian(x, a, batch_axes=batch))
        return tuple(means)
