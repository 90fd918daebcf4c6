"""A fixture for tests that compile much and compute little, in integers above all."""

import jax
import pytest

__all__ = ["quick_compile"]


@pytest.fixture(scope="module")
def quick_compile():
    """Compiles with few optimizations: integer draws are the same, in half the time."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
