"""Weights of one's own for every token, in every method that weighs tokens."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.case import normal

from jeff import mbq
from jeff.quantize import QuantConfig

PARAMS = {
    "norm": jnp.asarray(np.where(np.arange(32) % 5, 1, 6), jnp.float32),
    "up": normal(4, 32, 32),
    "down": normal(5, 32, 32),
}
ANSWER = np.arange(12).reshape(2, 6) % 3 == 2
MASKS = {"vision": ~ANSWER, "language": ANSWER}
X = normal(6, 2, 6, 32) * np.float32(np.where(ANSWER, 6, 18))[..., None]


def apply(p, x):
    return jax.nn.relu((x * p["norm"]) @ p["up"]) @ p["down"]


def run(batch, method=mbq.mbq, **fields):
    weights = QuantConfig(bits=3, group_size=32)
    return method(apply, PARAMS, [batch], mbq.BalanceConfig(weights=weights, **fields))


def words(result):
    return [np.asarray(result.params[n].packed) for n in ("up", "down")]


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        (mbq.mbq, {"clip": True}),
        (mbq.mbq, {"rounding": "gptq", "weighted_hessian": True}),
        (mbq.gptq, {"weighted_hessian": True}),
    ],
)
def test_ones_at_the_answer_are_the_answer_alone(method, fields):
    named = run(mbq.Batch((X,), MASKS), method, reweight="answer", **fields)
    own = mbq.Batch((X,), weights=jnp.asarray(ANSWER, jnp.float32))
    own = run(own, method, reweight="tokens", **fields)
    for a, b in zip(words(named), words(own), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(named.report.groups, own.report.groups, strict=True):
        np.testing.assert_allclose(a.losses, b.losses, rtol=1e-6)
        assert a.exponent == b.exponent


def test_every_token_counts_what_it_weighs():
    """One token alone: the loss of every candidate is that token's."""
    first = np.zeros((2, 6), np.float32)
    first[0, 1] = 1.0
    alone = run(mbq.Batch((X,), weights=first), reweight="tokens")
    cut = run(mbq.Batch((X[:1, 1:2],), weights=np.ones((1, 1), "f4")), reweight="none")
    other = run(mbq.Batch((X,), weights=1 - first), reweight="tokens")
    up, of_cut = alone.report.groups[0], cut.report.groups[0]
    # Without a search (exponent 0) nothing but the weighed token is in the loss.
    np.testing.assert_allclose(up.losses[0], of_cut.losses[0], rtol=1e-5)
    assert abs(up.losses[0] - other.report.groups[0].losses[0]) > 1e-3 * up.losses[0]


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (None, ValueError, "batches[0].weights is None: reweight='tokens' needs them"),
        (np.zeros((2, 6), "f4"), ValueError, "weights are zero for every token"),
        (np.ones((2, 5), "f4"), ValueError, "weights must have a token for every row"),
        (np.ones(6, "f4"), ValueError, "batches[0].weights must be [batch, tokens]"),
        (-np.ones((2, 6), "f4"), ValueError, "batches[0].weights must not be negative"),
        (np.full((2, 6), np.nan, "f4"), ValueError, "batches[0].weights holds a NaN"),
        (np.ones((2, 6), int), TypeError, "batches[0].weights must be floating"),
    ],
)
def test_weights_that_cannot_be(weights, error, message):
    with pytest.raises(error, match=re.escape(message)):
        run(mbq.Batch((X,), MASKS, weights=weights), reweight="tokens")
