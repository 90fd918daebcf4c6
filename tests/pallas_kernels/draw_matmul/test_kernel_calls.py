"""The kernel behind the public function: when it runs, maps, derivatives, refusals."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import hopper
from pallas_kernels.draw_matmul import Config, dispatch, draw_matmul, resolve

K, N, T = 5, 3, 2
SMALL = Config(voters=1, depth=8)


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    x, mean, std = rng.normal(size=K), rng.normal(size=(K, N)), rng.uniform(size=(K, N))
    keys = jax.random.split(jax.random.key(0), T)
    return keys, *(jnp.asarray(a, jnp.float32) for a in (x, mean, std))


def check_same(function, arrays):
    """``function(product, *arrays)`` is the same with the kernel and with plain XLA."""

    def by(implementation):
        def product(*arrays):
            return draw_matmul(*arrays, implementation=implementation, config=SMALL)

        return jax.jit(lambda *arrays: function(product, *arrays))(*arrays)

    for got, wanted in zip(by("interpret"), by("xla"), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_maps_are_voters_and_branches(arrays):
    def mapped(product, keys, x, mean, std):
        def voter(key, x):
            return product(key[None], x, mean, std)[0]

        voters = jax.vmap(voter, (0, None))
        branches = jax.vmap(voters)(keys[:, None], jnp.stack([x, 2 * x]))
        return voters(keys, x), branches

    check_same(mapped, arrays)


def test_a_map_over_matrices_is_a_loop(arrays):
    def mapped(product, keys, x, mean, std):
        means = jnp.stack([mean, -mean])
        return (jax.vmap(lambda mean: product(keys, x, mean, std))(means),)

    check_same(mapped, arrays)


def test_derivatives(arrays):
    def gradients(product, keys, *others):
        return jax.grad(lambda *a: (product(keys, *a) ** 2).sum(), (0, 1, 2))(*others)

    check_same(gradients, arrays)


def light(key, count):
    del key
    return jnp.ones(count)


REFUSED = {
    "method must be 'dm', got 'scale_location'": {"method": "scale_location"},
    "draw must be the default": {"draw": light},
    "keys must be of threefry2x32, got rbg": {
        "keys": jax.random.split(jax.random.key(0, impl="rbg"), T)
    },
    "one row per branch of voters, got 2": {"x": jnp.ones((2, K))},
    "mean must be of": {"mean": jax.ShapeDtypeStruct((K, N), jnp.float8_e4m3fn)},
    "does not fit": {"config": Config(split_k=2)},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_the_kernel_refuses_goes_to_xla(arrays, reason, monkeypatch):
    names = "keys", "x", "mean", "std"
    arguments = dict(zip(names, arrays, strict=True)) | REFUSED[reason]
    for name in ("mosaic_gpu", "interpret"):
        match = re.escape(f"{name}: ") + ".*" + re.escape(reason)
        with pytest.raises(NotImplementedError, match=match):
            resolve(**arguments, implementation=name)
    assert resolve(**arguments, implementation=("mosaic_gpu", "xla")) == "xla"
    with pytest.raises(ExceptionGroup, match="no implementation"):
        resolve(**arguments, implementation=("mosaic_gpu", "interpret"))
    monkeypatch.setattr(hopper, "is_hopper", lambda: True)
    monkeypatch.setattr(dispatch, "_alone", lambda: True)
    assert resolve(**arguments) == "xla"


def test_the_kernel_needs_partitionable_keys(arrays):
    with jax.threefry_partitionable(False):
        with pytest.raises(NotImplementedError, match="jax_threefry_partitionable"):
            draw_matmul(*arrays, implementation="interpret")


def test_none_takes_the_kernel_on_one_hopper_gpu(arrays, monkeypatch):
    assert resolve(*arrays) == "xla"  # no GPU here
    monkeypatch.setattr(hopper, "is_hopper", lambda: True)
    monkeypatch.setattr(jax, "devices", lambda: [object()])
    assert resolve(*arrays) == "mosaic_gpu"
    monkeypatch.setattr(jax, "devices", lambda: [object()] * 2)
    assert resolve(*arrays) == "xla"


def test_the_public_function_lowers_the_kernel_for_cuda(arrays):
    product = jax.jit(lambda *a: draw_matmul(*a, implementation="mosaic_gpu"))
    lowered = product.trace(*arrays).lower(lowering_platforms=("cuda",))
    assert "mosaic_gpu" in lowered.as_text()
