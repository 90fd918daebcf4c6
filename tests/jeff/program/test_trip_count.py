"""Scalar integers followed through programs, and what a loop's test says of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jeff.program.trip_count import Known, of_while, while_inputs


def loop_of(fn, *args):
    """The ``while`` equation of a program and what is known around it."""
    jaxpr = jax.make_jaxpr(fn)(*args)
    known = Known(jaxpr, [None] * len(jaxpr.jaxpr.invars))
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "while":
            return eqn, known
        known.read(eqn)
    raise AssertionError("no loop")


def test_constants_and_arithmetic_are_followed():
    limit = np.int32(7)

    def program(x):
        n = lax.max(lax.convert_element_type(limit, jnp.int32) * 2 - 3, 5)
        return lax.while_loop(lambda i: i < n, lambda i: i + 1, -n), x

    assert of_while(*loop_of(program, 0.0)) == (22, True)


def test_values_that_wrap_around_are_not_known():
    def program(x):
        n = lax.convert_element_type(jnp.int32(100), jnp.int8) + jnp.int8(100)
        return lax.while_loop(
            lambda i: i < n, lambda i: i + jnp.int8(1), jnp.int8(0)
        ), x

    assert of_while(*loop_of(program, 0.0)) == (None, False)


def test_arrays_and_floats_are_not_counters():
    def floats(x):
        return lax.while_loop(lambda i: i < 3.0, lambda i: i + 1.0, 0.0), x

    def arrays(x):
        test = lambda i: jnp.all(i < 3)  # noqa: E731
        return lax.while_loop(test, lambda i: i + 1, jnp.zeros(2, jnp.int32)), x

    assert of_while(*loop_of(floats, 0.0)) == (None, False)
    assert of_while(*loop_of(arrays, 0.0)) == (None, False)


@pytest.mark.parametrize("add", [lambda i, n: i + n, lambda i, n: n + i])
def test_a_carry_handed_on_unchanged_is_a_constant(add):
    def program(x):
        carry = (jnp.int32(0), jnp.int32(3))
        test = lambda c: c[0] < 4 * c[1]  # noqa: E731
        return lax.while_loop(test, lambda c: (add(*c), c[1]), carry), x

    eqn, known = loop_of(program, 0.0)
    assert while_inputs(eqn, known) == ([None, 3], [None, 3])
    assert of_while(eqn, known) == (4, True)


@pytest.mark.parametrize(
    ("test", "body"),
    [
        (lambda c: c[0] < 10, lambda c: (c[0] * 2, c[1])),  # no fixed step
        (lambda c: c[0] < 10, lambda c: (c[1], c[0] + 1)),  # carries change places
        (lambda c: c[0] < c[1], lambda c: (c[0] + 1, c[1] - 1)),  # the bound moves
        (lambda c: c[0] != 6, lambda c: (c[0] + 2, c[1])),  # steps over its bound
        (lambda c: (c[0] < 5) | (c[1] < 9), lambda c: (c[0] + 1, c[1])),
    ],
)
def test_other_loops_have_no_known_count(test, body):
    def program(x):
        return lax.while_loop(test, body, (jnp.int32(1), jnp.int32(6))), x

    assert of_while(*loop_of(program, 0.0)) == (None, False)


def test_the_smallest_of_several_bounds():
    def program(x):
        test = lambda c: (c[0] < 10) & (c[1] > 0)  # noqa: E731
        body = lambda c: (c[0] + 1, c[1] - 2)  # noqa: E731
        return lax.while_loop(test, body, (jnp.int32(0), jnp.int32(9))), x

    assert of_while(*loop_of(program, 0.0)) == (5, True)
