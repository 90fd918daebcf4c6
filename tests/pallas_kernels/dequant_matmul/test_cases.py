"""Every implementation on every case, against float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import bits as layouts
from pallas_kernels.dequant_matmul import cases, dequant_matmul, mosaic_gpu
from pallas_kernels.dequant_matmul.operand import Operand

KERNEL = [name for name, case in cases.CASES.items() if case.kernel]
SYNCHRONIZED = [  # several warpgroups, or shared memory used again
    name
    for name in KERNEL
    if (config := cases.CASES[name].config)
    and (config.warpgroups > 1 or config.stages == 1)
]


unpack = jax.jit(layouts.unpack, static_argnames=("bits", "axis", "stride"))


def exact(case, arrays):
    """The product and its size, ``|x| @ |W|``, in float64."""
    codes = unpack(arrays.packed, bits=case.bits, axis=-2, stride=case.stride)
    codes = np.asarray(codes, np.float64)[..., : case.size, :]

    def wide(a):
        return np.repeat(np.asarray(a, np.float64), case.group_size, -2)

    zero = 2.0 ** (case.bits - 1) if arrays.zero is None else wide(arrays.zero)
    w, x = (codes - zero) * wide(arrays.scale), np.asarray(arrays.x, np.float64)
    return x @ w, np.abs(x) @ np.abs(w)


def check(case, arrays, got):
    # One rounding to 24 bits per weight and per partial sum, of random sign: a walk of
    # 2 K steps of at most 2^-24 of |x| @ |W|, each; four standard deviations.
    want, size = exact(case, arrays)
    error = np.abs(np.asarray(got, np.float64) - want) / size
    assert error.max() <= 4 * (2 * case.size) ** 0.5 * 2.0**-24


def run(name, implementation, **options):
    case = cases.CASES[name]
    arrays = cases.make(case)
    got = dequant_matmul(
        *arrays,
        bits=case.bits,
        group_size=case.group_size,
        stride=case.stride,
        config=case.config,
        implementation=implementation,
        preferred_element_type=jnp.float32,
        **options,
    )
    return case, arrays, got


@functools.cache
def interpreted(name):
    return run(name, "interpret")


@pytest.mark.parametrize("implementation", ["reference", "xla"])
@pytest.mark.parametrize("name", cases.CASES)
def test_plain_implementations(name, implementation):
    check(*run(name, implementation))


@pytest.mark.parametrize("name", [n for n in cases.CASES if "stack" not in n])
def test_xla_by_tiles(name):
    check(*run(name, "xla", tile=1024))


@pytest.mark.parametrize("name", KERNEL)
def test_kernel_in_the_interpreter(name):
    check(*interpreted(name))


@pytest.mark.parametrize("name", SYNCHRONIZED)
def test_kernel_has_no_races(name):
    case = cases.CASES[name]
    arrays = cases.make(case)
    w = Operand(
        words=arrays.packed,
        scale=arrays.scale,
        zero=arrays.zero,
        bits=case.bits,
        stride=case.stride,
        size=case.size,
    )
    got = mosaic_gpu.multiply(
        arrays.x, w, config=case.config, interpret=True, detect_races=True
    )
    check(case, arrays, got)


@pytest.mark.parametrize("name", KERNEL)
def test_kernel_lowers_for_cuda(name):
    case = cases.CASES[name]
    arrays = cases.make(case)

    def product(x, packed, scale, zero):
        return dequant_matmul(
            x,
            packed,
            scale,
            zero,
            bits=case.bits,
            group_size=case.group_size,
            config=case.config,
            implementation="mosaic_gpu",
        )

    lowered = jax.jit(product).trace(*arrays).lower(lowering_platforms=("cuda",))
    assert "mosaic_gpu" in lowered.as_text()


@pytest.mark.parametrize("name", [n for n, c in cases.CASES.items() if not c.kernel])
def test_kernel_refuses_what_it_cannot_do(name):
    with pytest.raises(NotImplementedError, match="mosaic_gpu: "):
        run(name, "mosaic_gpu")


def test_kernel_is_equal_from_run_to_run():
    *_, first = interpreted("w3 two warpgroups")
    *_, second = run("w3 two warpgroups", "interpret")
    np.testing.assert_array_equal(first, second)


def test_kernel_rounds_its_result_once():
    case, arrays, wide = interpreted("w4")
    narrow = dequant_matmul(
        *arrays, bits=case.bits, group_size=case.group_size, implementation="interpret"
    )
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_array_equal(narrow, wide.astype(jnp.bfloat16))


@pytest.mark.gpu
@pytest.mark.parametrize("name", KERNEL)
def test_kernel_on_a_gpu(name):
    case, arrays, got = run(name, "mosaic_gpu")
    check(case, arrays, got)
    *_, again = run(name, "mosaic_gpu")
    np.testing.assert_array_equal(got, again)
