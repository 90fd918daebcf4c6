"""Traces: made once per signature, over dense shapes, and let go of in time."""

import gc
import weakref

import jax
import jax.numpy as jnp
import pytest
from support.toy_stored import store

from jeff.program import blocks, rewrite, sites, trace


def counted():
    calls = []

    def apply(params, x, *, scale=1.0):
        calls.append(x.shape)
        return {"y": x @ params["w"] * scale}

    return apply, calls


def test_one_trace_per_signature_stored_or_dense():
    apply, calls = counted()
    tracer, w = trace.tracer_of(apply), jnp.eye(2)
    first = tracer.trace({"w": w}, (jnp.ones((1, 2)),), {})
    again = tracer.trace({"w": store(w)}, (jnp.zeros((1, 2)),), {})
    assert again.jaxpr is first.jaxpr and calls == [(1, 2)]
    assert first.names == ("w",) and first.out_tree == jax.tree.structure({"y": 0})
    shapes = jax.eval_shape(lambda: ({"w": w}, (jnp.ones((1, 2)),)))
    assert tracer.trace(*shapes, {}).jaxpr is first.jaxpr
    tracer.trace({"w": w}, (jnp.ones((3, 2)),), {"scale": 2.0})
    assert calls == [(1, 2), (3, 2)]


def test_a_function_has_one_tracer_and_is_not_kept_alive():
    apply, _ = counted()
    tracer = trace.tracer_of(apply)
    assert trace.tracer_of(apply) is tracer
    tracer.trace({"w": jnp.eye(2)}, (jnp.ones((1, 2)),), {})
    gone = weakref.ref(apply)
    del apply
    gc.collect()
    assert gone() is None
    with pytest.raises(ReferenceError, match="no longer exists"):
        _ = tracer.apply


def test_methods_are_told_apart_by_their_object():
    class Model:
        def __init__(self, gain):
            self.gain = gain

        def apply(self, params, x):
            return self.gain * x @ params["w"]

    one, two = Model(1.0), Model(2.0)
    assert trace.tracer_of(one.apply) is trace.tracer_of(one.apply)
    assert trace.tracer_of(one.apply) is not trace.tracer_of(two.apply)


def test_callables_without_weak_references_work():
    class Slots:
        __slots__ = ()

        def __call__(self, params, x):
            return x @ params["w"]

    tracer = trace.tracer_of(Slots())
    assert tracer.trace({"w": jnp.eye(2)}, (jnp.ones((1, 2)),), {}).names == ("w",)


def test_named_axes_are_bound_by_their_sizes():
    def apply(params, x):
        return jax.lax.psum(x @ params["w"], ("i", "j"))

    args = ({"w": jnp.eye(2)}, (jnp.ones((1, 2)),), {})
    tracer = trace.tracer_of(apply)
    with pytest.raises(ValueError, match=r"named axis .* axis_sizes"):
        tracer.trace(*args)
    assert tracer.trace(*args, {"i": 2, "j": 3}).jaxpr.out_avals[0].shape == (1, 2)
    with_both = trace.with_axes(apply, {"i": 2, "j": 3})
    assert with_both(args[0], *args[1]).tolist() == [[6.0, 6.0]]


def test_other_errors_of_the_program_are_its_own():
    def apply(params, x):
        return x @ params["missing"]

    with pytest.raises(KeyError, match="missing"):
        trace.tracer_of(apply).trace({"w": jnp.eye(2)}, (jnp.ones((1, 2)),), {})


def test_params_are_compared_with_those_of_the_trace():
    apply, _ = counted()
    traced = trace.tracer_of(apply).trace({"w": jnp.eye(2)}, (jnp.ones((1, 2)),), {})
    assert list(trace.check_params(traced, {"w": store(jnp.eye(2))})) == ["w"]
    for params, what in (
        ({}, "has no leaf 'w'"),
        ({"w": jnp.eye(2), "v": 1.0}, "has a leaf 'v' too many"),
        ({"w": jnp.eye(3)}, r"has 'w' of \(3, 3\), not \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=f"params does not fit .* it {what}"):
            trace.check_params(traced, params)


@pytest.mark.parametrize("make", [sites, rewrite, lambda apply: blocks(apply, {})])
def test_a_program_must_be_a_function(make):
    with pytest.raises(TypeError, match="apply must be a function, got a int"):
        make(3) if make is not sites else sites(3, {})


def test_a_leaf_that_is_no_array_is_named():
    with pytest.raises(TypeError, match="params leaf 'name' is a str, not an array"):
        sites(lambda p, x: x, {"name": "hi"}, 1.0)
    with pytest.raises(TypeError, match=r"inputs\[0\] is a str, not an array"):
        sites(lambda p, x: x, {}, "hi")
