import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats
from support import zoo

import jeff
from jeff.faults import (
    BitBias,
    BitFlips,
    Composed,
    bit_flip,
    compose,
    conv_macs,
    mac_fault_rate,
    mask,
    mibb,
    site_macs,
    to_fixed_point,
)

NONE = jnp.array(False)


def test_the_rate_per_output_is_exact_where_the_naive_formula_is_not():
    assert float(mac_fault_rate(1e-4, 576)) == pytest.approx(0.0559752, rel=1e-5)
    assert float(mac_fault_rate(1e-12, 9)) == pytest.approx(9e-12, rel=1e-6)
    assert float(mac_fault_rate(1.0, 3)) == 1.0
    traced = jax.jit(lambda p: mac_fault_rate(p, 576))(1e-4)
    assert float(traced) == pytest.approx(0.0559752, rel=1e-5)


def test_multiplications_per_output_by_hand():
    assert conv_macs((3, 3), 64) == (576, 1)
    assert conv_macs((5, 5), 64, groups=64) == (25, 1)  # depthwise
    assert conv_macs((3, 3), 60, tree_width=16) == (16, 36)
    assert conv_macs((3, 3), 64, groups=64, tree_width=16) == (1, 9)


def test_a_site_knows_its_multiplications():
    """Every product and convolution of the zoo: `macs` over outputs, window, groups."""
    counted = 0
    for name in ("plain_mlp", "plain_conv_nhwc", "plain_conv_grouped"):
        if name not in zoo.NAMES:
            continue
        case = zoo.build(name)
        for site in jeff.sites(case.apply, case.params, *case.inputs):
            if site.kind == "lookup":
                continue
            runs = math.prod(t or 1 for t in site.trips)
            assert site_macs(site).macs == site.macs / runs / math.prod(site.y_shape)
            counted += 1
    assert counted >= 3


def test_adder_trees_of_sites_follow_the_window_and_the_groups():
    def apply(p, x):
        x = lax.conv(x, p["dense"], (1, 1), "SAME")
        depthwise = lax.conv_general_dilated(
            x, p["depthwise"], (1, 1), "SAME", feature_group_count=24
        )
        return depthwise.mean((2, 3)) @ p["head"]

    params = {
        "dense": jnp.zeros((24, 40, 3, 3)),
        "depthwise": jnp.zeros((24, 1, 5, 5)),
        "head": jnp.zeros((24, 10)),
    }
    found = jeff.sites(apply, params, jnp.zeros((1, 40, 8, 8)))
    counts = {site.name: site_macs(site, tree_width=16) for site in found}
    assert counts == {"dense": (16, 3 * 9), "depthwise": (1, 25), "head": (16, 2)}
    assert [site.window for site in found] == [(3, 3), (5, 5), ()]
    with pytest.raises(ValueError, match="tree_width must be a positive integer"):
        site_macs(found[0], tree_width=0)


def test_a_bias_is_added_in_steps_and_clipped_by_hand():
    y = jnp.array([0.5, 0.9, -0.3, 0.25])  # S = 1, step = 1 / 128
    faults = BitBias(
        jnp.array([True, True, True, False]), jnp.array([-4.0, 64.0, -128.0, 0.0]), NONE
    )
    faulty = jax.jit(mibb(0.1).inject)(faults, y)
    np.testing.assert_array_equal(faulty, [0.5 - 4 / 128, 1.0, -1.0, 0.25])
    largest = jax.jit(mibb(0.1, max_value_mode=True).inject)(faults, y)
    q = round(-0.3 * 128) / 128
    np.testing.assert_array_equal(largest, [1.0, 1.0, 1.0 + q, 0.25])


