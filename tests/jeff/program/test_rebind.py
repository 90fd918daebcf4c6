"""What has no site inside is rebound untouched: kernels, partitioning, donation."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning

from jeff.program.rewrite import rewrite


def identity(site, op, x, w):
    return op(x, w)


def test_custom_partitioning_is_rebound_and_keeps_its_rules():
    @custom_partitioning
    def halve(x):
        return x / 2

    def partition(mesh, arg_shapes, result_shape):
        return mesh, lambda x: x / 2, result_shape.sharding, (arg_shapes[0].sharding,)

    halve.def_partition(
        partition=partition,
        infer_sharding_from_operands=lambda mesh, args, result: args[0].sharding,
        sharding_rule="i j -> i j",
    )

    def apply(params, x):
        return halve(x @ params["w"]) @ params["w"]

    params, x = {"w": jnp.eye(4)}, jnp.ones((2, 4))
    run = jax.jit(rewrite(apply, identity))
    assert (run(params, x) == jax.jit(apply)(params, x)).all()
    assert "custom_partitioning" in str(jax.make_jaxpr(run)(params, x))


def test_an_ffi_call_is_rebound_with_its_attributes():
    def apply(params, x):
        y = x @ params["w"]
        call = jax.ffi.ffi_call("a_kernel", jax.ShapeDtypeStruct(y.shape, y.dtype))
        return call(y, eps=np.float32(0.5)) @ params["w"]

    params, x = {"w": jnp.eye(4)}, jnp.ones((2, 4))
    text = str(jax.make_jaxpr(rewrite(apply, identity))(params, x))
    assert "a_kernel" in text and "eps" in text


def test_donation_belongs_to_the_outer_jit():
    params, x = {"w": jnp.eye(4)}, jnp.ones((4, 4))
    run = jax.jit(rewrite(lambda p, x: x + x @ p["w"], identity), donate_argnums=1)
    assert (run(params, x) == 2).all()
    assert x.is_deleted() and not params["w"].is_deleted()


def test_without_a_rule_a_dense_program_is_traced_once():
    traces = []

    def apply(params, x):
        traces.append(None)
        return x @ params["w"]

    jax.make_jaxpr(rewrite(apply))({"w": jnp.eye(4)}, jnp.ones((2, 4)))
    assert len(traces) == 1
