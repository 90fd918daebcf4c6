"""What a rule may return, and the error for what it may not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.toy_stored import store

from jeff.program.rewrite import rewrite

W, X = jnp.ones((2, 3)), jnp.ones((4, 2))


def run(*rules, w=W):
    """One product through the rules, as a user would run it."""
    return jax.jit(rewrite(lambda p, x: x @ p["up"], *rules))({"up": w}, X)


def keeps(site, op, x, w):
    return op(x, w)


def forgets(site, op, x, w):
    op(x, w)


def returning(value):
    """A rule, called `bad`, that returns `value` or what it makes of the output."""

    def bad(site, op, x, w):
        return value(op(x, w)) if callable(value) else value

    return bad


BAD = {
    "nothing": (None, TypeError, "None: it must return the output"),
    "a string": ("y", TypeError, "a str, not an array"),
    "a tuple": (lambda y: (y, y), TypeError, "a tuple, not an array"),
    "a stored weight": (store(W), TypeError, "a Toy, not an array"),
    "another shape": (lambda y: y.T, ValueError, r"shape \(3, 4\), expected \(4"),
    "a number": (1.0, ValueError, r"shape \(\), expected \(4, 3\)"),
    "integers": (lambda y: y.astype(jnp.int8), TypeError, "int8, expected float32"),
    "truths": (lambda y: y > 0, TypeError, "bool, expected float32"),
    "complex": (lambda y: jax.lax.complex(y, y), TypeError, "complex64, expected"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("place", ["alone", "outer", "inner"])
def test_the_error_names_the_rule_and_the_site(name, place):
    value, kind, text = BAD[name]
    bad = returning(value)
    rules = {"alone": [bad], "outer": [bad, keeps], "inner": [keeps, bad]}[place]
    with pytest.raises(kind, match=f"^rule bad at site 'up' returned {text}"):
        run(*rules)


def test_a_rule_that_forgets_to_return_is_named_and_not_the_one_around_it():
    doubling = lambda site, op, x, w: 2 * op(x, w)  # noqa: E731
    with pytest.raises(TypeError, match="^rule forgets at site 'up' returned None"):
        run(doubling, forgets)


def test_partial_functions_and_objects_are_named_by_what_they_are():
    class Noise:
        def __call__(self, site, op, x, w):
            return None

    with pytest.raises(TypeError, match="^rule Noise at site"):
        run(Noise())
    with pytest.raises(TypeError, match="^rule forgets at site"):
        run(functools.partial(functools.partial(forgets)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_another_floating_dtype_is_converted_at_every_rule(dtype):
    seen = []

    def outer(site, op, x, w):
        y = op(x, w)
        seen.append(y.dtype)
        return y

    y = run(outer, returning(lambda y: y.astype(dtype)))
    assert y.dtype == jnp.float32 and seen == [jnp.float32]


def test_an_array_of_numpy_is_an_array():
    y = run(returning(np.full((4, 3), 5, np.float32)))
    np.testing.assert_array_equal(y, np.full((4, 3), 5))


def test_in_a_loop_the_rule_and_the_site_are_named_too():
    def layers(p, x):
        return jax.lax.scan(lambda h, w: (h @ w, None), x, p["layers"])[0]

    bad = returning(lambda y: y.T)
    with pytest.raises(ValueError, match=r"rule bad at site 'layers' returned shape"):
        rewrite(layers, bad)({"layers": jnp.ones((3, 2, 2))}, X)


def test_a_rule_may_refuse_a_program_before_it_runs():
    told = []

    class Checked:
        def check(self, sites):
            told.append([site.name for site in sites])
            if told[-1] != ["up"]:
                raise ValueError("no site of mine")

        def __call__(self, site, op, x, w):
            told.append("ran")
            return op(x, w)

    run(keeps, Checked())
    assert told == [["up"], "ran"]
    with pytest.raises(ValueError, match="no site of mine"):
        rewrite(lambda p, x: x @ p["down"], Checked())({"down": W}, X)
    assert told[2:] == [["down"]]
