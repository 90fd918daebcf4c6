"""The zoo itself: every model runs, is finite, and is described correctly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import zoo

from jeff import tree

# These tests compile much and compute little.
QUICK = {"xla_backend_optimization_level": 0}


def _finite(x):
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return True
    return bool(np.isfinite(np.asarray(x, np.float32)).all())


@pytest.mark.parametrize("name", zoo.params())
def test_runs_under_jit_with_finite_outputs_twice_alike(name):
    case = zoo.build(name)
    run = jax.jit(case.bound(), compiler_options=QUICK)
    first, second = (run(case.params, *case.inputs) for _ in range(2))
    leaves = jax.tree.leaves(first)
    assert leaves
    for a, b in zip(leaves, jax.tree.leaves(second), strict=True):
        assert _finite(a)
        np.testing.assert_array_equal(_plain(a), _plain(b))


def _plain(x):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(x)
    return x


@pytest.mark.parametrize("name", zoo.params())
def test_expected_sites_are_leaves_and_get_a_gradient(name):
    case = zoo.build(name)
    leaves, _ = tree.flatten(case.params)
    derived = set().union(*case.derived) if case.derived else set()
    assert not derived & set(case.linears)
    expected = {*case.linears, *case.lookups, *derived}
    assert expected <= set(leaves)
    loss = jax.grad(case.loss, allow_int=True)
    gradient = jax.jit(loss, compiler_options=QUICK)
    if not case.differentiable:
        with pytest.raises(ValueError, match="[Rr]everse-mode"):
            gradient(case.params)
        return
    gradients, _ = tree.flatten(gradient(case.params))
    stopped = {"frozen"} if name == "plain_barriers" else set()
    for leaf in expected - stopped:
        if jnp.issubdtype(leaves[leaf].dtype, jnp.floating):
            assert _finite(gradients[leaf])
            assert float(jnp.abs(gradients[leaf].astype(jnp.float32)).max()) > 0, leaf


def test_every_framework_is_there():
    prefixes = {name.split("_")[0] for name in zoo.NAMES}
    assert "plain" in prefixes
    assert len(zoo.NAMES) == len(set(zoo.NAMES)) > 50 or len(prefixes) < 5


def test_cases_are_chosen_by_mark():
    chosen = zoo.params("scan", "remat")
    assert "plain_remat_in_scan" in chosen
    assert "plain_remat_block" not in chosen
    assert "plain_recurrent" not in zoo.params("scan", without=("scan_const",))


def test_named_axes_are_bound_by_the_caller():
    case = zoo.build("plain_psum_open")
    with pytest.raises(NameError):
        case.apply(case.params, *case.inputs)
    (x,) = case.inputs
    y = x @ case.params["w"]
    np.testing.assert_allclose(
        case.bound()(case.params, x), jnp.stack([2.5 * y] * 2), rtol=1e-5
    )
