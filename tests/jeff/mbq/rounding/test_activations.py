import jax.numpy as jnp
import numpy as np
import pytest
from support.case import normal

import jeff
from jeff import mbq, quantize


def test_only_products_with_packed_weights_are_rounded():
    params = {"a": normal(0, 8, 8), "b": normal(1, 8, 4)}
    apply = lambda p, x: (x @ p["a"]) @ p["b"]  # noqa: E731
    stored = quantize.quantize(params["b"], quantize.QuantConfig(bits=8))
    x = normal(2, 3, 8)
    h = quantize.fake_quant_activations(x @ params["a"], bits=4)
    run = jeff.rewrite(apply, mbq.quantized_activations(4))
    np.testing.assert_allclose(
        run({**params, "b": stored}, x), h @ stored.decode(), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_array_equal(run(params, x), apply(params, x))


@pytest.mark.parametrize("bits", [1, 17])
def test_width_is_checked(bits):
    with pytest.raises(ValueError, match=rf"bits must be in \[2, 16\], got {bits}"):
        mbq.quantized_activations(bits)


def test_width_of_another_type():
    with pytest.raises(TypeError, match="bits must be an integer, got '8'"):
        mbq.quantized_activations("8")


def test_low_precision_keeps_its_dtype():
    w = quantize.quantize(jnp.eye(4, dtype=jnp.bfloat16), quantize.QuantConfig(bits=8))
    run = jeff.rewrite(lambda p, x: x @ p, mbq.quantized_activations(8))
    assert run(w, jnp.ones((2, 4), jnp.bfloat16)).dtype == jnp.bfloat16
