"""Sums of uniform words: to the bit, and their exact distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hwsim.rng import checks, clt, quality, reference
from hwsim.rng.clt import Clt

DRAW = jax.jit(clt.draw, static_argnums=(1, 2))
SEED = jax.jit(clt.seed, static_argnums=1)

CASES = [
    Clt(terms=12, lanes=2),
    Clt(terms=16, bits=1, width=16, lanes=3, fraction_bits=8),
    Clt(terms=5, bits=11, width=33, form="galois", lanes=1, fraction_bits=15),
]


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_draws_are_those_of_the_slow_model(settings, key):
    state = SEED(key, settings)
    codes, after = DRAW(state, settings, 4)
    register = settings.register
    for lane in range(settings.lanes):
        states = [
            sum(int(word) << 32 * i for i, word in enumerate(row))
            for row in np.asarray(state[lane])
        ]
        for i in range(4):
            centred, states = reference.clt_sum(
                states, register.width, register.taps, register.form, settings.bits
            )
            assert codes[i, lane] == reference.standardized(centred, *settings.scale)
        assert states[0] & 0xFFFFFFFF == int(after[lane, 0, 0])


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_the_distribution_is_standardized_to_the_last_place(settings):
    values, chance = clt.distribution(settings)
    step = 2.0**-settings.fraction_bits
    # The factor is right to 2^-16, each value is rounded by half a step at most, which
    # adds step^2 / 12 to the variance or so; the kurtosis follows.
    assert chance.sum() == pytest.approx(1)
    assert abs((values * chance).sum()) <= step / 2
    assert (values**2 * chance).sum() == pytest.approx(1, abs=2**-14 + 2 * step)
    kurtosis = (values**4 * chance).sum() - 3
    expected = clt.excess_kurtosis(settings)
    assert kurtosis == pytest.approx(expected, abs=2**-12 + 8 * step)


def test_excess_kurtosis_of_a_binomial():
    assert clt.excess_kurtosis(Clt(terms=10, bits=1)) == pytest.approx(-2 / 10)


@pytest.fixture(scope="module")
def drawn():
    normal_fn = jax.jit(clt.normal(Clt(terms=16, lanes=64)), static_argnums=1)
    return np.asarray(normal_fn(jax.random.key(3), 60_000))


def test_a_good_sum_passes_every_check_but_for_its_known_kurtosis(drawn):
    for check in quality.assess(drawn, lags=(1, 2, 64, 128)):
        # 15 near-normal scores; one of them above 4.5 has a probability of 1e-4.
        expected = 0.0
        if check.name == "kurtosis":
            expected = clt.excess_kurtosis(Clt(terms=16)) / check.error
        assert abs(check.score - expected) < 4.5, check


def test_two_terms_are_found_bad():
    """A triangle: kurtosis 2.4 in place of 3, no tails beyond 2.45."""
    normal_fn = jax.jit(clt.normal(Clt(terms=2, lanes=64)), static_argnums=1)
    x = np.asarray(normal_fn(jax.random.key(0), 20_000))
    found = {check.name: check for check in quality.assess(x)}
    # -0.6 over sqrt(96 / n), with the spread of a sample's fourth power (variance of
    # x^4 is 15 here, less than 96) well below 1.
    assert found["kurtosis"].score == pytest.approx(-0.6 / (96 / 20_000) ** 0.5, abs=2)
    # Distance of the triangle's distribution function from the normal one: 0.0170 at
    # 0.44, by hand; the sample's own wander is 4 / sqrt(n) / 2 at most.
    assert found["distance"].value > 0.0170 - 2 / 20_000**0.5
    assert found["distance"].score > 4.5
    assert abs(quality.worst(found.values()).score) > 7


def test_neighbouring_keys_do_not_correlate():
    keys = jax.random.split(jax.random.key(5), 3000)
    rows = jax.jit(jax.vmap(lambda key: clt.normal(Clt(lanes=4))(key, 8)))(keys)
    by_key = np.asarray(rows).T.ravel()
    found = [*checks.moments(by_key)[:2], *checks.autocorrelation(by_key, [1, 2])]
    assert abs(quality.worst(found).score) < 4.5


def test_draw_functions_are_pure_mapped_and_nested_in_n(key):
    normal_fn = clt.normal(Clt(terms=4, width=16, lanes=5))
    compiled = jax.jit(normal_fn, static_argnums=1)
    long = compiled(key, 23)
    assert long.shape == (23,) and long.dtype == jnp.float32
    np.testing.assert_array_equal(compiled(key, 7), long[:7])
    assert jax.eval_shape(lambda key: normal_fn(key, 0), key).shape == (0,)
    keys = jax.random.split(key, 2)
    mapped = jax.jit(jax.vmap(lambda key: normal_fn(key, 7)))(keys)
    np.testing.assert_array_equal(mapped[1], compiled(keys[1], 7))
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        normal_fn(key, -1)


def test_a_lane_is_built_of_registers_and_a_tree_of_adders():
    # Five words of two bits: adders of 3, 3, then 4, then 5 bits; one is passed on.
    built = Clt(terms=5, bits=2, width=16).structure()
    assert built.adder_bits == 3 + 3 + 4 + 5 and built.longest_adder == 5
    assert built.flip_flops == 5 * 16 and built.xor_gates == 5 * 2 * 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"terms": 0}, "terms and lanes must be at least 1"),
        ({"lanes": 0}, "terms and lanes must be at least 1"),
        ({"terms": 200}, r"must be below 2\^15"),
        ({"fraction_bits": 16}, "fraction_bits must be 1 to 15"),
        ({"bits": 40}, "bits must be 1 to 32"),
        ({"width": 100}, "width must be"),
    ],
)
def test_settings_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        Clt(**fields)


def test_a_state_of_other_lanes_is_refused(key):
    with pytest.raises(ValueError, match=r"state must be \[\(3, 4\), words\]"):
        clt.draw(SEED(key, Clt(terms=4, lanes=2)), Clt(terms=4, lanes=3), 1)
