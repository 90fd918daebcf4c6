"""Fake quantizers: straight-through gradients, dtypes, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.quantize.config import QuantConfig
from jeff.quantize.fake_quant import fake_quant, fake_quant_activations

CONFIG = QuantConfig(bits=3, group_size=16)


def weight(shape=(64, 8), dtype=jnp.float32):
    return jax.random.normal(jax.random.key(0), shape).astype(dtype)


def test_gradient_passes_straight_through():
    w, g = weight(), jax.random.normal(jax.random.key(1), (64, 8))
    _, pull = jax.vjp(lambda w: fake_quant(w, CONFIG), w)
    np.testing.assert_array_equal(pull(g)[0], g)
    _, pull = jax.vjp(lambda x: fake_quant_activations(x, bits=8), w)
    np.testing.assert_array_equal(pull(g)[0], g)


def test_forward_mode_vmap_and_jit():
    stack = weight((3, 64, 8))
    one = jnp.stack([fake_quant(w, CONFIG) for w in stack])
    np.testing.assert_array_equal(fake_quant(stack, CONFIG), one)
    mapped = jax.jit(jax.vmap(lambda w: fake_quant(w, CONFIG)))
    np.testing.assert_array_equal(mapped(stack), one)
    _, tangent = jax.jvp(lambda w: fake_quant(w, CONFIG), (stack,), (one,))
    np.testing.assert_array_equal(tangent, one)


def test_idempotent():
    # Levels decode to themselves when the range keeps both ends.
    w = jnp.asarray([[-1.0], [0.0], [1.0], [2.0]])
    once = fake_quant(w, QuantConfig(bits=2))
    np.testing.assert_array_equal(fake_quant(once, QuantConfig(bits=2)), once)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_dtypes_are_computed_in_float32(dtype):
    w = weight(dtype=dtype)
    wide = fake_quant(w.astype(jnp.float32), CONFIG)
    got = fake_quant(w, CONFIG)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, wide.astype(dtype))
    x = fake_quant_activations(w, bits=8)
    assert x.dtype == dtype
    np.testing.assert_array_equal(
        x, fake_quant_activations(w.astype(jnp.float32), bits=8).astype(dtype)
    )


def test_a_token_does_not_see_the_others():
    x = weight((4, 16))
    loud = x.at[0].multiply(100)
    np.testing.assert_array_equal(
        fake_quant_activations(loud, bits=4)[1:], fake_quant_activations(x, bits=4)[1:]
    )
    whole = fake_quant_activations(loud, bits=4, per="tensor")
    assert (whole[1:] != fake_quant_activations(x, bits=4)[1:]).any()


def test_errors():
    with pytest.raises(ValueError, match="2 to 16, got 1"):
        fake_quant_activations(weight(), bits=1)
    with pytest.raises(ValueError, match="'channel'"):
        fake_quant_activations(weight(), bits=8, per="channel")
    with pytest.raises(ValueError, match=r"group_size 48 .* \(64,\)"):
        fake_quant(weight(), QuantConfig(bits=3, group_size=48))
    with pytest.raises(TypeError, match="w must be floating, got int32"):
        fake_quant(weight().astype(jnp.int32), CONFIG)
    for bits in (8.0, "8", None):
        with pytest.raises(TypeError, match=f"bits must be an integer, got {bits!r}"):
            fake_quant_activations(weight(), bits=bits)
    with pytest.raises(TypeError, match="x must be floating, got int32"):
        fake_quant_activations(jnp.arange(4), bits=8)
