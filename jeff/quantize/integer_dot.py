"""Products of integer activations with integer weights, summed in integers.

Activations become symmetric codes of a few bits, one scale per token, found at run
time; weights have their codes already. With ``c`` the codes of a token, ``s`` its
scale, and ``q``, ``z``, ``t`` codes, zero points and scales of the weight in groups
``g`` of the contraction axis::

    y[n] = s * sum_g t[g, n] * (sum_k c[k] q[k, n] - z[g, n] sum_k c[k])

Both inner sums run over the ``k`` of a group and are exact: codes are multiplied as
8-bit integers and added as 32-bit ones, which a processor's integer units do several
times faster than its floating ones. Only the few values per group that are left are
multiplied by scales, in float32. A symmetric weight has no second sum; one scale per
output channel makes it one product of integer matrices.

For this the weight's codes are unpacked to one byte each for the time of the product.
"""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from jeff import base
from jeff.quantize import affine, checks
from jeff.quantize.fake_quant import activation_codes, fake_quant_activations
from jeff.quantize.matmul import matmul
from jeff.quantize.qtensor import QTensor

__all__ = ["integer_dot", "integer_dots"]

IMPLEMENTATIONS = ("int8", "float")
"""Names that `implementation` takes."""


def integer_dot(
    x: jax.Array,
    w: QTensor,
    *,
    activation_bits: int = 8,
    preferred_element_type: Any = None,
    implementation: Literal["int8", "float"] | None = None,
) -> jax.Array:
    """``x @ w`` with `x` rounded to codes per token, multiplied code by code.

    Equal to ``fake_quant_activations(x, bits=activation_bits) @ w.decode()`` in exact
    arithmetic, and more exact than that product in float32: no sum within a group is
    rounded. Its derivatives are those of that product, straight through the rounding
    of `x`.

    Args:
      x: ``[..., K]``, floating.
      w: ``[K, N]`` contracted over its first axis, or ``[N, K]`` contracted over its
        last, which means ``x @ w.T``.
      activation_bits: Width of the codes of `x`, 2 to 8; they are held in int8.
      preferred_element_type: Dtype of the result; ``None`` promotes those of `x` and
        `w`.
      implementation: ``"int8"`` multiplies 8-bit integers and adds 32-bit ones.
        ``"float"`` multiplies the same codes as float32, in pieces of K so short that
        every sum is a whole number of at most 2^24: as exact, for processors that are
        slow with integers. ``None`` is ``"int8"``, the faster one wherever measured.

    Returns:
      ``[..., N]``.

    Raises:
      ValueError: If `w` is not of two axes with one contracted, if the sizes of that
        axis and of the last one of `x` differ, if a group has so many weights that its
        sum could overflow (``2^(32 - activation_bits - w.bits)``, 65536 for two times
        8 bits), if `activation_bits` is out of range or `implementation` unknown.
      TypeError: If `x` is not floating, `w` is no `QTensor`, or `activation_bits` is no
        integer.

    Examples:
      >>> from jeff.quantize import QuantConfig, quantize
      >>> w = quantize(7 * jnp.eye(64), QuantConfig(bits=4, symmetric=True))
      >>> x = jnp.zeros(64).at[:3].set(jnp.array([127.0, 5.2, -2.6]))
      >>> print(integer_dot(x, w)[:3])  # of 127, 5 and -3
      [889.  35. -21.]

    References:
      Dynamic quantization per token: ZeroQuant, arXiv 2206.01861, section 3.2. As used
      in MBQ: arXiv 2412.19509, section 4.1 (W4A8).
    """
    if not isinstance(w, QTensor):
        raise TypeError(f"w must be a QTensor, got {type(w).__name__}")
    x = affine.check_weight(x, "x")
    _check(activation_bits, implementation)
    if w.ndim != 2 or w.contract not in ((-2,), (-1,)):
        raise ValueError(
            f"w must be a matrix contracted over one axis, got shape {w.shape} "
            f"contracted over {w.contract}"
        )
    if w.contract == (-1,):
        w = w.transpose((1, 0))
    if x.shape[-1:] != w.shape[:1]:
        raise ValueError(f"x of shape {x.shape} does not fit w of shape {w.shape}")
    size, longest = w.shape[0] // w.scale.shape[0], _longest(w, activation_bits)
    if size > longest:
        raise ValueError(
            f"w of shape {w.shape} has groups of {size} weights, but 32-bit sums of "
            f"{activation_bits}-bit times {w.bits}-bit codes hold {longest}"
        )
    dtype = preferred_element_type
    if dtype is None:
        dtype = jnp.promote_types(x.dtype, w.dtype)
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    most = None  # codes that may be added up in a float
    if implementation == "float":
        most = 2 ** (26 - activation_bits - w.bits)
    y = _product(rows, w, activation_bits, jnp.dtype(dtype), most)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def integer_dots(
    activation_bits: int = 8,
    *,
    implementation: Literal["int8", "float"] | None = None,
) -> base.Rule:
    """A rule that makes every product with a `QTensor` one of integers.

    Where `integer_dot` can make the product (a matrix, or a stack of them for experts,
    contracted over one axis), it does; other products with a `QTensor`, such as ragged
    ones, multiply rounded activations with the decoded weight, which is the same but
    for the rounding of sums. Look-ups and convolutions, which have no tokens, and
    dense weights are left alone. So is a weight that is contracted over several axes
    (heads and their channels, say) of which the last is no multiple of 32: its codes
    cannot be seen as one axis while they are packed, so rules get it decoded. Give it
    last: rules after it do not see the products that it makes.

    Args:
      activation_bits: Width of the activations' codes, 2 to 8.
      implementation: As in `integer_dot`.

    Returns:
      The rule.

    Raises:
      ValueError: If `activation_bits` is out of range or `implementation` unknown.
      TypeError: If `activation_bits` is no integer.

    Examples:
      >>> import jeff
      >>> from jeff.quantize import QuantConfig, quantize
      >>> w = quantize(7 * jnp.eye(2), QuantConfig(bits=4, symmetric=True))
      >>> apply = jeff.rewrite(lambda p, x: x @ p["w"], integer_dots(4))
      >>> print(apply({"w": w}, jnp.array([[7.0, 3.4]])))
      [[49. 21.]]
    """
    _check(activation_bits, implementation)

    def rule(site, op, x, w):
        if not isinstance(w, QTensor) or site.kind not in ("dot", "ragged_dot"):
            return op(x, w)
        if site.kind == "ragged_dot" or not _applies(w, activation_bits):
            return op(fake_quant_activations(x, bits=activation_bits), w)
        product = functools.partial(
            integer_dot,
            activation_bits=activation_bits,
            preferred_element_type=site.dtype,
            implementation=implementation,
        )
        for _ in range(w.ndim - 2):
            product = jax.vmap(product)
        return product(x, w)

    return rule


