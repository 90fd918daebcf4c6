"""Dynamic quantization of activations, as a rule of the rewritten program."""

from jeff import base, quantize
from jeff.quantize import checks

__all__ = ["quantized_activations"]


def quantized_activations(bits: int) -> base.Rule:
    """A rule that rounds the input of every product whose weight is a `QTensor`.

    Args:
      bits: Width of the symmetric codes, one scale per token, found at run time.

    Returns:
      The rule.

    Raises:
      TypeError: If `bits` is no integer.
      ValueError: If `bits` is not in [2, 16].

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff import program
      >>> w = quantize.quantize(jnp.eye(2), quantize.QuantConfig(bits=8))
      >>> apply = program.rewrite(lambda p, x: x @ p["w"], quantized_activations(4))
      >>> print(apply({"w": w}, jnp.array([[7.0, 3.4]])))
      [[7. 3.]]
    """
    if not 2 <= checks.integer(bits, "bits") <= 16:
        raise ValueError(f"bits must be in [2, 16], got {bits}")

    def rule(site, op, x, w):
        if isinstance(w, quantize.QTensor) and site.kind == "dot":
            x = quantize.fake_quant_activations(x, bits=bits)
        return op(x, w)

    return rule
