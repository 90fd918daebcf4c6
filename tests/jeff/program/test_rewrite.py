"""Rewriting: nothing changes without a rule, and everything composes with one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import zoo
from support.compare import assert_close, assert_same
from support.stored import rounded
from support.toy_stored import Toy, store, store_sites

from jeff import base, program, quantize, tree
from jeff.program.rewrite import Rewritten, rewrite
from jeff.program.sites import sites


def identity(site, op, x, w):
    del site
    return op(x, w)


@functools.cache
def plain(name):
    """The case's program, compiled, with its loss and gradient."""
    return jax.jit(_with_gradient(zoo.build(name)))


def _with_gradient(case):
    def run(params):
        out = case.bound()(params, *case.inputs)
        if not case.differentiable:
            return out, None
        return out, jax.grad(case.loss, allow_int=True)(params)

    return run


def _rewritten(case, *rules):
    return dataclasses.replace(case, apply=rewrite(case.apply, *rules))


def _stored(name):
    case = zoo.build(name)
    found = sites(case.apply, case.params, *case.inputs, axis_sizes=case.axis_sizes)
    return store_sites(case.params, found)


# Without a rule, and with one that changes nothing.


@pytest.mark.parametrize("name", zoo.params(without=("named_axis",)))
def test_without_rules_the_program_is_the_same_equation_by_equation(name):
    # Bit-identity of outputs and gradients without compiling anything: equations are
    # rebound with their own parameters, derivatives included.
    case = zoo.build(name)
    leaves, treedef = jax.tree.flatten((case.params, *case.inputs))

    def text(fn):
        run = lambda *leaves: fn(*jax.tree.unflatten(treedef, leaves))  # noqa: E731
        return str(jax.make_jaxpr(run)(*leaves))

    assert text(rewrite(case.apply)) == text(case.apply)


@pytest.mark.parametrize("name", zoo.params())
def test_the_identity_rule_changes_no_bit_of_outputs_or_gradients(name):
    case = zoo.build(name)
    got = jax.jit(_with_gradient(_rewritten(case, identity)))(case.params)
    assert_same(got, plain(name)(case.params))


@pytest.mark.parametrize("name", ["plain_mlp", "plain_scan_layers", "nnx_mlp"])
@pytest.mark.parametrize("rules", [(), (identity,)], ids=["no rule", "identity"])
def test_eager_runs_agree_to_rounding(name, rules):
    case = zoo.build(name)
    expected, gradient = _with_gradient(case)(case.params)
    got, new_gradient = _with_gradient(_rewritten(case, *rules))(case.params)
    assert_close(got, expected, 1e-6)
    assert_close(new_gradient, gradient, 2e-6)


# Stored weights.


@pytest.mark.parametrize("name", zoo.params())
def test_stored_weights_give_what_their_dense_weights_give(name):
    case, stored = zoo.build(name), _stored(name)
    assert any(base.is_stored(w) for w in tree.flatten(stored)[0].values())
    run = jax.jit(lambda params: case.bound(rewrite(case.apply))(params, *case.inputs))
    expected, _ = plain(name)(base.decoded(stored))
    assert_same(run(stored), expected)
