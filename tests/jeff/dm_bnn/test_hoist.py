"""What does not depend on the number of a turn is computed before the loop."""

import jax
import jax.numpy as jnp
import numpy as np

from jeff import count
from jeff.dm_bnn.hoist import hoisted

INT = jax.ShapeDtypeStruct((), jnp.int32)
X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
W = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4)), jnp.float32)


@jax.custom_vjp
def odd(x):
    return jnp.sin(x)


odd.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (2 * g * jnp.cos(x),))


def shared(x):
    """Loops, branches and derivatives of their own, all the same for every number."""
    x = jax.nn.relu(x @ W) + odd(x)
    x = jax.lax.scan(lambda h, w: (jnp.tanh(h * w), None), x, W[:, 0])[0]
    return jax.lax.cond(x.sum() > 0, jnp.cos, jnp.sin, x)


def branch(x, i):
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), i), x.shape)
    turned = odd(shared(x) * i.astype(jnp.float32)) + noise
    return {"y": turned @ W, "number": i, "same": x, "one": jnp.ones(2)}


def rest_of(x):
    return hoisted(lambda i: branch(x, i), INT)


def test_it_is_the_same_function():
    numbers = jnp.arange(5)

    @jax.jit
    def run(x):
        return (
            jax.lax.map(rest_of(x), numbers),
            jax.lax.map(rest_of(x), numbers, batch_size=2),
            jax.lax.map(lambda i: branch(x, i), numbers),
        )

    one, two, wanted = run(X)
    for found in (one, two):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted
        )


def test_only_what_depends_on_the_number_is_left():
    rest = rest_of(X)
    left = count(rest, jnp.int32(1))
    all_of_it = count(lambda i: branch(X, i), jnp.int32(1))
    assert left.macs == X.shape[0] * W.size  # the last product
    assert all_of_it.macs == 2 * X.shape[0] * W.size
    assert left.random_draws == all_of_it.random_draws == X.size
    assert "tanh" not in left.other and all_of_it.other["tanh"] == 4 * X.size


def test_what_is_made_of_numbers_alone_is_made_inside():
    def wide(i):
        return jnp.arange(10_000, dtype=jnp.float32) * i.astype(jnp.float32)

    made = jax.make_jaxpr(hoisted(wide, INT))(jnp.int32(1))
    assert not made.consts
    assert "iota" in {eqn.primitive.name for eqn in made.eqns}


def test_derivatives_go_through():
    def slope(make):
        def total(x):
            return jax.lax.map(make(x), jnp.arange(3))["y"].sum()

        return jax.jit(jax.grad(total))(X)

    wanted = slope(lambda x: lambda i: branch(x, i))
    np.testing.assert_allclose(slope(rest_of), wanted, rtol=1e-5, atol=1e-6)


def test_side_effects_stay_in_the_loop():
    seen = []

    def noisy(i):
        jax.debug.callback(lambda a: seen.append(float(a)), X.sum())
        return X * i.astype(jnp.float32)

    jax.block_until_ready(jax.lax.map(hoisted(noisy, INT), jnp.arange(3)))
    jax.effects_barrier()
    assert len(seen) == 3
