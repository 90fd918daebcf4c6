"""Temporary memory of a network's voters falls with alpha, for trees and batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.draws import light

from jeff import dm_bnn

SIZES = (192, 128, 64, 8)
TILE = 512


def net(p, x):
    for w in p:
        x = jnp.tanh(x @ w)
    return x


def words(voters, rows, alpha):
    """float32 words that the compiled program sets aside; nothing runs."""
    specs = [
        jax.ShapeDtypeStruct(pair, "float32")
        for pair in zip(SIZES, SIZES[1:], strict=False)
    ]
    random = [dm_bnn.MeanField(spec, spec) for spec in specs]

    def run(random, x, key):
        settings = {"mode": "dm", "alpha": alpha, "tile": TILE, "draw": light}
        return dm_bnn.predict(net, random, x, key, voters=voters, **settings)

    x = jax.ShapeDtypeStruct((rows, SIZES[0]), "float32")
    compiled = jax.jit(run).lower(random, x, jax.random.key(0)).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 4


@pytest.mark.parametrize(("voters", "rows"), [((6, 1, 1), 1), ((3, 4, 1), 4)])
def test_temporary_memory_of_a_network_falls_with_alpha(voters, rows):
    """By the largest layer's beta, outputs of all layers (twice, once they are made in
    blocks) and six tiles; branches of deeper levels have their turn one by one.
    """
    measured = {alpha: words(voters, rows, alpha) for alpha in (1.0, 0.25, 1 / 16)}
    beta = rows * SIZES[0] * SIZES[1]
    made = np.cumprod(voters) * SIZES[1:]
    rest = 2 * rows * made.sum() + 6 * TILE + 2 * rows * SIZES[1]
    for alpha, held in measured.items():
        assert held <= alpha * beta + rest, alpha
    assert measured[1.0] >= beta  # the first bound is about something
    assert sorted(measured.values(), reverse=True) == list(measured.values())
