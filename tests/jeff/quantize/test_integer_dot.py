"""Products of integers: exact against NumPy's, whatever the program around them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jeff
from jeff.quantize.config import QuantConfig
from jeff.quantize.fake_quant import fake_quant_activations
from jeff.quantize.integer_dot import integer_dot, integer_dots
from jeff.quantize.qtensor import QTensor, quantize


def random_array(shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape).astype(np.float32))


WEIGHTS = {
    "symmetric groups": ((96, 8), QuantConfig(bits=3, symmetric=True, group_size=32)),
    "integer zeros": ((96, 8), QuantConfig(bits=4, group_size=48)),
    "float zeros": ((96, 8), QuantConfig(bits=3, group_size=32, zero_point="float")),
    "padded": ((50, 3), QuantConfig(bits=2, per_tensor=True, scale_dtype="bfloat16")),
}


def rounded(x, bits):
    """Activations after rounding, by NumPy, in float64."""
    x, top = np.asarray(x, np.float32), np.float32(2 ** (bits - 1) - 1)
    scale = np.maximum(np.abs(x).max(-1, keepdims=True), np.float32(1e-5)) / top
    return np.round(x / scale).astype(np.float64) * scale


def exact(x, w, bits):
    """The product of rounded activations and the decoded weight, in float64."""
    zero = np.full(w.scale.shape, 2 ** (w.bits - 1)) if w.zero is None else w.zero
    scale, zero = (
        np.repeat(np.asarray(a, np.float64), w.shape[0] // w.scale.shape[0], 0)
        for a in (w.scale, zero)
    )
    return rounded(x, bits) @ ((np.asarray(w.codes(), np.float64) - zero) * scale)


def worst(got, want):
    return np.abs(np.asarray(got, np.float64) - want).max() / np.abs(want).max()


@jax.jit
def both_widths(x, w):
    return {bits: integer_dot(x, w, activation_bits=bits) for bits in (8, 4)}


@pytest.mark.parametrize("name", WEIGHTS)
def test_equals_the_rounded_product(name):
    shape, config = WEIGHTS[name]
    w = quantize(random_array(shape), config)
    x = random_array((2, 3, shape[0]), 1)
    for bits, got in both_widths(x, w).items():
        assert got.shape == (2, 3, shape[1]) and got.dtype == jnp.float32
        assert worst(got, exact(x, w, bits)) < 1e-6
    assert worst(exact(x, w, 4), exact(x, w, 8)) > 1e-3


def integers(seed, rows, size, columns, bits, groups, *, symmetric=False):
    """Whole activations of scale 1, a weight of scales 1, and their product."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-127, 128, (rows, size))
    x[:, 0] = 127
    codes = rng.integers(0, 2**bits, (size, columns))
    zero = rng.integers(0, 2**bits, (groups, columns))
    if symmetric:
        zero[:] = 2 ** (bits - 1)
    w = QTensor.from_codes(
        jnp.asarray(codes, jnp.uint8),
        jnp.ones((groups, columns)),
        None if symmetric else jnp.asarray(zero, jnp.uint8),
        bits=bits,
    )
    want = x.astype(np.int64) @ (codes - np.repeat(zero, size // groups, 0))
    return jnp.asarray(x, jnp.float32), w, want


@pytest.mark.parametrize(("bits", "groups", "symmetric"), [
    (4, 1, True), (8, 1, False), (8, 3, False),
])  # fmt: skip
def test_codes_are_multiplied_exactly(bits, groups, symmetric):
    x, w, want = integers(bits, 7, 1536, 5, bits, groups, symmetric=symmetric)
    assert np.abs(want).max() < 2**24  # or float32 could not show it
    for name in ("int8", "float"):
        got = integer_dot(x, w, implementation=name)
        np.testing.assert_array_equal(np.asarray(got, np.int64), want)


def test_a_lone_token():
    x, w, want = integers(0, 1, 96, 5, 4, 1)
    np.testing.assert_array_equal(integer_dot(x, w), want)
    np.testing.assert_array_equal(integer_dot(x[0], w), want[0])


def test_the_longest_sum_does_not_overflow():
    size = 2**16
    x = jnp.full((1, size), 127.0)
    for code, zero in ((0, 255), (255, 0)):
        w = QTensor.from_codes(
            jnp.full((size, 1), code, jnp.uint8),
            jnp.ones((1, 1)),
            jnp.full((1, 1), zero, jnp.uint8),
            bits=8,
        )
        want = 127 * size * (code - zero)
        assert 2**30 < abs(want) < 2**31
        assert float(integer_dot(x, w)[0, 0]) == np.float32(want)


def test_longer_sums_are_refused_and_the_rule_multiplies_floats():
    size = 2**16 + 32
    w = quantize(random_array((size, 1)), QuantConfig(bits=8))
    x = random_array((2, size), 1)
    with pytest.raises(ValueError, match="groups of 65568 weights, but 32-bit sums"):
        integer_dot(x, w)
    run = jax.jit(jeff.rewrite(lambda w, x: x @ w, integer_dots()))
    assert worst(run(w, x), exact(x, w, 8)) < 1e-4
    assert not integer_products(run.lower(w, x).as_text())


@pytest.fixture(scope="module")
def w():
    return quantize(random_array((64, 8)), QuantConfig(bits=4, group_size=32))


def test_transposed_weight_and_dtypes(w):
    x = random_array((3, 64), 1)
    want = integer_dot(x, w)
    np.testing.assert_array_equal(integer_dot(x, w.transpose((1, 0))), want)
    half = w.astype(jnp.bfloat16)
    low = integer_dot(x.astype(jnp.bfloat16), half)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), want, rtol=0.1, atol=0.1)
    wide = integer_dot(x.astype(jnp.bfloat16), half, preferred_element_type=jnp.float32)
    assert wide.dtype == jnp.float32
    np.testing.assert_array_equal(wide.astype(jnp.bfloat16), low)


