"""Which tokens may be drawn, and how often they are."""

import functools

import jax
import numpy as np

from jeff.models import sampling

P = np.asarray([[0.02, 0.4, 0.08, 0.3, 0.2], [0.2, 0.2, 0.2, 0.2, 0.2]])
SCORES = np.log(P).astype(np.float32)


likelier = jax.jit(sampling.likelier, static_argnames="top_k")


def kept(**options):
    return np.isfinite(likelier(SCORES, **options)).astype(int)


def test_the_likelier_tokens():
    np.testing.assert_array_equal(kept(top_k=2), [[0, 1, 0, 1, 0], [1] * 5])
    half = np.float32(0.5)  # 0.4 is not enough, 0.4 + 0.3 is
    np.testing.assert_array_equal(kept(top_p=half)[0], [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(kept(top_p=np.float32(1e-6))[0], [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(kept(top_p=np.float32(1.0))[0], [1] * 5)
    # Of the two that are left, 0.4 / 0.7 is 57 %.
    np.testing.assert_array_equal(kept(top_k=2, top_p=half)[0], [0, 1, 0, 0, 0])


def test_draws_have_the_right_frequencies():
    draws = 4000
    temperature = 2.0
    scores = np.tile(SCORES[:1], (draws, 1))  # every row draws with its own key
    drawn = jax.jit(functools.partial(sampling.sample, top_k=4))(
        jax.random.key(1), scores, 0, temperature=temperature
    )
    expected = np.where(P[0] > 0.05, P[0], 0) ** (1 / temperature)
    expected /= expected.sum()
    found = np.bincount(drawn, minlength=5) / draws
    # Five standard errors of a binomial share.
    assert (abs(found - expected) <= 5 * np.sqrt(expected / draws)).all()
    assert found[0] == 0


def test_a_row_does_not_depend_on_the_others():
    scores = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)
    scores[1] = scores[2]
    draw = functools.partial(
        jax.jit(sampling.sample, static_argnames="top_k"),
        jax.random.key(1),
        temperature=1.3,
        top_k=20,
        top_p=np.float32(0.9),
    )
    steps = [np.asarray(draw(scores, i)) for i in range(8)]
    other = scores[[0, 3, 1, 2]] / 2
    other[0] = scores[0]
    for i in range(4):
        assert draw(other, i)[0] == steps[i][0]
    assert len({int(drawn[0]) for drawn in steps}) > 1
    assert any(drawn[1] != drawn[2] for drawn in steps)  # the same scores
