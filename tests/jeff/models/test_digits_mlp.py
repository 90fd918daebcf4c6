"""The digits' network, its split of the data, and the trained weights in the wheel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import tree
from jeff.data import embedded
from jeff.models import digits_mlp


@pytest.fixture(scope="module")
def found():
    return digits_mlp.load()


def test_apply_is_three_products(found):
    x = np.random.default_rng(0).random((5, 64))
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), found.mean)
    h = np.maximum(x @ wide["fc1"]["kernel"] + wide["fc1"]["bias"], 0)
    h = np.maximum(h @ wide["fc2"]["kernel"] + wide["fc2"]["bias"], 0)
    expected = h @ wide["fc3"]["kernel"] + wide["fc3"]["bias"]
    logits = digits_mlp.apply(found.mean, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_init_has_the_sizes_and_variance_of_he(key):
    params = jax.eval_shape(digits_mlp.init, key)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 17_610
    fc2 = jax.jit(lambda key: digits_mlp.init(key)["fc2"])(key)
    assert not np.any(fc2["bias"])
    # The variance of 10,000 draws is off by sqrt(2 / 10,000), 1.4 %; four of them.
    assert abs(np.var(fc2["kernel"]) * 100 / 2 - 1) < 0.057


def test_split_is_fixed_and_complete():
    train, test = digits_mlp.split()
    assert (len(train.labels), len(test.labels)) == (1197, 600)
    digits = embedded.load_digits()
    both = np.concatenate([train.images, test.images])
    assert sorted(map(bytes, (both * 16).astype(np.uint8))) == sorted(
        map(bytes, digits.images)
    )
    assert both.min() == 0 and both.max() == 1 and both.dtype == np.float32
    # Every digit is in both parts in about the same share.
    shares = np.bincount(test.labels) / np.bincount(digits.labels)
    assert (abs(shares - 1 / 3) < 0.1).all()
    again, _ = digits_mlp.split()
    np.testing.assert_array_equal(again.labels, train.labels)


def test_preprocess_refuses_other_sizes():
    with pytest.raises(ValueError, match=r"\(2, 28, 28\)"):
        digits_mlp.preprocess(np.zeros((2, 28, 28)))


def test_load_gives_three_trees_alike(found):
    structure = jax.tree.map(jnp.shape, found.mean)
    for params in (found.std, found.deterministic):
        assert jax.tree.map(jnp.shape, params) == structure
    for name, std in tree.flatten(found.std)[0].items():
        assert std.dtype == jnp.float32
        assert ((np.asarray(std) > 0) == name.endswith("kernel")).all()
        assert (np.asarray(std) < 1).all()
