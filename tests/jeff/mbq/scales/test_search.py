"""The compiled search against a plain loop over candidates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_blocks

from jeff import program, quantize
from jeff.mbq import balance_grid, balance_scale, infer_groups
from jeff.mbq.running_mean import RunningMean
from jeff.mbq.scales.search import StackSearch, candidate_scales, relative_change

CONFIG = quantize.QuantConfig(bits=3, group_size=16)
PER_CHANNEL = quantize.QuantConfig(bits=4, symmetric=True)
GATE_UP, DOWN = 0, 1


@functools.cache
def block():
    """``(search, weights, x, side)`` of the first block of the gated model."""
    params = mbq_blocks.make_params()
    (batch,) = mbq_blocks.batches()
    (stack,) = program.blocks(mbq_blocks.gated(), params, *batch.inputs)
    state, sides = stack.enter(params, *batch.inputs)
    search = StackSearch.of(stack, infer_groups(stack, lambda s: True))
    return search, stack.weights(params, 0), state, stack.side(sides, 0)


def parts(x):
    """Inputs of the two groups, and the block's output, by hand."""
    w = {n.split(".")[-1]: a for n, a in block()[1].items()}
    norm = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w["norm"]
    hidden = jax.nn.silu(norm @ w["gate"]) * (norm @ w["up"])
    return w, norm, hidden, x + hidden @ w["down"]


def test_features():
    search, weights, state, side = block()
    (x,) = state
    w, norm, hidden, y = parts(x)
    into, out = search.features(weights, state, side)
    np.testing.assert_allclose(into.x, norm, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out.x, hidden, rtol=1e-5, atol=1e-5)
    for features in (into, out):  # both are judged at the output of `down`
        np.testing.assert_allclose(features.y, hidden @ w["down"], rtol=1e-4, atol=1e-4)
    magnitude = np.abs(np.asarray(norm)).mean((0, 1))
    np.testing.assert_allclose(into.magnitude.value, magnitude, rtol=1e-5)
    peak = np.abs(np.asarray(norm)).max((0, 1))
    np.testing.assert_allclose(into.peak, peak, rtol=1e-5)
    np.testing.assert_allclose(
        search.run(weights, state, side)[0], y, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("group", [GATE_UP, DOWN])
def test_losses_of_every_candidate(group, bits):
    """Each candidate by hand: scale, quantize, scale back, run, compare."""
    search, weights, state, side = block()
    (x,) = state
    w, norm, hidden, _ = parts(x)
    config = CONFIG if bits is None else PER_CHANNEL
    features = search.features(weights, state, side)[group]
    candidates = candidate_scales(
        features.magnitude, jnp.arange(features.x.shape[-1]), grid=5, share="max"
    )
    tokens = jnp.linspace(0.0, 1.0, x.shape[0] * x.shape[1]).reshape(x.shape[:2])
    got = search.losses(
        weights,
        features,
        candidates,
        tokens,
        group=group,
        config=config,
        activation_bits=bits,
    )

    def linear(h, name, scale):
        q = quantize.fake_quant(w[name] * scale[:, None], config)
        if bits is None:
            return h @ (q / scale[:, None])
        return quantize.fake_quant_activations(h / scale, bits=bits) @ q

    for i, scale in enumerate(candidates):
        if group == GATE_UP:
            gate, up = linear(norm, "gate", scale), linear(norm, "up", scale)
            y = (jax.nn.silu(gate) * up) @ w["down"]
        else:
            y = linear(hidden, "down", scale)
        error = np.asarray(hidden @ w["down"] - y)
        n = float(y.shape[-1] * np.count_nonzero(tokens))
        for loss, size in (("mae", np.abs(error)), ("mse", error**2)):
            want = (size.sum(-1) * tokens).sum() / n
            np.testing.assert_allclose(got[loss].value[i], want, rtol=5e-3)


def test_candidates_are_the_scales_of_the_grid():
    magnitude = RunningMean(jnp.array([2.0, 8.0, 32.0, 4.0]), jnp.float32(2.0))
    classes = jnp.array([0, 0, 2, 3])
    got = candidate_scales(magnitude, classes, grid=4, share="mean")
    assert got.shape == (4, 4)
    np.testing.assert_array_equal(got[0], jnp.ones(4))
    for row, alpha in zip(got, balance_grid(4), strict=True):
        want = balance_scale(magnitude.value, alpha, share=classes, reduce="mean")
        np.testing.assert_allclose(row, want, rtol=1e-6)
        assert row[0] == row[1]


def test_one_search_serves_blocks_batches_and_calls():
    search, weights, state, side = block()
    again = StackSearch.of(search.stack, infer_groups(search.stack, lambda s: True))
    assert again is search
    features = search.features(weights, state, side)[DOWN]
    candidates = jnp.ones((2, features.x.shape[-1]))
    run = functools.partial(
        search.losses, group=DOWN, config=CONFIG, activation_bits=None
    )
    tokens = jnp.ones(features.y.shape[:-1])
    run(weights, features, candidates, tokens)
    before = search.losses._cache_size()
    params = mbq_blocks.make_params()
    for number in range(search.stack.count):
        run(search.stack.weights(params, number), features, candidates, 2 * tokens)
    assert search.losses._cache_size() == before


def test_relative_change():
    y = (jnp.array([1.0, -4.0]), jnp.array([1, 2]))
    z = (jnp.array([1.0, -3.0]), jnp.array([5, 2]))  # integers are not compared
    np.testing.assert_allclose(relative_change(y, z), 0.25)
    assert relative_change(y, y) == 0
    assert relative_change((jnp.zeros(2),), (jnp.zeros(2),)) == 0