def test_derivatives_are_straight_through(w):
    x, y = random_array((3, 64), 1), random_array((3, 8), 2)

    def slopes(product):
        def loss(x, scale):
            return jnp.sum(product(x, dataclasses.replace(w, scale=scale)) * y)

        return jax.jit(jax.grad(loss, (0, 1)))(x, w.scale)

    got = slopes(integer_dot)
    want = slopes(lambda x, w: fake_quant_activations(x, bits=8) @ w.decode())
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_not_a_number_stays_one(w):
    y = integer_dot(random_array((3, 64), 1).at[0, 3].set(jnp.nan), w)
    assert jnp.isnan(y[0]).all() and jnp.isfinite(y[1:]).all()


def test_maps_over_tokens_and_over_weights(w):
    x = random_array((2, 3, 64), 1)
    want = integer_dot(x, w)
    got = jax.jit(jax.vmap(integer_dot, (0, None)))(x, w)
    np.testing.assert_array_equal(got, want)
    twice = jax.tree.map(lambda a: jnp.stack([a, a]), w)
    twice = dataclasses.replace(twice, scale=jnp.stack([w.scale, 2 * w.scale]))
    got = jax.jit(jax.vmap(integer_dot))(x, twice)
    np.testing.assert_array_equal(got, want * jnp.array([1.0, 2.0])[:, None, None])


PROGRAMS = {
    "heads": (lambda p, x: jnp.einsum("bsd,dhk->bshk", x, p["w"]), (64, 2, 4), (-3,)),
    "tied": (lambda p, x: jnp.einsum("bsd,vd->bsv", x, p["w"]), (8, 64), (-1,)),
    "experts": (lambda p, x: jnp.einsum("bsd,bdk->bsk", x, p["w"]), (2, 64, 8), (-2,)),
    "scanned": (
        lambda p, x: jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])[0],
        (3, 64, 64),
        (-2,),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_rule_takes_contractions_of_one_axis(name):
    apply, shape, contract = PROGRAMS[name]
    config = QuantConfig(bits=4, symmetric=True, group_size=32)
    w = quantize(random_array(shape) / 8, config, contract_axes=contract)
    x = random_array((2, 3, 64), 1)

    def floats(site, op, x, w):
        return op(fake_quant_activations(x, bits=8), w)

    want = jax.jit(jeff.rewrite(apply, floats))({"w": w}, x)
    run = jax.jit(jeff.rewrite(apply, integer_dots(8)))
    np.testing.assert_allclose(run({"w": w}, x), want, rtol=2e-5, atol=2e-5)
    assert integer_products(run.lower({"w": w}, x).as_text())


