import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.faults import FixedPointFlips, fixed_point_flip, to_fixed_point

NONE = jnp.array(False)
CODES = np.arange(-128, 128)


def test_every_bit_of_every_code_flips_in_twos_complement():
    x = jnp.asarray(np.repeat(CODES, 8) / 128, jnp.float32)
    word = jnp.asarray(np.tile(1 << np.arange(8), 256), jnp.int32)
    inject = jax.jit(fixed_point_flip(0.1).inject)
    faulty = np.asarray(inject(FixedPointFlips(word, NONE), x)) * 128
    flipped = np.repeat(CODES.astype(np.int8).view(np.uint8), 8) ^ np.asarray(word)
    np.testing.assert_array_equal(faulty, flipped.astype(np.uint8).view(np.int8))


def test_the_original_program_flips_bits_of_half_steps():
    """Quirk Q3: integers of half a step in 32 bits, so the sign never flips."""
    x = jnp.asarray(np.repeat(np.append(CODES, 128), 8) / 128, jnp.float32)
    word = np.tile(1 << np.arange(8), 257)
    inject = jax.jit(fixed_point_flip(0.1, reference_quirks=True).inject)
    faulty = inject(FixedPointFlips(jnp.asarray(word, jnp.int32), NONE), x)
    half = np.repeat(2 * np.append(CODES, 128), 8).astype(np.int32)
    np.testing.assert_array_equal(np.asarray(faulty) * 256, half ^ word)


def test_infinities_and_nan_pass_and_do_not_set_the_range():
    x = jnp.array([0.5, jnp.inf, -1.0, jnp.nan])
    faults = FixedPointFlips(jnp.array([1, 1, 0, 1]), NONE)
    faulty = jax.jit(fixed_point_flip(0.1).inject)(faults, x)
    np.testing.assert_array_equal(faulty, [0.5 + 1 / 128, jnp.inf, -1.0, jnp.nan])


def test_rate_0_only_rounds_bits_are_equally_likely_and_gradients_stop(key):
    x = jnp.asarray(np.linspace(-0.99, 0.97, 8000, dtype=np.float32))

    @jax.jit
    def run(rate):
        model = fixed_point_flip(rate, max_rate=1.0)
        faults = model.sample(key, x)
        grad = jax.grad(lambda x: model.inject(faults, x).sum())(x)
        return faults.word, model.inject(faults, x), grad, to_fixed_point(x)

    _, same, _, rounded = run(0.0)
    np.testing.assert_array_equal(same, rounded)
    word, _, grad, _ = map(np.asarray, run(0.5))
    hit = word != 0
    np.testing.assert_array_equal(grad, ~hit)
    assert abs(hit.sum() - 4000) < 4 * np.sqrt(2000)
    seen = np.bincount(np.log2(word[hit]).astype(int), minlength=8)
    assert seen.size == 8 and np.abs(seen - 500).max() < 4.5 * np.sqrt(500)


def test_bad_input_is_named(key):
    with pytest.raises(ValueError, match="bits must be an integer from 2 to 16"):
        fixed_point_flip(0.1, bits=1)
    with pytest.raises(TypeError, match="like must be floating, got int8"):
        fixed_point_flip(0.1).sample(key, jnp.zeros(2, jnp.int8))
    with pytest.raises(ValueError, match="rate must be known with reference_quirks"):
        jax.eval_shape(lambda r: fixed_point_flip(r, reference_quirks=True).sample, 0.1)


@pytest.mark.parametrize(("bits", "dtype"), [(8, "uint8"), (9, "uint16")])
def test_words_are_as_narrow_as_the_codes(key, bits, dtype):
    word = fixed_point_flip(1.0, bits=bits).sample(key, jnp.zeros(200)).word
    assert word.dtype == dtype
    assert set(np.asarray(word).tolist()) == {1 << i for i in range(bits)}