def test_sums_end_where_the_codes_of_twos_complement_do():
    y = jnp.array([0.5, 0.9, -0.3, 0.99])  # S = 1, step = 1 / 128
    faults = BitBias(jnp.array([True] * 4), jnp.array([64.0, 64.0, -128.0, 0.0]), NONE)

    @jax.jit
    def run(y):
        inject = mibb(0.1, saturate="twos_complement").inject
        grad = jax.grad(lambda y: inject(faults, y).sum())(y)
        return inject(faults, y), grad

    faulty, grad = run(y)
    np.testing.assert_array_equal(faulty, [127 / 128, 127 / 128, -1.0, 127 / 128])
    np.testing.assert_array_equal(grad, [0, 0, 0, 1])


def test_infinities_and_nan_pass_and_do_not_set_the_range():
    y = jnp.array([0.5, 0.9, -0.3, 0.25])
    faults = BitBias(jnp.array([True] * 4), jnp.array([-4.0, 8.0, 1.0, 0.0]), NONE)
    model = compose(bit_flip(0.1), mibb(0.1))

    @jax.jit
    def run(y, bits):
        both = Composed((BitFlips(bits, NONE), faults), NONE)
        return model.inject(both, y), mibb(0.1).inject(faults, y)

    word = int(np.float32(0.9).view(np.uint32))
    for value in (np.inf, -np.inf, np.nan):
        flips = word ^ int(np.float32(value).view(np.uint32))
        faulty, alone = run(y, jnp.array([0, flips, 0, 0], jnp.uint32))
        # Without 0.9 the largest magnitude is 0.5: S = 0.5, step = 1 / 256.
        q = round(-0.3 * 256) / 256
        expected = [0.5 - 4 / 256, value, q + 1 / 256, 0.25]
        np.testing.assert_array_equal(faulty, np.array(expected, np.float32))
        np.testing.assert_array_equal(alone[0], 0.5 - 4 / 128)


def test_a_traced_rate_at_its_bound_does_not_overflow_and_one_above_does():
    """Traced, the rate per output is rounded otherwise than its bound on the host."""
    grid = [(9, 2e-6), (9, 3e-6), (9, 5e-5), (576, 1e-4), (4608, 0.9)]
    key, like = jax.random.key(0), jnp.zeros(40)

    @jax.jit
    def every(rates):
        return [
            mibb(rate, macs=macs, max_rate=bound, method="sparse").sample(key, like)
            for (macs, bound), rate in zip(grid, rates, strict=True)
        ]

    bound = np.array([rate for _, rate in grid], np.float32)
    for rates, over in (
        (bound / 2, False),
        (bound, False),
        (np.nextafter(bound, np.float32(2)), True),
    ):
        for point, drawn in zip(grid, every(jnp.asarray(rates)), strict=True):
            assert bool(drawn.overflow) is over, (point, rates)
    with pytest.raises(ValueError, match="rate must be at most max_rate=0.1, got 0.2"):
        mibb(0.2, macs=10**6, max_rate=0.1)


def _sampled(shape, rate, **settings):
    """One compiled draw of settings that do not depend on the rate."""
    sample = jax.jit(lambda k: mibb(rate, **settings).sample(k, jnp.zeros(shape)))
    return sample(jax.random.key(20))


@pytest.mark.parametrize("method", ["sparse", "dense"])
def test_rate_exponents_and_signs_follow_the_model(method):
    """Spec, test 1: rate within 4 sigma, bias histogram by chi-square."""
    n, rate, macs = 60_000, 1e-4, 200
    faults = _sampled((200, 300), rate, macs=macs, method=method)
    p = float(mac_fault_rate(rate, macs))
    hit, bias = np.asarray(faults.hit), np.asarray(faults.bias)
    assert not faults.overflow
    assert abs(hit.sum() - n * p) < 4 * math.sqrt(n * p * (1 - p))
    assert (bias[~hit] == 0).all()
    kinds = np.concatenate([-(2.0 ** np.arange(8)), 2.0 ** np.arange(8)])
    seen = [(bias[hit] == kind).sum() for kind in kinds]
    assert sum(seen) == hit.sum()
    assert stats.chisquare(seen).pvalue > 1e-3


