import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.faults import StuckAt, stuck_at

NONE = jnp.array(False)


def test_stuck_bits_read_their_value_whatever_was_written():
    codes = np.arange(256, dtype=np.uint8)
    stuck = np.random.default_rng(0).integers(0, 256, 256).astype(np.uint8)
    value = stuck & np.random.default_rng(1).integers(0, 256, 256).astype(np.uint8)
    faults = StuckAt(jnp.asarray(stuck), jnp.asarray(value), NONE)
    inject = jax.jit(stuck_at(0.1).inject)
    once = np.asarray(inject(faults, jnp.asarray(codes)))
    np.testing.assert_array_equal(once, (codes & ~stuck) | value)
    np.testing.assert_array_equal(inject(faults, jnp.asarray(once)), once)


def test_rates_shares_and_nestedness(key):
    n = 4000

    @jax.jit
    def sample(rate):
        model = stuck_at(rate, one_share=0.25, max_rate=0.04)
        return model.sample(key, jax.ShapeDtypeStruct((n,), jnp.float32))

    low, high = (jax.tree.map(np.asarray, sample(rate)) for rate in (0.01, 0.04))
    assert not high.overflow and (low.stuck & ~high.stuck == 0).all()
    assert (high.value & low.stuck == low.value).all()
    bits = n * 32
    count, ones = (np.bitwise_count(w).sum() for w in (high.stuck, high.value))
    assert abs(count - 0.04 * bits) < 4 * math.sqrt(0.04 * bits)
    assert abs(ones / count - 0.25) < 4 * math.sqrt(0.25 * 0.75 / count)


def test_gradients_stop_where_bits_change_and_nonfinite_values_are_guarded():
    x = jnp.array([1.0, -1.0, 1.0])
    sign, exponent = jnp.uint32(1 << 31), jnp.uint32(1 << 30)
    stuck = jnp.array([sign, sign, exponent], jnp.uint32)
    faults = StuckAt(stuck, stuck, NONE)  # -1 already has its sign; 1 becomes infinite
    for gradient, expected in (("masked", [0, 1, 0]), ("straight_through", [1, 1, 1])):
        inject = stuck_at(0.1, gradient=gradient, nonfinite="clamp").inject

        def total(x, inject=inject):
            y = inject(faults, x)
            return y.sum(), y

        grad, y = jax.jit(jax.grad(total, has_aux=True))(x)
        np.testing.assert_array_equal(grad, expected)
        np.testing.assert_array_equal(y, [-1.0, -1.0, 1.0])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="one_share must be in .0, 1., got 2"):
        stuck_at(0.1, one_share=2)
    with pytest.raises(ValueError, match="rate must be in"):
        stuck_at(-0.1)
    with pytest.raises(ValueError, match="bits must be an integer"):
        stuck_at(0.1, bits=40)
    with pytest.raises(ValueError, match="bits must be an integer .* got True"):
        stuck_at(0.1, bits=True)
