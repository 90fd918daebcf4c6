"""What voters cost, read from the program that makes them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff.dm_bnn.predict import predict
from jeff.program import Count, count

__all__ = ["Prices", "TreeCost", "tree_cost", "voter_count"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prices:
    """What one operation costs, in any one unit: joules, seconds, or products.

    Attributes:
      multiplication: Of one product.
      addition: Of one sum.
      draw: Of one standard normal number.

    Raises:
      ValueError: If a price is negative or not finite, or all are 0.

    Examples:
      >>> Prices(draw=20.0).of(Count(multiplications=5, random_draws=2))
      45.0
    """

    multiplication: float = 1.0
    addition: float = 0.0
    draw: float = 0.0

    def __post_init__(self):
        """Checks the prices."""
        prices = dataclasses.asdict(self)
        for name, price in prices.items():
            if not 0 <= price < float("inf"):
                raise ValueError(f"{name} must be finite and at least 0, got {price}")
        if not any(prices.values()):
            raise ValueError("one price must be positive, all are 0")

    def of(self, total: Count) -> float:
        """The price of what a program does.

        Args:
          total: Its operations.

        Returns:
          In the unit of the prices.
        """
        return (
            self.multiplication * total.multiplications
            + self.addition * total.additions
            + self.draw * total.random_draws
        )


@dataclasses.dataclass(frozen=True)
class TreeCost:
    """The cost of a tree of voters: a fixed part, and a part per branch of each level.

    Attributes:
      fixed: Paid once.
      branch: Paid per branch of each level, the first level first.

    Examples:
      >>> TreeCost(100.0, (10.0, 1.0)).of((5, 4))
      170.0
    """

    fixed: float
    branch: tuple[float, ...]

    def of(self, voters: Sequence[int]) -> float:
        """The cost of a tree.

        Args:
          voters: Branches at each level.

        Returns:
          In the unit of the prices.
        """
        total, branches = self.fixed, 1
        for price, t in zip(self.branch, voters, strict=True):
            branches *= t
            total += price * branches
        return total


def voter_count(
    apply: Callable[..., Any], posterior: Any, x: Any, **settings: Any
) -> Count:
    """Counts what `predict` does for one call.

    Multiplications and additions are those of the program; what a generator does
    inside to make a normal number is not among them, it is one of `random_draws`.

    Args:
      apply: ``apply(params, x)``.
      posterior: Its params, or their shapes.
      x: Its input, or shapes.
      **settings: Of `predict`, but for the key and `draw`.

    Returns:
      The count; nothing runs.

    Raises:
      ValueError: As `predict`.

    Examples:
      >>> from jeff import dm_bnn
      >>> random = dm_bnn.posterior(jnp.ones((784, 200)), 0.1)
      >>> layer, x = (lambda w, x: x @ w), jnp.ones((1, 784))
      >>> standard = voter_count(layer, random, x, voters=10, mode="naive")
      >>> dm = voter_count(layer, random, x, voters=10, mode="dm")
      >>> standard.multiplications, dm.multiplications, dm.random_draws
      (3136000, 1881600, 1568000)
    """

    def run(key, posterior, x):
        return predict(apply, posterior, x, key, draw=_words, **settings)

    return count(run, jax.random.key(0), posterior, x)


def tree_cost(
    apply: Callable[..., Any],
    posterior: Any,
    x: Any,
    *,
    levels: int,
    prices: Prices | None = None,
    **settings: Any,
) -> TreeCost:
    """The cost of any tree of voters, from counts of a few small ones.

    Args:
      apply: ``apply(params, x)``.
      posterior: Its params, or their shapes.
      x: Its input, or shapes.
      levels: Of the program.
      prices: Of the operations; ``None`` counts products.
      **settings: Of `predict`; modes whose way depends on the tree (``"best"``),
        and `shared` noise, have no such cost.

    Returns:
      The cost.

    Raises:
      ValueError: If `mode` is ``"best"`` or noise is `shared`, or as `predict`.

    Examples:
      >>> from jeff import dm_bnn
      >>> random = dm_bnn.posterior(jnp.ones((784, 200)), 0.1)
      >>> layer, x = (lambda w, x: x @ w), jnp.ones((1, 784))
      >>> tree_cost(layer, random, x, levels=1, mode="dm")
      TreeCost(fixed=313600.0, branch=(156800.0,))
    """
    if settings.get("mode", "best") == "best":
        raise ValueError("mode='best' depends on the tree: give 'dm' or another mode")
    if settings.get("shared", False):
        raise ValueError(
            "shared noise is paid for once per level, not per branch: count each tree "
            "with voter_count"
        )
    prices = Prices() if prices is None else prices

    def price(voters):
        return prices.of(voter_count(apply, posterior, x, voters=voters, **settings))

    # Two branches at level l make two of every level from l on.
    one = price((1,) * levels)
    beyond = [
        price(tuple(1 + (i == level) for i in range(levels))) - one
        for level in range(levels)
    ]
    branch = tuple(a - b for a, b in zip(beyond, [*beyond[1:], 0.0], strict=True))
    return TreeCost(one - sum(branch), branch)


def _words(key: jax.Array, size: int) -> jax.Array:
    """Random words as they are: a draw without the arithmetic of any generator."""
    return jax.lax.bitcast_convert_type(jax.random.bits(key, (size,)), jnp.float32)
