"""Named products: those that tests run, and those that the benchmark times."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.draw_matmul.config import Config

__all__ = ["BENCHMARK_SHAPES", "CASES", "Arrays", "Case", "make"]

BENCHMARK_SHAPES = (
    (784, 200, 100),
    (200, 200, 100),
    (200, 10, 100),
    (1024, 1024, 100),
    (4096, 4096, 16),
)
"""``(K, N, T)`` that the benchmark times: the layers of the network of the DM-BNN paper
(arXiv 2005.03857) with 100 voters, and two squares."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A product.

    Attributes:
      voters: T.
      size: K.
      columns: N.
      branches: G.
      dtype: Dtype of the mean and the standard deviation.
      config: Settings of the kernel; ``None`` for the heuristic's.
    """

    voters: int
    size: int
    columns: int
    branches: int = 1
    dtype: str = "float32"
    config: Config | None = None


class Arrays(NamedTuple):
    """The operands of a product by branches: ``[G, T]``, ``[G, 1, K]``, ``[K, N]``."""

    keys: jax.Array
    x: jax.Array
    mean: jax.Array
    std: jax.Array


CASES = {
    "one by one": Case(voters=1, size=1, columns=1),
    "copies, ragged K": Case(
        voters=5, size=21, columns=7, config=Config(voters=2, copies=2, depth=8)
    ),
    "K split, bfloat16": Case(
        voters=2,
        size=40,
        columns=3,
        dtype="bfloat16",
        config=Config(voters=1, depth=8, split_k=2),
    ),
    "tiles used again": Case(
        voters=1,
        size=24,
        columns=5,
        config=Config(voters=1, depth=4, stages=1, split_k=3),
    ),
    "branches, two blocks of columns": Case(
        voters=3, size=4, columns=130, branches=2, config=Config(voters=2, depth=4)
    ),
}
"""Small products that cover what the kernel may be asked."""


def make(case: Case, seed: int = 0) -> Arrays:
    """Random operands of a product.

    Args:
      case: The product.
      seed: Of NumPy's generator and of the keys.

    Returns:
      The operands: standard normal x and mean, standard deviations of 0.1 to 1.

    Examples:
      >>> {name: a.shape for name, a in make(CASES["one by one"])._asdict().items()}
      {'keys': (1, 1), 'x': (1, 1, 1), 'mean': (1, 1), 'std': (1, 1)}
    """
    rng = np.random.default_rng(seed)
    matrix = case.size, case.columns
    return Arrays(
        keys=jax.random.split(jax.random.key(seed), (case.branches, case.voters)),
        x=jnp.asarray(rng.normal(size=(case.branches, 1, case.size)), jnp.float32),
        mean=jnp.asarray(rng.normal(size=matrix), case.dtype),
        std=jnp.asarray(rng.uniform(0.1, 1, matrix), case.dtype),
    )
