"""Stages: run one after another they are the program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import fault_nets, zoo

from jeff.program.stages import stages


def run_all(cut, params, values):
    for stage in range(len(cut.pieces)):
        values = cut.run(stage, params, values)
    return values


def test_stages_in_a_row_are_the_program():
    net = fault_nets.residual()
    x = net.data.inputs
    cut = stages(net.apply, ["short", "first", "stem", "second"], net.params, x)
    assert cut.sites == ("stem", "first", "second", "short")
    # Behind "first" the residual stream is needed too, behind "short" both branches.
    assert [len(live) for live in cut.live] == [1, 2, 2, 2]
    assert [p.sites() for p in cut.pieces][-2:] == [("down", "short"), ("head",)]
    (got,) = jax.jit(lambda p, x: run_all(cut, p, [x]))(net.params, x)
    np.testing.assert_allclose(got, net.apply(net.params, x), rtol=1e-5, atol=1e-6)


def test_stages_can_be_mapped_over_examples():
    net = fault_nets.mlp()
    x = net.data.inputs
    cut = stages(net.apply, ["up"], net.params, x[:1])
    (got,) = jax.vmap(lambda x: run_all(cut, net.params, [x]))(x[:, None])
    np.testing.assert_allclose(got[:, 0], net.data.golden, rtol=1e-5, atol=1e-6)


def test_captured_arrays_and_computed_weights_are_there_in_every_stage():
    scale = jnp.arange(3.0)

    def apply(p, x):
        w = p["w"] * scale
        return jnp.tanh(x @ w) @ w + scale

    p, x = {"w": jnp.ones((3, 3))}, jnp.eye(3)
    cut = stages(apply, ["w"], p, x)
    (got,) = jax.jit(lambda p, x: run_all(cut, p, [x]))(p, x)
    np.testing.assert_allclose(got, jax.jit(apply)(p, x), rtol=1e-6)


def test_errors():
    net = fault_nets.mlp()
    x = net.data.inputs
    with pytest.raises(ValueError, match="no site 'upp'; nearest: up"):
        stages(net.apply, ["upp"], net.params, x)
    with pytest.raises(ValueError, match="names a site twice"):
        stages(net.apply, ["up", "up"], net.params, x)
    case = zoo.build("plain_cond_branches")
    with pytest.raises(ValueError, match="site 'a' lies in a branch"):
        stages(case.apply, ["a"], case.params, *case.inputs)
