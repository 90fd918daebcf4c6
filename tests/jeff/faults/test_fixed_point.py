import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.faults import fixed_point_format, to_fixed_point

FORMAT = jax.jit(fixed_point_format)
ROUNDED = jax.jit(to_fixed_point, static_argnames=("bits", "saturate"))


@pytest.mark.parametrize(
    ("largest", "exponent"),
    [
        (1.0, 0),  # a power of two is its own range
        (np.nextafter(np.float32(1), np.float32(2)), 1),
        (np.nextafter(np.float32(1), np.float32(0)), 0),
        (0.3, -1),
        (5.0, 3),
        (0.0, -16),  # 1e-5 lies between 2^-17 and 2^-16
        (2.0**100, 100),
        (3e38, 127),  # there is no 2^128
    ],
)
def test_the_exponent_is_exact(largest, exponent):
    form = FORMAT(jnp.array([0.0, -largest], jnp.float32))
    assert int(form.exponent) == exponent
    assert float(form.full_scale) == 2.0**exponent
    assert float(form.step) == 2.0 ** (exponent - 7)


def test_rounds_half_to_even_and_saturates_by_hand():
    x = jnp.array([1.0, 0.125, 0.375, -1.0, 0.3])  # step 1/4
    paper = ROUNDED(x, bits=3, saturate="paper")
    np.testing.assert_array_equal(paper, [1.0, 0.0, 0.5, -1.0, 0.25])
    twos = ROUNDED(x, bits=3, saturate="twos_complement")
    np.testing.assert_array_equal(twos, [0.75, 0.0, 0.5, -1.0, 0.25])


def test_agrees_with_numpy_in_double_precision():
    x = jnp.asarray(np.random.default_rng(0).standard_normal(1000, np.float32) * 3)
    m = np.abs(np.asarray(x, np.float64)).max()
    step = 2.0 ** (np.ceil(np.log2(m)) - 7)
    expected = np.clip(np.rint(np.asarray(x, np.float64) / step), -128, 127) * step
    np.testing.assert_array_equal(ROUNDED(x), expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_rounding_twice_is_rounding_once_and_keeps_the_dtype(dtype):
    x = jnp.asarray(np.random.default_rng(0).standard_normal(50)).astype(dtype)
    once = ROUNDED(x, saturate="paper")
    assert once.dtype == dtype
    np.testing.assert_array_equal(ROUNDED(once, saturate="paper"), once)


def test_the_gradient_is_one_but_for_saturated_codes():
    x = jnp.array([1.0, 0.3, -1.0])
    for saturate, expected in (("paper", [1, 1, 1]), ("twos_complement", [0, 1, 1])):

        def total(x, saturate=saturate):
            return to_fixed_point(x, bits=3, saturate=saturate).sum()

        np.testing.assert_array_equal(jax.jit(jax.grad(total))(x), expected)


def test_infinities_and_nan_pass_and_do_not_set_the_range():
    x = jnp.array([1.5, 0.3, -0.7])
    odd = jnp.array([jnp.inf, -jnp.inf, jnp.nan])

    @jax.jit
    def run(x):
        return to_fixed_point(x), jax.grad(lambda x: to_fixed_point(x).sum())(x)

    rounded, grad = run(jnp.concatenate([x, odd]))
    np.testing.assert_array_equal(rounded, [*ROUNDED(x), *odd])
    np.testing.assert_array_equal(grad, [1] * 6)
    assert float(FORMAT(odd[:2]).full_scale) == 2.0**-16  # as of zeros


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="bits must be an integer from 2 to 16, got 1"):
        to_fixed_point(jnp.ones(2), bits=1)
    with pytest.raises(ValueError, match="bits must be an integer .* got True"):
        to_fixed_point(jnp.ones(2), bits=True)
    with pytest.raises(ValueError, match="saturate must be one of"):
        to_fixed_point(jnp.ones(2), saturate="wrap")
    with pytest.raises(TypeError, match="x must be floating, got int32"):
        fixed_point_format(jnp.ones(2, jnp.int32))


def test_an_empty_tensor_has_a_format():
    assert to_fixed_point(jnp.zeros((0, 3))).shape == (0, 3)
