"""What the tests of faults share."""

import jax
import pytest


@pytest.fixture(scope="module")
def quick_compile():
    """Compiles with few optimizations: integer draws are the same, in half the time."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
