import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.faults import BitFlips, bit_flip, stored_words

DTYPES = [
    jnp.float32,
    jnp.bfloat16,
    jnp.float16,
    jnp.float8_e4m3fn,
    jnp.float8_e5m2,
    jnp.int8,
    jnp.uint8,
    jnp.int4,
    jnp.uint4,
    jnp.int32,
    jnp.uint32,
]


def _every_word(dtype):
    """Words of all kinds, NaN with payloads and infinities among them, as `dtype`."""
    bits = stored_words.stored_bits(jnp.zeros((), dtype))
    words = np.linspace(0, 2**bits - 1, 256 if bits > 4 else 16).astype(np.uint64)
    if bits == 4:
        narrow = jnp.asarray(words.astype(np.uint8)).astype(jnp.uint4)
        return jax.lax.bitcast_convert_type(narrow, dtype), words
    unsigned = jnp.asarray(words.astype(f"uint{bits}"))
    return jax.lax.bitcast_convert_type(unsigned, dtype), words


def _words(x):
    bits = stored_words.stored_bits(x)
    stored = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{bits}"))
    return np.asarray(stored.astype(jnp.uint8) if bits == 4 else stored, np.uint64)


def test_flips_are_exact_on_every_kind_of_word_and_undo_themselves():
    """Spec, test 3: eleven dtypes in one program."""
    made = [_every_word(dtype) for dtype in DTYPES]
    rng = np.random.default_rng(0)
    flips = []
    for dtype, (x, words) in zip(DTYPES, made, strict=True):
        bits = stored_words.stored_bits(x)
        word = rng.integers(0, 2**bits, words.shape, np.uint64)
        word[::3] = 0
        narrow = jnp.asarray(word.astype(f"uint{max(8, bits)}"))
        flips.append(BitFlips(narrow, jnp.array(False)))
        assert x.dtype == dtype
    model = bit_flip(0.5)

    @jax.jit
    def twice(flips, xs):
        once = [model.inject(f, x) for f, x in zip(flips, xs, strict=True)]
        return once, [model.inject(f, x) for f, x in zip(flips, once, strict=True)]

    once, back = twice(flips, [x for x, _ in made])
    for flip, (x, words), y, z in zip(flips, made, once, back, strict=True):
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(
            _words(y), words ^ np.asarray(flip.word, np.uint64)
        )
        np.testing.assert_array_equal(_words(z), words)


def test_samples_fit_the_word(key):
    likes = [jax.ShapeDtypeStruct((64,), dtype) for dtype in DTYPES]
    keys = jax.random.split(key, len(likes))
    sampled = jax.eval_shape(lambda k: bit_flip(0.5).sample_each(k, likes), keys)
    for like, faults in zip(likes, sampled, strict=True):
        bits = max(8, stored_words.stored_bits(like))
        assert faults.word.shape == (64,) and faults.word.dtype == f"uint{bits}"


def test_float32_flips_agree_with_pytorchfi(golden):
    """Spec, test 7: the same flipped bit of the same weight, stored from PyTorchFI."""
    data = np.load(golden("fault_injection_torch.npz"))
    old, new = data["w32_old_new"].T
    bit = data["w32_site"][:, -1]
    faults = BitFlips(jnp.asarray(1 << bit.astype(np.uint32)), jnp.array(False))
    mine = jax.jit(bit_flip(0.1).inject)(faults, jnp.asarray(old))
    np.testing.assert_array_equal(_words(mine), _words(jnp.asarray(new)))


def test_flips_agree_with_mrfi(golden):
    """Spec, test 7: stored from MRFI."""
    data = np.load(golden("fault_injection_torch.npz"))
    x = data["mrfi_x"]
    codes = data["mrfi_sym8_codes"].astype(np.int8)
    flipped_codes = data["mrfi_sym8_flipped_codes"].astype(np.int8).view(np.uint8)
    for value, bits, word, expected in (
        (x, "mrfi_bits32", np.uint32, data["mrfi_float32_flipped_u32"]),
        (
            x.astype(np.float16),
            "mrfi_bits16",
            np.uint16,
            data["mrfi_float16_flipped_u16"],
        ),
        (codes, "mrfi_bits", np.uint8, flipped_codes),
    ):
        flips = np.left_shift(1, data[bits].astype(np.int64)).astype(word)
        faults = BitFlips(jnp.asarray(flips), jnp.array(False))
        mine = jax.jit(bit_flip(0.1).inject)(faults, jnp.asarray(value))
        np.testing.assert_array_equal(_words(mine), expected)


def test_rates_of_single_bits_and_codes_narrower_than_their_word(key):
    codes = jnp.zeros(1000, jnp.uint8)
    model = bit_flip([0.0, 1.0, 0.5], bits=3)
    flipped = np.asarray(model.inject(model.sample(key, codes), codes))
    assert set(np.unique(flipped)) == {2, 6}
    # A fair coin a thousand times: 4 standard deviations are 63.
    assert abs((flipped == 6).sum() - 500) < 63


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("keep", [np.inf, np.nan]), ("zero", [0, 0]), ("clamp", [3.0, 0])],
)
def test_what_becomes_of_nonfinite_values(policy, expected):
    x = jnp.array([1.0, 1.5, -3.0, jnp.inf])  # exponent bit 30 makes infinity, NaN
    word = jnp.array([1 << 30, 1 << 30, 0, 0], jnp.uint32)
    inject = jax.jit(bit_flip(0.1, nonfinite=policy).inject)
    faulty = inject(BitFlips(word, jnp.array(False)), x)
    np.testing.assert_array_equal(faulty, [*expected, -3.0, np.inf])


def test_gradients_stop_at_hits_or_go_straight_through():
    x = jnp.array([1.0, 2.0])
    faults = BitFlips(jnp.array([1 << 31, 0], jnp.uint32), jnp.array(False))
    for gradient, expected in (("masked", [0, 1]), ("straight_through", [1, 1])):
        inject = bit_flip(0.1, gradient=gradient).inject
        grad = jax.jit(jax.grad(lambda x, inject=inject: inject(faults, x).sum()))(x)
        np.testing.assert_array_equal(grad, expected)


def test_bad_input_is_named(key):
    with pytest.raises(ValueError, match="rate must be in .0, 1., got 2"):
        bit_flip(2)
    with pytest.raises(ValueError, match="rate must be in"):
        bit_flip([0.1, float("nan")])
    with pytest.raises(ValueError, match="nonfinite must be one of"):
        bit_flip(0.1, nonfinite="drop")
    with pytest.raises(ValueError, match="gradient must be one of"):
        bit_flip(0.1, gradient="none")
    with pytest.raises(ValueError, match="bits must be an integer"):
        bit_flip(0.1, bits=0)
    with pytest.raises(ValueError, match="bits must be an integer .* got True"):
        bit_flip(0.1, bits=True)
    with pytest.raises(ValueError, match="rate must be one number or 3, got shape"):
        bit_flip([0.1, 0.2], bits=3)
    with pytest.raises(ValueError, match="bits=9 exceeds the 8 bits of int8"):
        bit_flip(0.1, bits=9).sample(key, jnp.zeros(2, jnp.int8))
    for dtype in (bool, jnp.complex64):
        with pytest.raises(TypeError, match="x must be floating or integer of 4, 8"):
            bit_flip(0.1).sample(key, jnp.zeros(2, dtype))