def test_the_root_mean_square_of_a_bias_is_0408_of_the_range():
    """Spec, test 1, and its section 3."""
    n = 50_000
    faults = _sampled((n,), 1.0)
    square = np.asarray(faults.bias, np.float64) ** 2
    expected = (4**8 - 1) / (3 * 8)  # 2730.6
    deviation = math.sqrt(np.mean([16.0**e for e in range(8)]) - expected**2)
    assert abs(square.mean() - expected) < 4 * deviation / math.sqrt(n)
    assert math.sqrt(expected) / 128 == pytest.approx(0.408, abs=5e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rate_0_only_rounds_and_keeps_the_dtype(dtype, key):
    @jax.jit
    def both(y):
        model = mibb(0.0, saturate="twos_complement")
        return model.inject(model.sample(key, y), y), to_fixed_point(y)

    faulty, rounded = both(jnp.linspace(-1.7, 3.1, 40).astype(dtype))
    assert faulty.dtype == dtype
    np.testing.assert_array_equal(faulty, rounded)


def test_lower_rates_hit_a_subset_with_the_same_biases(key):
    @jax.jit
    def sample(rate):
        return mibb(rate, macs=100, max_rate=3e-4).sample(key, jnp.zeros((50, 50)))

    low, high = sample(1e-4), sample(3e-4)
    assert 0 < int(np.sum(low.hit)) < int(np.sum(high.hit))
    np.testing.assert_array_equal(np.where(low.hit, high.bias, 0), low.bias)


def test_quirks_of_the_original_program(key):
    y = jnp.zeros(20_000)
    for rate, expected in ((0.056, 1 / 17), (0.551, 1.0), (0.0, 0.0)):
        model = mibb(rate, reference_quirks=True, method="dense", max_rate=1.0)
        hit = model.sample(key, y).hit
        as_quirk, as_asked = (
            mask(key, p, y.shape, method="dense", max_rate=1.0).hit
            for p in (expected, rate)
        )
        np.testing.assert_array_equal(hit, as_quirk)
        assert rate == 0 or (as_quirk != as_asked).any()
    with pytest.raises(ValueError, match="rate must be known with reference_quirks"):
        jax.eval_shape(lambda r: mibb(r, reference_quirks=True).sample(key, y), 0.1)


def test_gradients_stop_at_the_range_or_at_every_hit():
    y = jnp.array([0.5, 0.9, -0.3, 1.0])
    faults = BitBias(
        jnp.array([True, True, False, False]), jnp.array([-4.0, 64.0, 0.0, 0.0]), NONE
    )
    for gradient, expected in (
        ("straight_through", [1, 0, 1, 1]),
        ("masked", [0, 0, 1, 1]),
    ):
        inject = mibb(0.1, gradient=gradient).inject
        grad = jax.jit(jax.grad(lambda y, inject=inject: inject(faults, y).sum()))(y)
        np.testing.assert_array_equal(grad, expected)


def test_bad_input_is_named(key):
    for rate in (-1e-9, 1.1, float("nan")):
        with pytest.raises(ValueError, match="rate must be in"):
            mibb(rate)
    for name in ("macs", "accumulations"):
        with pytest.raises(ValueError, match=f"{name} must be a positive integer"):
            mibb(0.1, **{name: 0})
        with pytest.raises(ValueError, match=f"{name} must be .* got True"):
            mibb(0.1, **{name: True})
    with pytest.raises(ValueError, match="bits must be an integer .* got True"):
        mibb(0.1, bits=True)
    with pytest.raises(ValueError, match="groups=3 does not divide input_channels=8"):
        conv_macs((3, 3), 8, groups=3)
    with pytest.raises(ValueError, match="activation_rate must be in"):
        mibb(0.1, activation_rate=2.0)
    with pytest.raises(ValueError, match="more axes than the array"):
        mibb(0.1, tile=(2, 2)).sample(key, jnp.zeros(3))
    with pytest.raises(TypeError, match="like must be floating, got int8"):
        mibb(0.1).sample(key, jnp.zeros(3, jnp.int8))
    with pytest.raises(TypeError, match="y must be floating, got int32"):
        mibb(0.1).inject(None, jnp.zeros(3, jnp.int32))
