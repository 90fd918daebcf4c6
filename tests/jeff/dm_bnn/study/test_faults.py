"""Flips of means, standard deviations and the twin: what is hit, and by the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.dm_bnn.study import faults
from jeff.models import digits_mlp

KEY = jax.random.key(4)


@pytest.fixture(scope="module")
def trained():
    """Stored values, of the shapes of a small network."""

    def params(number):
        draw = np.random.default_rng(number).uniform(0.1, 1, (40, 50))
        leaves = {"kernel": draw.astype(np.float16), "bias": draw[0].astype(np.float16)}
        return {"fc1": jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), leaves)}

    return digits_mlp.Trained(params(0), params(1), params(2))


@pytest.fixture(scope="module")
def damaged():
    return jax.jit(faults.damage, static_argnames=("words", "max_rate"))


def _bits(a, b, unsigned=np.uint16, words=np.float16):
    """The bits in which two arrays of stored values differ."""
    first, second = (np.asarray(x).astype(words).view(unsigned) for x in (a, b))
    return first ^ second


def test_no_rate_no_harm(trained, damaged):
    found = damaged(KEY, 0.0, trained, words="float16", max_rate=0.01)
    assert not found.overflow
    jax.tree.map(np.testing.assert_array_equal, found.mean, trained.mean)
    jax.tree.map(
        np.testing.assert_array_equal, found.deterministic, trained.deterministic
    )
    np.testing.assert_array_equal(found.std["fc1"], trained.std["fc1"]["kernel"])


def test_means_and_twin_are_hit_by_the_same_flips(trained, damaged):
    found = damaged(KEY, 0.01, trained, words="float16", max_rate=0.01)
    for leaf in ("kernel", "bias"):
        of_mean = _bits(found.mean["fc1"][leaf], trained.mean["fc1"][leaf])
        twin = trained.deterministic["fc1"][leaf]
        of_twin = _bits(found.deterministic["fc1"][leaf], twin)
        finite = np.isfinite(found.mean["fc1"][leaf]) & np.isfinite(
            found.deterministic["fc1"][leaf]
        )  # the payload of a NaN does not survive the cast
        np.testing.assert_array_equal(of_mean[finite], of_twin[finite])
        assert of_twin[finite].any() or leaf == "bias"  # of 800 bits
    of_std = _bits(found.std["fc1"], trained.std["fc1"]["kernel"])
    of_mean = _bits(found.mean["fc1"]["kernel"], trained.mean["fc1"]["kernel"])
    assert (of_std != of_mean).sum() > 100


@pytest.mark.parametrize(
    ("words", "unsigned", "bits"),
    [("float16", np.uint16, 16), ("float32", np.uint32, 32)],
)
def test_every_stored_bit_is_flipped_at_the_rate(
    trained, damaged, words, unsigned, bits
):
    """2,000 words of each kind; four standard deviations."""
    found = damaged(KEY, 0.01, trained, words=words, max_rate=0.01)
    before, after = trained.std["fc1"]["kernel"], found.std["fc1"]
    flips = int(np.bitwise_count(_bits(after, before, unsigned, words)).sum())
    expected = 0.01 * bits * before.size
    assert abs(flips - expected) < 4 * expected**0.5


def test_flips_at_a_lower_rate_are_some_of_those_at_a_higher_one(trained, damaged):
    low, high = (
        _bits(
            damaged(KEY, rate, trained, words="float16", max_rate=0.01).std["fc1"],
            trained.std["fc1"]["kernel"],
        )
        for rate in (0.002, 0.01)
    )
    assert low.any() and not (low & ~high).any() and (high & ~low).any()


def test_words_that_are_stored():
    words = faults.stored_words(digits_mlp.load())
    weights = 64 * 100 + 100 * 100 + 100 * 10
    assert words == {
        "bayesian": 2 * weights + 210, "deterministic": weights + 210,
    }  # fmt: skip


def test_a_nan_is_wrong_for_who_has_it():
    """A NaN among the means spoils all but what does not use them."""
    found = digits_mlp.load()
    _, test = digits_mlp.split()

    def clean(params):  # at rate 0 and at two others, as in the tiny study
        return jax.tree.map(lambda a: jnp.stack([a, a, a]), params)

    def spoiled(params):
        return jax.tree.map(
            lambda a: jnp.stack([a, *[a.at[(0,) * a.ndim].set(jnp.nan)] * 2]), params
        )

    damaged = faults.Damaged(
        spoiled(found.mean),
        faults._kernels(clean(found.std)),
        clean(found.deterministic),
        jnp.zeros(3, bool),
    )
    right = faults._right(
        damaged, jnp.asarray(test.images[:100]), jnp.asarray(test.labels[:100]), KEY, 2
    )
    by_network = dict(zip(faults.NETWORKS, np.asarray(right).tolist(), strict=True))
    for name in ("bayesian", "only_means", "one_pass"):
        fine, *hit = by_network[name]
        assert fine > 90 and hit == [0, 0]
    for name in ("only_stds", "deterministic"):
        fine, *hit = by_network[name]
        assert hit == [fine, fine] and fine > 90