def _check(activation_bits: Any, implementation: Any) -> None:
    if not 2 <= checks.integer(activation_bits, "activation_bits") <= 8:
        raise ValueError(f"activation_bits must be in [2, 8], got {activation_bits}")
    if implementation is not None:
        checks.word(implementation, "implementation", IMPLEMENTATIONS)


def _applies(w: QTensor, activation_bits: int) -> bool:
    """Whether `integer_dot` takes a site's weight, or every matrix of its stack."""
    if w.ndim < 2 or w.contract != (-2,):
        return False
    stack = w.shape[:-2] == w.scale.shape[:-2]
    size = w.shape[-2] // w.scale.shape[-2]
    return stack and size <= _longest(w, activation_bits)


def _longest(w: QTensor, activation_bits: int) -> int:
    """Codes of a group whose sum stays below 2^31, times zero points included."""
    return 2 ** (32 - activation_bits - w.bits)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _product(x, w, activation_bits, dtype, most):
    """``[M, K] x [K, N]``."""
    return _compiled(x, w, activation_bits, dtype, most)


@_product.defjvp
def _product_jvp(activation_bits, dtype, most, primals, tangents):
    def rounded(x, w):
        x = fake_quant_activations(x, bits=activation_bits)
        return matmul(x, w, preferred_element_type=dtype)

    y = _product(*primals, activation_bits, dtype, most)
    return y, jax.jvp(rounded, primals, tangents)[1]


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _compiled(x, w, activation_bits, dtype, most):
    codes, scale = activation_codes(x, bits=activation_bits)
    return (scale * _sums(codes.astype(jnp.int8), w, most)).astype(dtype)


def _sums(codes: jax.Array, w: QTensor, most: int | None) -> jax.Array:
    """``codes @ ((q - z) * t)`` for codes ``[M, K]``, float32 ``[M, N]``."""
    rows, size = codes.shape
    groups, columns = w.scale.shape[0], w.shape[1]
    scale, zero = _by_column(w.scale.astype(jnp.float32), columns), None
    if w.zero is not None:
        kind = jnp.int32 if w.zero.dtype == jnp.uint8 else jnp.float32
        middle = jnp.asarray(2 ** (w.bits - 1), kind)  # what `_signed` takes off
        zero = _by_column(w.zero.astype(kind), columns) - middle

    def group(codes, weights, scale, zero):
        sums = _dot(codes, weights, most)
        if zero is not None:
            tokens = jnp.sum(codes, -1, keepdims=True, dtype=jnp.int32)
            sums = sums.astype(zero.dtype) - zero * tokens.astype(zero.dtype)
        return scale * sums.astype(jnp.float32)

    if groups == 1:
        return group(codes, _signed(w), scale, zero)
    stack = (
        jnp.moveaxis(codes.reshape(rows, groups, size // groups), 1, 0),
        _signed(w).reshape(groups, size // groups, columns),
        scale[:, None],
        None if zero is None else zero[:, None],
    )

    def body(total, part):
        codes, weights, scale, zero = part
        return total + group(codes, weights, scale, zero), None

    return lax.scan(body, jnp.zeros((rows, columns), jnp.float32), stack)[0]


def _dot(a: jax.Array, b: jax.Array, most: int | None) -> jax.Array:
    """The exact product of int8 matrices in int32; by floats if `most` says how far."""
    if most is None:
        rows = a.shape[0]
        if rows == 1:  # XLA multiplies a lone row without a CPU's integer units
            a = jnp.pad(a, ((0, 1), (0, 0)))
        return jnp.matmul(a, b, preferred_element_type=jnp.int32)[:rows]
    pieces = [
        jnp.matmul(
            a[:, start : start + most].astype(jnp.float32),
            b[start : start + most].astype(jnp.float32),
            precision=lax.Precision.HIGHEST,
        ).astype(jnp.int32)
        for start in range(0, a.shape[1], most)
    ]
    return sum(pieces[1:], pieces[0])


def _signed(w: QTensor) -> jax.Array:
    """Codes minus ``2^(bits-1)``, int8."""
    shifted = w.codes() - jnp.uint8(2 ** (w.bits - 1))  # wraps around, and back
    return lax.bitcast_convert_type(shifted, jnp.int8)


def _by_column(values: jax.Array, columns: int) -> jax.Array:
    """Values of every group, one per column: ``[G, N]``."""
    return jnp.repeat(values, columns // values.shape[1], 1)
