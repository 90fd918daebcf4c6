"""The kernel on every case: in the interpreter, and lowered for CUDA without a GPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import threefry
from pallas_kernels.draw_matmul import cases, mosaic_gpu, reference
from pallas_kernels.draw_matmul.options import Options


def exact(arrays):
    """The product in float64, with normals drawn by JAX, and the size of its terms."""
    columns = jnp.arange(arrays.mean.shape[1])
    size = arrays.mean.shape[0]
    fold = jax.vmap(
        jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None)), (0, None)
    )
    draw = jax.vmap(jax.vmap(jax.vmap(lambda key: jax.random.normal(key, (size,)))))
    noise = np.asarray(jax.jit(lambda k, n: draw(fold(k, n)))(arrays.keys, columns))
    x, mean, std = (np.asarray(a, np.float64) for a in arrays[1:])
    w = mean + std * noise.astype(np.float64).swapaxes(-1, -2)
    terms = np.abs(mean) + std * np.abs(noise.swapaxes(-1, -2))
    return (
        np.einsum("gbk,gtkn->gtbn", x, w),
        np.einsum("gbk,gtkn->gtbn", np.abs(x), terms),
    )


@functools.cache
def wanted(name):
    return exact(cases.make(cases.CASES[name]))


def run(name, **how):
    case = cases.CASES[name]
    options = Options(config=case.config)
    product = functools.partial(mosaic_gpu.multiply, options=options, **how)
    return jax.jit(product)(*cases.make(case))


def check(name, got, units=6):
    # A normal number is within 4 units in the last place of JAX's (test_gaussian), and
    # products with std and sqrt(2) round twice; each of K additions rounds once.
    want, size = wanted(name)
    got = np.asarray(got, np.float64)
    assert got.shape == want.shape
    steps = units + cases.CASES[name].size
    assert np.all(np.abs(got - want) <= steps * 2.0**-23 * size)


@pytest.mark.parametrize("name", cases.CASES)
def test_kernel_in_the_interpreter(name):
    check(name, run(name, interpret=True))


def test_kernel_has_no_races():
    name = "tiles used again"
    check(name, run(name, interpret=True, detect_races=True))


def test_the_reference_is_held_to_the_same():
    name = "copies, ragged K"
    arrays = cases.make(cases.CASES[name])
    product = functools.partial(reference.multiply, options=Options())
    check(name, jax.jit(product)(*arrays))


@pytest.mark.parametrize("name", cases.CASES)
def test_kernel_lowers_for_cuda(name):
    case = cases.CASES[name]
    options = Options(config=case.config)
    product = jax.jit(functools.partial(mosaic_gpu.multiply, options=options))
    lowered = product.trace(*cases.make(case)).lower(lowering_platforms=("cuda",))
    assert "mosaic_gpu" in lowered.as_text()


def test_arithmetic_of_a_draw_is_that_of_the_rounds():
    """20 rounds and 5 + 1 injections of 2 words; 4 rotations of a round are 3 steps."""
    word = jax.ShapeDtypeStruct((), jnp.uint32)
    jaxpr = jax.make_jaxpr(lambda a, b, c: threefry.bits((a, b), c))(word, word, word)
    names = [eqn.primitive.name for eqn in jaxpr.eqns]
    # Additions: one a round, two an injection, one constant in each of the last five.
    assert names.count("add") == 20 + 6 * 2 + 5
    assert names.count("shift_left") == names.count("shift_right_logical") == 20
    assert names.count("or") == 20 and names.count("xor") == 20 + 3


@pytest.mark.gpu
@pytest.mark.parametrize("name", cases.CASES)
def test_kernel_on_a_gpu(name):
    got = run(name)
    check(name, got, units=10)  # the logarithm and the inverse root are approximate
    np.testing.assert_array_equal(got, run(name))
