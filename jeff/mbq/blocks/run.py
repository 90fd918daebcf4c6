"""Running one block of a stack, dense or rounded, compiled once per stack."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jeff import base
from jeff.mbq.rounding.activations import quantized_activations
from jeff.program.blocks import Stack

__all__ = ["BlockRun", "activation_rules"]


class BlockRun:
    """The compiled blocks of a stack.

    Attributes:
      enter: ``enter(params, *inputs) -> (state, sides)``: the program up to the first
        block, as `Stack.enter`.
      run: ``run(weights, state, side, *, activation_bits=None) -> state``: one block,
        with dense or stored weights. The inputs of stored ones are quantized, if there
        is a width.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff import program
      >>> apply, params = lambda p, x: x @ p["w"], {"w": jnp.eye(2)}
      >>> stack = program.whole(apply, params, jnp.ones((1, 2)))
      >>> print(BlockRun.of(stack).run(params, (jnp.ones((1, 2)),), ())[0])
      [[1. 1.]]
      >>> BlockRun.of(stack) is BlockRun.of(stack)
      True
    """

    def __init__(self, stack: Stack):
        """Prepares the blocks of a stack.

        Args:
          stack: The stack.
        """
        self._stack = stack
        self.enter = jax.jit(stack.enter)
        self.run = jax.jit(self._run, static_argnames=("activation_bits",))

    @classmethod
    def of(cls, stack: Stack) -> "BlockRun":
        """The blocks of a stack; made once per program.

        Args:
          stack: The stack.

        Returns:
          The same object for the same stack, with what it has compiled.
        """
        memo, key = stack.piece.found.memo, ("block run", id(stack))
        if key not in memo:
            memo[key] = cls(stack)
        return memo[key]

    def _run(
        self,
        weights: Mapping[str, Any],
        state: Sequence[Any],
        side: Sequence[Any],
        *,
        activation_bits: int | None = None,
    ) -> tuple[Any, ...]:
        rules = activation_rules(activation_bits)
        return self._stack.piece(weights, state, side, rules=rules)


def activation_rules(activation_bits: int | None) -> tuple[base.Rule, ...]:
    """The rules with which a rounded program runs.

    Args:
      activation_bits: Width of the activations' codes; ``None`` leaves them alone.

    Returns:
      At most one rule.

    Examples:
      >>> len(activation_rules(8)), activation_rules(None)
      (1, ())
    """
    return () if activation_bits is None else (quantized_activations(activation_bits),)
