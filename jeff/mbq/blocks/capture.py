"""Values inside of a block, computed from what enters it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jeff import base
from jeff.program import graph, piece
from jeff.program.blocks import Stack

__all__ = ["Capture"]


class Capture:
    """A pure function from a block's weights and inputs to values inside of it.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff import program
      >>> apply = lambda p, x: jnp.tanh(x @ p["w"])
      >>> params, x = {"w": jnp.eye(2)}, jnp.ones((1, 2))
      >>> block = program.whole(apply, params, x)
      >>> before = block.piece.found.steps["w"].outputs[0]
      >>> print(Capture(block, [before])(params, (x,), ())[0])
      [[1. 1.]]
    """

    def __init__(self, stack: Stack, wanted: Sequence[graph.Value]):
        """Cuts the template block.

        Args:
          stack: The stack of blocks.
          wanted: Values of its template, each as often as it is wanted.
        """
        self._piece = piece.make_piece(
            stack.piece.found,
            stack.piece.frame,
            stack.piece.start,
            wanted,
            deep=stack.iterations[0] is not None,
        )
        place = {v.number: i for i, v in enumerate(stack.piece.side)}
        self._side = [place[v.number] for v in self._piece.side]

    def __call__(
        self,
        weights: Mapping[str, Any],
        state: Sequence[Any],
        side: Sequence[Any],
        rules: Sequence[base.Rule] = (),
    ) -> tuple[jax.Array, ...]:
        """Runs as much of a block as is needed.

        Args:
          weights: The block's weights.
          state: The state before it.
          side: Its side inputs.
          rules: Rules for the sites inside; values are those before the rules act.

        Returns:
          The values.
        """
        own = [side[i] for i in self._side]
        return self._piece(weights, state, own, rules=rules)
