"""Dynamic quantization of activations, as a rule of the rewritten program."""

from jeff import base, quantize
from jeff.quantize import checks

__all__ = ["quantized_activations"]


def quantized_activations(bits: int) -> base.Rule:
    """A rule that rounds the input of every product whose weight is a `QTensor`.

    Up to 8 bits the product is one of integers, `jeff.quantize.integer_dots`; wider
    codes are decoded and multiplied as floating numbers.

    Args:
      bits: Width of the symmetric codes, one scale per token, found at run time.

    Returns:
      The rule. Give it last: rules after it do not see products of integers.

    Raises:
      TypeError: If `bits` is no integer.
      ValueError: If `bits` is not in [2, 16].

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff import program
      >>> symmetric = quantize.QuantConfig(bits=4, symmetric=True)
      >>> w = quantize.quantize(7 * jnp.eye(2), symmetric)
      >>> apply = program.rewrite(lambda p, x: x @ p["w"], quantized_activations(4))
      >>> print(apply({"w": w}, jnp.array([[7.0, 3.4]])))
      [[49. 21.]]
    """
    if not 2 <= checks.integer(bits, "bits") <= 16:
        raise ValueError(f"bits must be in [2, 16], got {bits}")
    if bits <= 8:
        return quantize.integer_dots(bits)

    def rule(site, op, x, w):
        if isinstance(w, quantize.QTensor) and site.kind in ("dot", "ragged_dot"):
            x = quantize.fake_quant_activations(x, bits=bits)
        return op(x, w)

    return rule
