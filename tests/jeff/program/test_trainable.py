"""Params split for ``jax.grad`` and put together again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import zoo
from support.stored import Rounded, rounded

from jeff import base, tree
from jeff.program.trainable import merge, trainable

X = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3), np.float32))
W = jnp.asarray(np.random.default_rng(1).standard_normal((3, 2), np.float32))


def mixed():
    """Floats of three widths, integers, a flag, a key, a stored weight, a hole."""
    return {
        "half": jnp.ones(2, jnp.bfloat16),
        "list": [jnp.ones(2), jnp.arange(3), None, 1.5, 2],
        "flag": jnp.array(True),
        "key": jax.random.key(3),
        "stored": rounded(W),
        "complex": jnp.ones(1, jnp.complex64),
    }


def test_split_takes_exactly_the_floats():
    floats, rest = trainable(mixed())
    assert [
        tree.path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(floats)
    ] == [
        "half",
        "list.0",
        "list.3",
        "stored.scale",
    ]
    assert floats["stored"].integers is None
    assert rest["stored"].scale is None
    assert rest["stored"].integers.dtype == jnp.int8


def test_round_trip_is_exact():
    params = mixed()
    back = merge(*trainable(params))
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True):
        assert a is b
    assert isinstance(back["stored"], Rounded)


@pytest.mark.parametrize("name", zoo.params())
def test_round_trip_of_every_model(name):
    params = zoo.build(name).params
    floats, rest = trainable(params)
    back = jax.jit(merge)(floats, rest)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    assert all(jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(floats))
    total = len(jax.tree.leaves(floats)) + len(jax.tree.leaves(rest))
    assert total == len(jax.tree.leaves(params))


def test_gradient_reaches_the_scale_of_a_stored_weight():
    params = {"w": rounded(W), "b": jnp.zeros(2)}

    def loss(params):
        y = X @ base.decoded(params)["w"] + params["b"]
        return jnp.sum(y * y)

    with pytest.raises(TypeError, match="int8"):
        jax.grad(loss)(params)
    floats, rest = trainable(params)
    gradients = jax.jit(jax.grad(lambda f: loss(merge(f, rest))))(floats)
    w = params["w"]
    y = X @ w.decode()
    by_hand = jnp.sum(
        (X.T @ (2 * y)) * w.integers.astype(jnp.float32), axis=0, keepdims=True
    )
    np.testing.assert_allclose(gradients["w"].scale, by_hand, rtol=1e-5)
    np.testing.assert_allclose(gradients["b"], jnp.sum(2 * y, 0), rtol=1e-5)
    assert gradients["w"].integers is None


def test_where_selects_by_name():
    floats, rest = trainable(mixed(), lambda name, leaf: name.endswith(".scale"))
    assert len(jax.tree.leaves(floats)) == 1
    back = merge(floats, rest)
    assert jax.tree.structure(back) == jax.tree.structure(mixed())


def test_works_under_vmap_over_stacked_floats():
    params = {"w": rounded(W)}
    floats, rest = trainable(params)
    stacked = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), floats)
    ys = jax.vmap(lambda f: X @ merge(f, rest)["w"].decode())(stacked)
    np.testing.assert_allclose(ys[1], 2 * ys[0], rtol=1e-6)


def test_halves_of_different_trees_are_refused():
    floats, rest = trainable({"a": 1.0, "b": 2})
    with pytest.raises(ValueError, match="not halves of one params tree"):
        merge(floats, {"a": None})
    with pytest.raises(ValueError, match="both have a leaf 'b'"):
        merge({"a": 1.0, "b": 3.0}, rest)
