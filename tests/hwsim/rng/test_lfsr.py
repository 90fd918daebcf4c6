"""Shift registers against the slow model, and their periods."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hwsim.rng import lfsr, reference
from hwsim.rng.lfsr import FORMS, Lfsr

# Width, bits per word, form: one word and two, ragged bytes, leaps of all lengths, and
# taps at stage 1 (32), where a leap depends on bits that it has just made.
CASES = [
    Lfsr(width=5, bits=1),
    Lfsr(width=8, bits=8, form="galois"),
    Lfsr(width=19, bits=7),
    Lfsr(width=32, bits=32),
    Lfsr(width=33, bits=12, form="galois"),
    Lfsr(width=64, bits=8),
    Lfsr(width=10, bits=3, taps=(10, 9, 1)),
]


WORDS = jax.jit(lfsr.words, static_argnums=(1, 2))
SPACED = jax.jit(lfsr.spaced, static_argnums=(1, 2))
BANK = jax.jit(lfsr.bank, static_argnums=(1, 2))


def as_integers(state):
    return [
        sum(int(word) << 32 * i for i, word in enumerate(row))
        for row in np.asarray(state).reshape(-1, state.shape[-1])
    ]


@pytest.mark.parametrize("register", CASES, ids=str)
def test_words_are_those_of_the_slow_model(register, key):
    state = BANK(key, register, (3,))
    words, after = WORDS(state, register, 6)
    arguments = register.width, register.taps, register.form, register.bits
    for lane, expected in enumerate(as_integers(state)):
        for i in range(6):
            word, expected = reference.lfsr_word(expected, *arguments)
            assert int(words[i, lane]) == word
        assert as_integers(after)[lane] == expected


@pytest.mark.parametrize("register", CASES[2:6], ids=str)
def test_one_clock_is_that_of_the_slow_model(register, key):
    state = BANK(key, register, (4,))
    step = jax.jit(lfsr.step, static_argnums=1)
    for _ in range(3):
        bit, after = step(state, register)
        expected = [
            reference.lfsr_step(s, register.width, register.taps, register.form)
            for s in as_integers(state)
        ]
        assert [(int(b), s) for b, s in zip(bit, as_integers(after), strict=True)] == (
            expected
        )
        state = after


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("width", [3, 8, 11])
def test_every_state_but_zero_comes_once_in_a_period(width, form):
    register = Lfsr(width=width, bits=1, form=form)
    state, seen = 1, set()
    for _ in range(2**width - 1):
        _, state = reference.lfsr_step(state, width, register.taps, form)
        seen.add(state)
    assert len(seen) == 2**width - 1 and state == 1
    # A period of the sequence has one 1 more than zeros, compiled too.
    count = 2**width - 1
    words, after = WORDS(jnp.array([1], jnp.uint32), register, count)
    assert int(words.sum()) == 2 ** (width - 1) and int(after[0]) == 1


def test_spaced_registers_are_at_equal_distances():
    register = Lfsr(width=9, bits=1, form="galois")
    banked = as_integers(SPACED(jnp.array([77], jnp.uint32), register, 10))
    state = 77
    for expected in banked:
        assert state == expected
        for _ in range((2**9 - 1) // 10):
            _, state = reference.lfsr_step(state, 9, register.taps, "galois")
    wide = Lfsr(width=64)
    first = BANK(jax.random.key(0), wide, ())
    assert len(set(as_integers(SPACED(first, wide, 20)))) == 20


def test_gates_of_a_leap_are_counted_from_its_matrix():
    # One clock of taps (8, 6, 5, 4) adds four bits: three gates. Eight clocks, by hand
    # from b[t] = b[t-8] ^ b[t-6] ^ b[t-5] ^ b[t-4]: the first four words of new bits
    # need three gates each; later ones contain new bits.
    assert Lfsr(width=8, bits=1).xor_gates == 3
    assert Lfsr(width=8, bits=4).xor_gates == 12
    assert Lfsr(width=8, bits=1, form="galois").xor_gates == 3
    assert Lfsr(width=64, bits=8).xor_gates == 24


def test_a_register_of_zeros_is_refused():
    register = Lfsr(width=40)
    state = jnp.array([[1, 0], [0, 0]], jnp.uint32)
    for run in (
        lambda: lfsr.words(state, register, 1),
        lambda: lfsr.step(state, register),
        lambda: lfsr.spaced(state[1], register, 2),
    ):
        with pytest.raises(ValueError, match="stays at zero"):
            run()
    with pytest.raises(ValueError, match="in 1 .. 2"):
        reference.lfsr_step(0, 8, (8, 6, 5, 4))


def test_random_states_are_never_zero_and_fit_the_width():
    register = Lfsr(width=3, bits=1)  # one state in eight would be zero
    state = np.asarray(BANK(jax.random.key(1), register, (4000,))).ravel()
    seen = np.bincount(state, minlength=8)
    assert seen[0] == 0 and state.max() == 7
    # 1 stands for 0 too: 1000 expected against 500, each within 4.5 standard errors.
    expected = np.array([0, 1000, 500, 500, 500, 500, 500, 500])
    assert (abs(seen - expected) <= 4.5 * np.sqrt(expected)).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 65}, "width must be 3 to 64"),
        ({"width": 16, "bits": 17}, "bits must be 1 to 16"),
        ({"form": "ring"}, "form must be one of"),
        ({"width": 8, "taps": (8, 9)}, "taps must fall"),
        ({"width": 8, "taps": (7, 6)}, "taps must fall"),
        ({"width": 8, "taps": (8, 0)}, "taps must fall"),
    ],
)
def test_settings_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        Lfsr(**fields)


def test_states_of_another_shape_or_type_are_refused():
    with pytest.raises(ValueError, match="uint32 .*got int32"):
        lfsr.words(jnp.ones((2, 2), jnp.int32), Lfsr(), 1)
    with pytest.raises(ValueError, match=r"got uint32 \(1,\)"):
        lfsr.words(jnp.ones(1, jnp.uint32), Lfsr(width=40), 1)
    with pytest.raises(ValueError, match="count must be 1 to"):
        lfsr.spaced(jnp.ones(1, jnp.uint32), Lfsr(width=3, bits=1), 7)