def test_rule_leaves_alone_what_has_no_tokens_or_codes():
    params = {
        "dense": random_array((64, 64)),
        "table": quantize(random_array((5, 64)), QuantConfig(bits=4)),
        "kernel": quantize(
            random_array((3, 4, 4)), QuantConfig(bits=4), contract_axes=(0, 1)
        ),
    }

    def apply(p, tokens):
        h = (p["table"][tokens] @ p["dense"]).reshape(1, -1, 4)
        return jax.lax.conv_general_dilated(
            h, p["kernel"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )

    tokens = jnp.array([3, 0])
    want = jax.jit(jeff.rewrite(apply))(params, tokens)
    got = jax.jit(jeff.rewrite(apply, integer_dots(4)))(params, tokens)
    np.testing.assert_array_equal(got, want)


def test_ragged_products_take_rounded_tokens():
    w = quantize(random_array((2, 64, 8)), QuantConfig(bits=4))
    x, sizes = random_array((5, 64), 1), jnp.array([2, 3], jnp.int32)
    apply = lambda p, x: jax.lax.ragged_dot(x, p, sizes)  # noqa: E731
    got = jax.jit(jeff.rewrite(apply, integer_dots(8)))(w, x)
    parts = [exact(x[:2], w_of(w, 0), 8), exact(x[2:], w_of(w, 1), 8)]
    assert worst(got, np.concatenate(parts)) < 1e-5


def w_of(w, i):
    return jax.tree.map(lambda a: a[i], w)


def integer_products(text):
    """Products of a lowered program that multiply bytes and add words."""
    products = [line for line in text.splitlines() if "dot_general" in line]
    return [
        line for line in products
        if line.count("xi8>") == 2 and line.rstrip().split("-> ")[-1].count("xi32>")
    ]  # fmt: skip


@pytest.mark.parametrize("group_size", [None, 32])
def test_on_a_gpu_the_product_is_one_of_bytes(group_size):
    config = QuantConfig(bits=4, symmetric=True, group_size=group_size)
    w = quantize(random_array((64, 8)), config)
    x = random_array((16, 64), 1)
    lowered = jax.jit(integer_dot).trace(x, w).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    assert len(integer_products(text)) == 1
    assert text.count("stablehlo.dot_general") == 1  # and there is no other


def test_one_trace(w):
    count = 0

    @jax.jit
    def run(x, w):
        nonlocal count
        count += 1
        return integer_dot(x, w)

    run(random_array((3, 64)), w)
    run(random_array((3, 64), 1), w)
    assert count == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"activation_bits": 1}, ValueError, r"activation_bits must be in \[2, 8\]"),
        ({"activation_bits": 9}, ValueError, "got 9"),
        ({"activation_bits": 8.0}, TypeError, "activation_bits must be an integer"),
        ({"implementation": "int4"}, ValueError, "implementation must be"),
    ],
)
def test_bad_settings(w, change, error, message):
    with pytest.raises(error, match=message):
        integer_dot(random_array((2, 64)), w, **change)
    with pytest.raises(error, match=message):
        integer_dots(**change)


def test_bad_operands(w):
    x = random_array((2, 64))
    with pytest.raises(TypeError, match="w must be a QTensor, got"):
        integer_dot(x, w.decode())
    with pytest.raises(TypeError, match="x must be floating, got int32"):
        integer_dot(x.astype(jnp.int32), w)
    with pytest.raises(ValueError, match=r"x of shape \(2, 63\) does not fit w"):
        integer_dot(x[:, :63], w)
    both = quantize(random_array((4, 16, 8)), QuantConfig(bits=4), contract_axes=(0, 1))
    with pytest.raises(ValueError, match="w must be a matrix contracted over one axis"):
        integer_dot(x, both)
