"""Moves of a stored weight: each decodes to the move of the dense weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from support.stored import rounded
from support.toy_stored import Toy, store

from jeff import base
from jeff.program import stored_view

W = jax.random.normal(jax.random.key(0), (4, 6, 2))

# Name of the primitive to a function that makes one equation of it.
MOVES = {
    "copy": lambda w: lax.copy_p.bind(w),
    "convert_element_type": lambda w: w.astype(jnp.bfloat16),
    "transpose": lambda w: jnp.transpose(w, (2, 0, 1)),
    "reshape": lambda w: lax.reshape(w, (8, 6), dimensions=(0, 2, 1)),
    "squeeze": lambda w: lax.squeeze(w[:1], (0,)),
    "broadcast_in_dim": lambda w: lax.broadcast_in_dim(w, (1, 4, 6, 2), (1, 2, 3)),
    "slice": lambda w: lax.slice(w, (1, 0, 0), (3, 6, 2)),
    "split": lambda w: lax.split(w, (1, 3), axis=0),
    "dynamic_slice": lambda w: lax.dynamic_slice(w, (1, 0, 0), (2, 6, 2)),
    "gather": lambda w: w.at[jnp.array([3, 1])].get(mode="clip"),
    "optimization_barrier": lambda w: lax.optimization_barrier(w),
}


def equation(fn, name):
    eqns = jax.make_jaxpr(fn)(W).eqns
    return next(e for e in eqns if e.primitive.name == name)


@pytest.mark.parametrize("name", MOVES)
def test_a_move_keeps_the_weight_stored(name):
    eqn = equation(MOVES[name], name)
    w = store(W, (1,))
    if name == "squeeze":
        w = w.slice((0, 0, 0), (1, 6, 2))
    rest = [a.val if hasattr(a, "val") else jnp.array([[3], [1]]) for a in eqn.invars]
    outs = stored_view.moved(eqn, [w, *rest[1:]])
    dense = eqn.primitive.bind(w.decode(), *rest[1:], **eqn.params)
    for out, expected in zip(
        outs, dense if eqn.primitive.multiple_results else [dense], strict=True
    ):
        assert isinstance(out, Toy)
        np.testing.assert_array_equal(out.decode(), expected)


@pytest.mark.parametrize(
    ("name", "fn"),
    [
        ("mul", lambda w: w * 2.0),
        ("rev", lambda w: lax.rev(w, (0,))),
        ("slice", lambda w: w[::2]),
        ("broadcast_in_dim", lambda w: jnp.broadcast_to(w, (3, 4, 6, 2))),
    ],
)
def test_what_is_more_than_a_move_is_left_to_the_caller(name, fn):
    assert stored_view.moved(equation(fn, name), [store(W, (1,))]) is None


@pytest.mark.parametrize("name", ["transpose", "reshape", "slice", "split", "gather"])
def test_a_weight_that_offers_no_view_is_left_to_the_caller(name):
    w = rounded(W)
    assert base.is_stored(w)
    rest = [jnp.array([[3], [1]])]
    assert stored_view.moved(equation(MOVES[name], name), [w, *rest]) is None
