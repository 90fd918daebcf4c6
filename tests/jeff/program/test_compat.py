"""The facts about JAX's own programs that differ between its versions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jeff.program import compat


def equation(fn, *args, name=None):
    eqns = jax.make_jaxpr(fn)(*args).jaxpr.eqns
    return next(e for e in eqns if name is None or e.primitive.name == name)


def test_a_scans_layout():
    def fn(a, b, c, xs):
        body = lambda carry, x: ((carry[0] + a, carry[1] * b), x)  # noqa: E731
        return jax.lax.scan(body, (c, c), xs)

    x = jnp.ones(3)
    assert compat.scan_layout(equation(fn, x, x, x, jnp.ones((2, 3)), name="scan")) == (
        2,
        2,
    )


def test_binding_one_equation_keeps_values_literals_and_derivatives():
    x = jnp.arange(3.0)
    add = equation(lambda x: x + 2.0, x)
    np.testing.assert_array_equal(compat.bind(add, [x, None])[0], x + 2.0)

    @jax.custom_jvp
    def odd(x):
        return 2.0 * x

    odd.defjvp(lambda p, t: (odd(*p), 7.0 * t[0]))
    eqn = equation(odd, x)
    assert eqn.primitive.name in compat.CUSTOM_DERIVATIVES
    grad = jax.grad(lambda x: compat.bind(eqn, [x])[0].sum())(x)
    np.testing.assert_array_equal(grad, [7.0, 7.0, 7.0])


def test_binding_drops_outputs_nobody_reads_and_takes_a_value_twice():
    top = equation(lambda x: jax.lax.top_k(x, 1)[0], jnp.arange(3.0), name="top_k")
    values, places = compat.bind(top, [jnp.arange(3.0)])
    assert values.tolist() == [2.0] and places.tolist() == [2]
    square = equation(lambda x: x * x, jnp.arange(3.0))
    assert compat.bind(square, [jnp.arange(3.0)] * 2)[0].tolist() == [0.0, 1.0, 4.0]


@pytest.mark.parametrize(
    "wrap", [jax.jit, jax.checkpoint, lambda f: jax.checkpoint(jax.jit(f))]
)
def test_calls_have_an_inner_program(wrap):
    eqn = equation(wrap(jnp.sin), jnp.ones(2))
    assert eqn.primitive.name in compat.CALLS
    inner = compat.open_jaxpr(compat.inner_jaxpr(eqn))
    assert inner.eqns and len(inner.invars) == 1
    assert tuple(compat.consts_of(compat.inner_jaxpr(eqn))) == ()
    with pytest.raises(ValueError, match="equation 'sin' has no sub-program"):
        compat.inner_jaxpr(equation(jnp.sin, jnp.ones(2)))


def test_literals_are_told_from_variables():
    eqn = equation(lambda x: x * 3.0, jnp.ones(2))
    assert [compat.is_literal(a) for a in eqn.invars] == [False, True]


def test_the_manual_axes_of_a_shard_map():
    mesh = jax.make_mesh(
        (1, 1), ("a", "b"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:1]
    )
    spec = PartitionSpec("a")
    mapped = jax.shard_map(
        jnp.sin, mesh=mesh, in_specs=spec, out_specs=spec, axis_names={"a"}
    )
    eqn = equation(lambda x: mapped(x), jnp.ones(2), name="shard_map")
    assert compat.shard_map_axes(eqn) == {"a"}
    with pytest.raises(ValueError, match="manual axes"):
        compat.shard_map_axes(equation(jnp.sin, jnp.ones(2)))
