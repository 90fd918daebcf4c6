"""Ones of a feedback register: to the bit, and the correlation of a short stride."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hwsim.rng import checks, maximal_taps, quality, reference, rlf
from hwsim.rng.rlf import Rlf

DRAW = jax.jit(rlf.draw, static_argnums=(1, 2))
SEED = jax.jit(rlf.seed, static_argnums=1)


@pytest.mark.parametrize(
    "settings",
    [
        Rlf(lanes=2),  # two chunks per draw
        Rlf(width=127, stride=3, lanes=1),
        Rlf(width=32, stride=5, lanes=2, fraction_bits=7),  # bit by bit: a tap at 1
    ],
    ids=str,
)
def test_draws_are_those_of_the_slow_model(settings, key):
    state = SEED(key, settings)
    codes, after = DRAW(state, settings, 3)
    taps = maximal_taps(settings.width)
    for lane in range(settings.lanes):
        number = int("".join(map(str, np.asarray(state[lane]))), 2)  # oldest first
        for i in range(3):
            centred, number = reference.rlf_count(
                number, settings.width, taps, settings.stride
            )
            assert codes[i, lane] == reference.standardized(centred, *settings.scale)
        assert int("".join(map(str, np.asarray(after[lane]))), 2) == number


def test_over_a_period_the_counts_are_binomial():
    """All states but zero: the count of ones of 0 .. 2^n - 1 is binomial."""
    settings = Rlf(width=10, stride=1, lanes=1, fraction_bits=10)
    state = jnp.zeros((1, 10), jnp.uint8).at[0, 3].set(1)
    codes, after = DRAW(state, settings, 2**10 - 1)
    np.testing.assert_array_equal(after, state)
    seen = np.unique(np.asarray(codes), return_counts=True)[1]
    expected = [1, 10, 45, 120, 210, 252, 210, 120, 45, 10, 1]
    np.testing.assert_array_equal(seen, expected[1:])  # without the zero state


@pytest.mark.parametrize(("stride", "lags"), [(16, (1, 5, 12, 40)), (63, (1, 2, 3))])
def test_the_correlation_is_that_of_the_bits_two_draws_share(stride, lags):
    settings = Rlf(width=127, stride=stride, lanes=8)
    codes, _ = DRAW(SEED(jax.random.key(2), settings), settings, 4000)
    x = np.asarray(codes) / 2**12
    for lag in lags:
        expected = max(0.0, 1 - lag * stride / 127)
        found = np.mean(x[lag:] * x[:-lag])
        # Draws 127 / stride apart are new, so at least 8 * 4000 * stride / 127
        # independent products, each with a variance of 2 at most.
        assert abs(found - expected) < 4.5 * np.sqrt(2 * 127 / (8 * 4000 * stride))


def test_a_full_stride_passes_the_checks_and_a_short_one_is_found_bad():
    full = jax.jit(rlf.normal(Rlf(lanes=64)), static_argnums=1)
    x = np.asarray(full(jax.random.key(1), 40_000))
    found = {check.name: check for check in quality.assess(x, lags=(1, 2, 64, 128))}
    # Steps of 2 / sqrt(255) = 0.125: half of one, at the median, is a distance of
    # 0.025, and bins of 1/64 are narrower than a step. Both must show.
    assert found.pop("distance").value == pytest.approx(0.025, abs=0.006)
    assert found.pop("chi-square").score > 100
    assert abs(quality.worst(found.values()).score) < 4.5
    short = jax.jit(rlf.normal(Rlf(stride=8, lanes=64)), static_argnums=1)
    y = np.asarray(short(jax.random.key(1), 40_000))
    (bad, _) = checks.autocorrelation(y, [64])  # the lane's next draw
    assert bad.value == pytest.approx(1 - 8 / 255, abs=0.1) and bad.score > 100


def test_draw_functions_are_pure_and_mapped(key):
    normal_fn = rlf.normal(Rlf(width=31, lanes=3))
    compiled, keys = jax.jit(normal_fn, static_argnums=1), jax.random.split(key, 2)
    drawn = compiled(keys[1], 10)
    assert drawn.shape == (10,) and drawn.dtype == jnp.float32
    mapped = jax.jit(jax.vmap(lambda key: normal_fn(key, 4)))(keys)
    np.testing.assert_array_equal(mapped[1], drawn[:4])


def test_a_lane_is_built_of_its_ram_its_feedback_and_a_counter():
    built = Rlf(width=127, stride=10).structure()
    assert (built.ram_bits, built.ram_bits_moved, built.xor_gates) == (127, 30, 10)
    assert built.adder_bits == 2 * 10 + 8


def test_settings_and_states_are_checked(key):
    for fields, message in (
        ({"width": 100}, "width must be"),
        ({"stride": 0}, "stride must be 1 to 255"),
        ({"stride": 256}, "stride must be 1 to 255"),
        ({"lanes": 0}, "lanes must be at least 1"),
        ({"fraction_bits": 0}, "fraction_bits must be 1 to 15"),
    ):
        with pytest.raises(ValueError, match=message):
            Rlf(**fields)
    settings = Rlf(width=7, lanes=2)
    with pytest.raises(ValueError, match="stays at zero"):
        rlf.draw(jnp.zeros((2, 7), jnp.uint8).at[0, 0].set(1), settings, 1)
    with pytest.raises(ValueError, match=r"state must be \[2, 7\]"):
        rlf.draw(jnp.ones((3, 7), jnp.uint8), settings, 1)


def test_states_of_zeros_are_never_drawn():
    state = np.asarray(SEED(jax.random.key(0), Rlf(width=3, lanes=4000)))
    assert state.any(axis=1).all() and set(state.ravel()) == {0, 1}
