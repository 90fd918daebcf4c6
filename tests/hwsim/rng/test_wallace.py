"""Wallace's pool: to the bit, energy to the unit, and bad ways to build it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hwsim.rng import checks, lfsr, pool, quality, reference, wallace
from hwsim.rng.wallace import Wallace

DRAW = jax.jit(wallace.draw, static_argnums=(1, 2))
SEED = jax.jit(wallace.seed, static_argnums=1)


def energy(numbers):
    return int((np.asarray(numbers).astype(np.int64) ** 2).sum())


def slow_draw(state, settings, steps):
    """`wallace.draw` in Python integers, from the text of its module."""
    numbers, ledger = [int(x) for x in state.pool], int(state.ledger)
    register = int(state.register[0]) | int(state.register[1]) << 32
    shape, size = settings.register, settings.pool
    f, k = settings.fraction_bits, settings.address_bits
    exact = 2.0 ** (14 - f) / (2 * size) ** 0.5
    shift = 11 - int(np.floor(np.log2(exact)))
    blocks = []
    for _ in range(steps):
        for _ in range(settings.passes):
            value, drawn = numbers[0], [0, 1, 0]
            if settings.addresses != "fixed":
                for j in range(3):
                    drawn[j], register = reference.lfsr_word(
                        register, shape.width, shape.taps, shape.form, shape.bits
                    )
            start, stride, mask = drawn[0], drawn[1] | 1, drawn[2]
            shuffle = settings.addresses == "shuffled"
            numbers, change = reference.wallace(numbers, start, stride, mask, shuffle)
            ledger += change
        gain = value * round(exact * 2**shift) >> shift
        gain -= round(2**14 / (4 * size)) + (ledger >> (1 + k + 2 * f - 14))
        if not settings.correct:
            gain = 0
        blocks.append([x + ((x * gain + 2**13) >> 14) for x in numbers])
    return blocks, numbers, ledger, register


@pytest.mark.parametrize(
    "settings",
    [
        Wallace(pool=64),
        Wallace(pool=32, fraction_bits=14, passes=3, warm_up=2),
        Wallace(pool=64, addresses="in_place", correct=False),
        Wallace(pool=16, fraction_bits=5, addresses="fixed"),
    ],
    ids=str,
)
def test_draws_are_those_of_the_slow_model(settings, key):
    state = SEED(key, settings)
    codes, after = DRAW(state, settings, 3)
    blocks, numbers, ledger, register = slow_draw(state, settings, 3)
    np.testing.assert_array_equal(codes, blocks)
    np.testing.assert_array_equal(after.pool, numbers)
    assert int(after.ledger) == ledger
    assert int(after.register[0]) == register & 0xFFFFFFFF


@pytest.mark.parametrize("settings", [Wallace(pool=256), Wallace(pool=1024)], ids=str)
def test_the_energy_of_the_pool_is_conserved_to_the_unit(settings, key):
    nominal = settings.pool * 4**settings.fraction_bits
    state = SEED(key, settings)
    for _ in range(3):
        _, state = DRAW(state, settings, 50)
        assert energy(state.pool) == nominal + int(state.ledger)
    # Each of passes * N / 4 quads changes it by 1 - S where S is odd (half of them),
    # with S of a standard deviation of 2 * 2^f: a walk that stays within 5 of
    passes = settings.warm_up + 150 * settings.passes
    spread = np.sqrt(passes * settings.pool / 8) * 2 * 2**settings.fraction_bits
    assert abs(int(state.ledger)) < 5 * spread < nominal / 100


def test_an_even_sum_conserves_energy_and_an_odd_one_changes_it_as_derived():
    source = np.random.default_rng(0)
    one, zero = jnp.int32(1), jnp.int32(0)
    step = jax.jit(pool.transform)
    for quad in source.integers(-5000, 5000, (40, 4)):
        after, change = step(jnp.asarray(quad, jnp.int32), zero, one, zero)
        total = int(quad.sum())
        assert int(change) == (0 if total % 2 == 0 else 1 - total)
        assert energy(after) - energy(quad) == int(change)


def test_the_first_pool_has_unit_energy():
    for size, bits in ((16, 12), (4096, 11)):
        numbers, ledger = pool.first_pool(size, bits)
        assert energy(numbers) == size * 4**bits + ledger
        np.testing.assert_array_equal(numbers, -numbers[::-1])
        # Rounding: size values, each squared off by 2 x / sqrt(12) or so.
        assert abs(ledger) < 5 * 2**bits * np.sqrt(size / 3)


def test_four_passes_at_fixed_addresses_are_the_identity():
    """The matrix is of order four: M^2 is minus one on two axes, M^4 is one."""
    numbers = np.tile([40, -12, 16, 4], 4)
    one, zero = jnp.int32(1), jnp.int32(0)
    step = jax.jit(functools.partial(pool.transform, shuffle=False))
    after = jnp.asarray(numbers, jnp.int32)
    for _ in range(4):
        after, change = step(after, zero, one, zero)
        assert int(change) == 0
    np.testing.assert_array_equal(after, numbers)


@pytest.fixture(scope="module")
def sequences():
    """80,000 numbers per way of addressing, with a pool of 256."""

    def draw(**fields):
        normal_fn = wallace.normal(Wallace(pool=256, **fields))
        return np.asarray(
            jax.jit(normal_fn, static_argnums=1)(jax.random.key(7), 80_000)
        )

    return {
        "good": draw(),
        "in_place": draw(addresses="in_place"),
        "fixed": draw(addresses="fixed"),
        "uncorrected": draw(correct=False),
    }


def test_a_good_pool_passes_every_check(sequences):
    lags = (1, 2, 3, 4, 64, 128, 256, 512, 1024)
    found = [
        *quality.assess(sequences["good"], lags=lags),
        checks.energy_dispersion(sequences["good"], 64),
    ]
    # 26 near-normal scores: one of them above 4.5 has a probability of 2e-4.
    assert abs(quality.worst(found).score) < 4.5


def test_fixed_addresses_are_found_bad(sequences):
    """Two passes per block: the pool comes back every second block, lag 512.

    Each block has its own scale, of a relative spread of 1 / sqrt(2 N): about one.
    """
    x = sequences["fixed"]
    (correlation, _) = checks.autocorrelation(x, [512])
    assert correlation.value == pytest.approx(1, abs=0.05) and correlation.score > 200
    assert abs(checks.autocorrelation(sequences["good"], [512])[0].score) < 4.5


def test_results_that_stay_in_place_are_found_bad(sequences):
    """Pairs half a pool apart stay pairs: their sums keep their share of the energy.

    In the table, rising, partners differ by more than they have in common, by far: the
    correlation at half a pool starts at ``mean(x[i] x[i + N/2])`` over both orders,
    and each pass carries it over.
    """
    table, _ = pool.first_pool(256, 12)
    x = table / 2**12
    kept = float((x * np.roll(x, 128)).mean())
    (correlation, _) = checks.autocorrelation(sequences["in_place"], [128])
    # Half of the products at that lag lie within a block, the others between two.
    assert correlation.value == pytest.approx(kept / 2, abs=0.03)
    assert correlation.score < -20
    assert abs(checks.autocorrelation(sequences["good"], [128])[0].score) < 4.5


def test_without_correction_blocks_have_no_spread_of_energy(sequences):
    bad = checks.energy_dispersion(sequences["uncorrected"], 256)
    assert bad.value < 1e-3 and bad.score < -4.5
    assert abs(checks.energy_dispersion(sequences["good"], 256).score) < 4.5


def test_neighbouring_keys_do_not_correlate():
    keys = jax.random.split(jax.random.key(5), 2000)
    normal_fn = wallace.normal(Wallace(pool=64))
    rows = np.asarray(jax.jit(jax.vmap(lambda key: normal_fn(key, 16)))(keys))
    by_key = rows.T.ravel()
    found = [*checks.moments(by_key)[:2], *checks.autocorrelation(by_key, [1, 2])]
    assert abs(quality.worst(found).score) < 4.5


def test_the_largest_products_fit():
    """All energy in one number is as large as it gets: nothing wraps around."""
    settings = Wallace(pool=1024)
    peak = 2**17
    numbers = jnp.zeros(1024, jnp.int32).at[0].set(peak)
    scaled = wallace._scaled(numbers, jnp.int32(peak), jnp.int32(0), settings)
    assert scaled[0] == pytest.approx(peak * (1 + 1 / np.sqrt(2) - 1 / 4096), rel=1e-3)


def test_draw_functions_are_pure_mapped_and_nested_in_n(key):
    normal_fn = wallace.normal(Wallace(pool=16))
    keys = jax.random.split(key, 2)
    long = jax.jit(normal_fn, static_argnums=1)(keys[1], 40)
    assert long.shape == (40,) and long.dtype == jnp.float32
    mapped = jax.jit(jax.vmap(lambda key: normal_fn(key, 20)))(keys)
    np.testing.assert_array_equal(mapped[1], long[:20])


def test_a_lane_is_its_share_of_a_unit_that_does_four_at_a_time():
    two, four = Wallace(passes=2).structure(), Wallace(passes=4).structure()
    assert two.ram_bits == 1024 * 16 / 2 and four.ram_bits == 2 * two.ram_bits
    assert two.multiplier_bits == four.multiplier_bits == 16 * 15
    assert Wallace(correct=False).structure().multiplier_bits == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pool": 100}, "pool must be a power of two"),
        ({"pool": 8}, "pool must be a power of two"),
        ({"fraction_bits": 4}, "fraction_bits must be 5 or more"),
        ({"fraction_bits": 13}, "must be at most 34, got 36"),
        ({"addresses": "none"}, "addresses must be one of"),
        ({"passes": 1}, "passes must be at least 2"),
        ({"warm_up": -1}, "warm_up must be at least 0"),
    ],
)
def test_settings_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        Wallace(**fields)


def test_a_pool_of_another_size_is_refused(key):
    state = SEED(key, Wallace(pool=16))
    assert state.register.dtype == jnp.uint32
    assert lfsr.Lfsr(width=64).words == state.register.size
    with pytest.raises(ValueError, match=r"pool must be \[64\]"):
        wallace.draw(state, Wallace(pool=64), 1)
