"""Single equations: arithmetic and bytes."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jeff.program import cost

X = jnp.ones((3, 4))


def equation(fn, *args):
    """The only equation of a program."""
    (eqn,) = jax.make_jaxpr(fn)(*args).eqns
    return eqn


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda x: x + 1.0, {"additions": 12}),
        (lambda x: x * x, {"multiplications": 12}),
        (lambda x: lax.integer_pow(x, 7), {"multiplications": 4 * 12}),
        (lambda x: lax.integer_pow(x, -2), {"multiplications": 12, "div": 12}),
        (lambda x: -x, {"neg": 12}),
        (jnp.sum, {"additions": 11}),
        (lambda x: jnp.max(x, axis=0), {"reduce_max": 8}),
        (lambda x: lax.argmax(x, 1, jnp.int32), {"argmax": 9}),
        (lambda x: lax.cumsum(x, axis=1), {"additions": 9}),
        (lambda x: lax.cumprod(x, axis=0), {"multiplications": 8}),
        (lambda x: lax.sort(x), {"sort": 12}),
        (lambda x: x.T, {}),
        (lambda x: x.astype(jnp.bfloat16), {}),
    ],
)
def test_arithmetic(fn, expected):
    found = cost.arithmetic(equation(fn, X))
    other = found.pop("other", {})
    flat = {**found, **other}
    assert {name: n for name, n in flat.items() if n} == expected


def test_windows_and_their_gradient():
    window = ((1, 2), (1, 2), "VALID")
    eqn = equation(lambda x: lax.reduce_window(x, 0.0, lax.add, *window), X)
    assert cost.arithmetic(eqn)["additions"] == 3 * 2
    pool = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, *window)  # noqa: E731
    backward = jax.make_jaxpr(lambda x, g: jax.vjp(pool, x)[1](g))(X, X[:, :2])
    (eqn,) = [e for e in backward.eqns if e.primitive.name == "select_and_scatter_add"]
    found = cost.arithmetic(eqn)
    assert found["additions"] == 6 and found["other"] == {eqn.primitive.name: 6}


def test_bytes_of_ordinary_equations_and_of_kernels():
    eqn = equation(lambda x: x + 1.0, X)
    assert cost.bytes_moved(eqn, in_kernel=False) == ({"float32": 48}, {"float32": 48})
    assert cost.bytes_moved(eqn, in_kernel=True) == ({}, {})


def test_bytes_of_updates_are_those_of_the_part():
    update, start = lax.dynamic_update_slice_p, jnp.int32(1)
    eqn = equation(lambda x, u, i: update.bind(x, u, i, i), X, X[:1], start)
    read, written = cost.bytes_moved(eqn, in_kernel=False)
    assert (read, written) == ({"float32": 16, "int32": 8}, {"float32": 16})


def test_a_reshape_is_free_unless_it_also_transposes():
    eqn = equation(lambda x: lax.reshape(x, (12,)), X)
    assert cost.bytes_moved(eqn, in_kernel=False) == ({}, {})
    eqn = equation(lambda x: lax.reshape(x, (12,), dimensions=(1, 0)), X)
    assert cost.bytes_moved(eqn, in_kernel=False) == ({"float32": 48}, {"float32": 48})
    assert cost.arithmetic(eqn) == {}


def test_keys_and_half_bytes():
    eqn = equation(lambda k: jax.random.split(k, 3), jax.random.key(0))
    read, written = cost.bytes_moved(eqn, in_kernel=False)
    assert (read, written) == ({"key<fry>": 8}, {"key<fry>": 24})
    eqn = equation(lambda x: -x, jnp.ones(5, jnp.int4))
    assert cost.bytes_moved(eqn, in_kernel=False) == ({"int4": 3}, {"int4": 3})


def test_unknown_is_none():
    assert cost.arithmetic(equation(jnp.linalg.cholesky, jnp.eye(2))) is None
