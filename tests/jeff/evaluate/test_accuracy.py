import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.evaluate import accuracy, correct


def test_top_1_is_argmax_also_with_ties(key):
    logits = jax.random.randint(key, (200, 7), 0, 4).astype(jnp.float32)  # many ties
    labels = jax.random.randint(jax.random.fold_in(key, 1), (200,), 0, 7)
    np.testing.assert_array_equal(correct(logits, labels), logits.argmax(-1) == labels)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_equals_sorting(key, k):
    logits = jax.random.normal(key, (3, 50, 5))
    labels = jax.random.randint(jax.random.fold_in(key, 1), (3, 50), 0, 5)
    best = np.argsort(-np.asarray(logits), axis=-1, kind="stable")[..., :k]
    expected = (best == np.asarray(labels)[..., None]).any(-1)
    np.testing.assert_array_equal(correct(logits, labels, k=k), expected)
    np.testing.assert_allclose(accuracy(logits, labels, k=k), expected.mean(), 1e-6)


def test_jit_vmap_and_no_retrace(key):
    logits = jax.random.normal(key, (4, 10, 6), jnp.bfloat16)
    labels = jnp.arange(40).reshape(4, 10) % 6
    traced = jax.jit(jax.vmap(chex.assert_max_traces(accuracy, n=1)))
    loop = jnp.stack([accuracy(x, y) for x, y in zip(logits, labels, strict=True)])
    for _ in range(2):
        np.testing.assert_array_equal(traced(logits, labels), loop)
    assert loop.dtype == jnp.float32


def test_nan_is_never_correct():
    logits = jnp.array([[jnp.nan, 0.0], [0.0, jnp.nan], [0.0, jnp.nan]])
    assert correct(logits, jnp.array([0, 1, 0])).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("shape", "labels", "k", "error", "message"),
    [
        ((4, 3), jnp.zeros(5, jnp.int32), 1, ValueError, r"\(4, 3\).*\(5,\)"),
        ((4, 3), jnp.zeros(4), 1, TypeError, "float32"),
        ((4, 3), jnp.zeros(4, jnp.int32), 4, ValueError, "k=4"),
        ((4, 3), jnp.zeros(4, jnp.int32), 0, ValueError, "k=0"),
    ],
)
def test_errors_name_the_value(shape, labels, k, error, message):
    with pytest.raises(error, match=message):
        correct(jnp.zeros(shape), labels, k=k)
