"""Comparing trees of arrays, bit by bit or nearly."""

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["assert_close", "assert_same"]


def assert_same(got, expected):
    """Equal structure, dtypes, weak types and bits (NaN equal to NaN)."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        assert getattr(a, "weak_type", False) == getattr(b, "weak_type", False)
        np.testing.assert_array_equal(_plain(a), _plain(b))


def assert_close(got, expected, tolerance=1e-6):
    """Equal structure, and values within `tolerance` of the largest of each array."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        a, b = _plain(a), _plain(b)
        assert a.shape == b.shape
        if a.size:
            largest = max(1.0, float(np.abs(b).max()))
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest)


def _plain(x):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(x), np.float64)
    if x.dtype == jax.dtypes.float0:
        return np.zeros(x.shape)
    return np.asarray(x).astype(np.float64)
