"""The public product with a packed matrix: checks, derivatives, maps, dispatch."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero

from pallas_kernels import bits as layouts
from pallas_kernels.dequant_matmul import dispatch, xla
from pallas_kernels.dequant_matmul.config import Config
from pallas_kernels.dequant_matmul.operand import Operand

__all__ = ["dequant_matmul", "resolve"]


def dequant_matmul(
    x: jax.Array,
    packed: jax.Array,
    scale: jax.Array,
    zero: jax.Array | None = None,
    *,
    bits: int,
    group_size: int,
    stride: int | None = None,
    implementation: str | Sequence[str] | None = None,
    preferred_element_type: Any = None,
    decode_dtype: Any = jnp.float32,
    precision: Any = None,
    tile: int | None = None,
    config: Config | None = None,
) -> jax.Array:
    """``x @ ((codes - zero) * scale)`` for a matrix kept as packed codes.

    Differentiable in `x`, `scale` and a floating `zero`, forward and backward. Maps
    over `x` alone become more rows; maps over the matrix become a stack of matrices.

    Args:
      x: ``[..., M, K]`` or ``[K]``, floating. Its leading axes are rows too, unless the
        matrix is a stack: then the first is that of the stack.
      packed: uint32 ``[Kp * bits / 32, N]`` in the layout of `pallas_kernels.bits`,
        packed along K; Kp is K, or K and what fills its last tile. Or a stack of them,
        ``[L, Kp * bits / 32, N]``.
      scale: ``[K / group_size, N]`` or ``[K / group_size, 1]``, floating, with the same
        leading axis.
      zero: Zero points, of the shape of `scale`: floating, or uint8 of at most
        ``2^bits``; ``None`` for ``2^(bits - 1)``.
      bits: Width of a code: 2, 3, 4 or 8.
      group_size: Rows of the matrix that share a scale.
      stride: S of the packed layout; ``None`` takes `bits.default_stride` of Kp.
      implementation: ``"reference"``, ``"xla"``, ``"mosaic_gpu"``, ``"interpret"`` (the
        GPU kernel in the Pallas interpreter), several of them to try in order, or
        ``None`` for the best that can: see `resolve`.
      preferred_element_type: Dtype of the result; ``None`` for that of `x`. Sums are
        float32 either way.
      decode_dtype: Dtype that ``"reference"`` and ``"xla"`` round decoded weights to.
        The kernel never rounds them.
      precision: Of dense products of decoded weights, as in `jax.numpy.matmul`.
      tile: Weights that ``"xla"`` decodes at a time; ``None`` picks.
      config: Settings of the kernel; ``None`` takes measured ones, or its heuristic.

    Returns:
      ``[..., M, N]``, or ``[N]``.

    Raises:
      ValueError: If `bits` or `stride` has no layout, `packed`, `scale` or `zero` is of
        a wrong shape, or an implementation is unknown.
      TypeError: If an array, or a dtype that was asked for, is not of its kind.
      NotImplementedError: If the implementation that was named cannot do this product;
        an `ExceptionGroup` of such if none of several can.

    Examples:
      >>> from pallas_kernels import bits
      >>> codes = jnp.arange(32, dtype=jnp.uint8).reshape(32, 1) % 8
      >>> packed = bits.pack(codes, bits=3, axis=0)
      >>> x, scale = jnp.ones((1, 32)), jnp.full((1, 1), 0.5)
      >>> print(dequant_matmul(x, packed, scale, bits=3, group_size=32))
      [[-8.]]

    References:
      MBQ, arXiv 2412.19509, section 3.3: the product that its W3 kernel makes.
    """
    w = _operand(
        x, packed, scale, zero, bits=bits, group_size=group_size, stride=stride
    )
    if config is not None and not isinstance(config, Config):
        raise TypeError(f"config must be a Config, got {config!r}")
    if tile is not None and tile < 1:
        raise ValueError(f"tile must be positive, got {tile}")
    out_dtype = x.dtype if preferred_element_type is None else preferred_element_type
    for name, dtype in (
        ("preferred_element_type", out_dtype),
        ("decode_dtype", decode_dtype),
    ):
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{name} must be floating, got {jnp.dtype(dtype)}")
    if implementation is not None and not isinstance(implementation, str):
        implementation = tuple(implementation)
    options = dispatch.Options(
        implementation=implementation,
        out_dtype=jnp.dtype(out_dtype),
        decode_dtype=jnp.dtype(decode_dtype),
        precision=precision,
        tile=tile,
        config=config,
    )
    flat = _rows(x, w)
    dispatch.resolve(flat, w, options)  # an error now, not inside what follows
    y = _product(flat, w, options)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def resolve(
    x: jax.Array,
    packed: jax.Array,
    scale: jax.Array,
    zero: jax.Array | None = None,
    *,
    bits: int,
    group_size: int,
    stride: int | None = None,
    implementation: str | Sequence[str] | None = None,
    preferred_element_type: Any = None,
    config: Config | None = None,
) -> str:
    """Which implementation `dequant_matmul` would run.

    A map over `x` makes more rows of it, which can change the answer.

    Args:
      x: As in `dequant_matmul`; specs (`jax.ShapeDtypeStruct`) do for all arrays.
      packed: Likewise.
      scale: Likewise.
      zero: Likewise.
      bits: Likewise.
      group_size: Likewise.
      stride: Likewise.
      implementation: Likewise.
      preferred_element_type: Likewise.
      config: Likewise.

    Returns:
      Its name.

    Raises:
      ValueError: As `dequant_matmul`.
      TypeError: As `dequant_matmul`.
      NotImplementedError: As `dequant_matmul`.

    Examples:
      >>> spec = jax.ShapeDtypeStruct
      >>> x, packed = spec((1, 512), "bfloat16"), spec((48, 64), "uint32")
      >>> scale = spec((4, 64), "bfloat16")
      >>> resolve(x, packed, scale, bits=3, group_size=128, implementation="interpret")
      'interpret'
    """
    w = _operand(
        x, packed, scale, zero, bits=bits, group_size=group_size, stride=stride
    )
    flat = jax.eval_shape(lambda a: _rows(a, w), x)
    out_dtype = x.dtype if preferred_element_type is None else preferred_element_type
    options = dispatch.Options(implementation, jnp.dtype(out_dtype), config=config)
    return dispatch.resolve(flat, w, options)


def _operand(x, packed, scale, zero, bits, group_size, stride) -> Operand:
    """The matrix, if its arrays fit each other and x."""
    for name, a in (("x", x), ("scale", scale)):
        if not jnp.issubdtype(a.dtype, jnp.floating):
            raise TypeError(f"{name} must be floating, got {a.dtype}")
    if packed.dtype != jnp.uint32:
        raise TypeError(f"packed must be uint32, got {packed.dtype}")
    if zero is not None and not (
        zero.dtype == jnp.uint8 or jnp.issubdtype(zero.dtype, jnp.floating)
    ):
        raise TypeError(f"zero must be uint8 or floating, got {zero.dtype}")
    if bits not in layouts.WIDTHS:
        raise ValueError(f"bits must be one of {layouts.WIDTHS}, got {bits}")
    if packed.ndim not in (2, 3) or x.ndim < 1:
        raise ValueError(
            f"packed must be a matrix or a stack of them, got shape {packed.shape}, "
            f"x {x.shape}"
        )
    size, words = x.shape[-1], packed.shape[-2]
    if stride is None:
        filled, rest = divmod(words * 32, bits)
        whole = filled > 0 and rest == 0 and filled % 32 == 0
        stride = layouts.default_stride(filled) if whole else 1
    if stride not in layouts.STRIDES:
        raise ValueError(f"stride must be one of {layouts.STRIDES}, got {stride}")
    filled = math.ceil(size / (32 * stride)) * stride * bits
    if size == 0 or words != filled:
        raise ValueError(
            f"packed of shape {packed.shape} does not hold {bits}-bit codes for x of "
            f"shape {x.shape}: at stride {stride}, K = {size} takes {filled} words"
        )
    if group_size < 1 or size % group_size:
        raise ValueError(
            f"group_size {group_size} does not divide K = {size} of x {x.shape}"
        )
    shape = (*packed.shape[:-2], size // group_size)
    if scale.shape not in ((*shape, packed.shape[-1]), (*shape, 1)):
        raise ValueError(
            f"scale has shape {scale.shape}, but packed {packed.shape} in groups of "
            f"{group_size} takes {(*shape, packed.shape[-1])}"
        )
    if zero is not None and zero.shape != scale.shape:
        raise ValueError(f"zero has shape {zero.shape}, scale {scale.shape}")
    if packed.ndim == 3 and (x.ndim < 2 or x.shape[0] != packed.shape[0]):
        raise ValueError(
            f"x of shape {x.shape} does not fit a stack packed as {packed.shape}"
        )
    return Operand(
        words=packed, scale=scale, zero=zero, bits=bits, stride=stride, size=size
    )


def _rows(x: jax.Array, w: Operand) -> jax.Array:
    """``[M, K]``, or ``[L, M, K]`` for a stack."""
    stack = x.shape[: w.words.ndim - 2]
    return x.reshape(*stack, math.prod(x.shape[len(stack) : -1]), x.shape[-1])


# Compiled once per shape, also where nothing around it is under jit.
_run = jax.jit(dispatch.run, static_argnums=2)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _product(x: jax.Array, w: Operand, options: dispatch.Options) -> jax.Array:
    """``[M, K] @ [K, N]``, or a stack of such."""

    @custom_vmap
    def run(x, w):
        return _run(x, w, options)

    @run.def_vmap
    def _mapped(size, mapped, x, w):
        x_mapped, w_mapped = mapped
        if not any(jax.tree.leaves(w_mapped)):
            rows = jnp.moveaxis(x, 0, -3)  # [L, size, M, K]
            merged = (*rows.shape[:-3], size * rows.shape[-2], rows.shape[-1])
            y = _product(rows.reshape(merged), w, options)
            y = y.reshape(*rows.shape[:-1], y.shape[-1])
            return jnp.moveaxis(y, -3, 0), True
        x, w = jax.tree.map(
            lambda a, m: a if m else jnp.broadcast_to(a, (size, *a.shape)),
            (x, w),
            (x_mapped, w_mapped),
        )
        stacked = jax.tree.map(
            lambda a: a.reshape(math.prod(a.shape[:-2]), *a.shape[-2:]), (x, w)
        )
        y = _product(*stacked, options)
        return y.reshape(*x.shape[:-1], y.shape[-1]), True

    return run(x, w)


@functools.partial(_product.defjvp, symbolic_zeros=True)
def _product_jvp(options, primals, tangents):
    # Linear in x, and in the scales and floating zero points one at a time. Tangents
    # take the tiled form, which JAX differentiates further and transposes.
    (x, w), (dx, dw) = primals, tangents
    tiled = functools.partial(
        xla.tiled,
        tile=xla.TILE if options.tile is None else options.tile,
        decode_dtype=options.decode_dtype,
        precision=options.precision,
    )
    terms = []
    if not isinstance(dx, SymbolicZero):
        terms.append(tiled(dx, w))
    for name in ("scale", "zero"):
        tangent = getattr(dw, name)
        if tangent is None or isinstance(tangent, SymbolicZero):
            continue
        if jnp.issubdtype(getattr(w, name).dtype, jnp.floating):
            part = getattr(w, name)

            def product(part, name=name):
                return tiled(x, dataclasses.replace(w, **{name: part}))

            terms.append(jax.jvp(product, (part,), (tangent,))[1])
    y = _product(x, w, options)
    if not terms:
        return y, jnp.zeros_like(y)
    return y, sum(terms[1:], terms[0]).astype(y.dtype)
