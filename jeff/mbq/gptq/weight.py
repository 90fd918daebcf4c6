"""GPTQ on a weight of any axes: stacks of layers or experts, heads, transposed kernels.

The rounding itself is `gptq_codes` of a matrix; here axes are brought into its order
and back, and the result is stored.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import core, lax

from jeff.mbq.gptq.rounding import check_damping, round_matrix, unsound
from jeff.mbq.rounding.matrices import Matrices
from jeff.quantize import QTensor, QuantConfig, affine, checks, groups

__all__ = ["gptq_quantize"]


def gptq_quantize(
    w: jax.Array,
    hessian: jax.Array,
    config: QuantConfig,
    *,
    contract_axes: Sequence[int] = (-2,),
    stack_axes: Sequence[int] = (),
    damping: float = 0.01,
    act_order: bool = False,
    ranges: jax.Array | None = None,
) -> QTensor:
    """Quantizes a weight by GPTQ; otherwise as `jeff.quantize.quantize`.

    Args:
      w: Weight of any shape, floating.
      hessian: ``[*stack, K, K]``, from `activation_hessian`; `K` runs over the
        contraction axes in row-major order.
      config: The quantizer.
      contract_axes: Axes that a product sums over, in the row-major order along which
        groups run.
      stack_axes: Axes of which each entry is a weight with a Hessian of its own. They
        are rounded one after the other.
      damping: As in `gptq_codes`.
      act_order: Rounds channels by descending diagonal of the Hessian. The groups stay
        runs of neighbours, as a `QTensor` needs them, so their scales are found
        beforehand, from the weights as they are given: the ``static_groups`` of the
        original program.
      ranges: Of the shape of `w`: scales and zero points are those of these weights
        (clipped ones, say), found beforehand, while the error that is made good is
        that of `w`. ``None``: those of `w`.

    Returns:
      The stored weight, of the shape and dtype of `w`.

    Raises:
      TypeError: As `jeff.quantize.quantize`.
      ValueError: As `jeff.quantize.quantize` and `gptq_codes`, or if `hessian` does
        not fit the axes of `w` or `ranges` its shape.

    Examples:
      >>> from jeff.mbq import activation_hessian
      >>> key_x, key_w = jax.random.split(jax.random.key(0))
      >>> x = jax.random.normal(key_x, (256, 4)) @ jnp.ones((4, 64))
      >>> x += 0.1 * jax.random.normal(key_x, x.shape)  # channels nearly alike
      >>> w = jax.random.normal(key_w, (64, 8))
      >>> config = QuantConfig(bits=3, group_size=32)
      >>> q = gptq_quantize(w, activation_hessian(x).value, config)
      >>> q
      QTensor(float32[64, 8], 3 bits, scales float32[2, 8])
      >>> from jeff import quantize
      >>> def error(q):
      ...     return jnp.square(x @ (w - q.decode())).mean()
      >>> bool(error(q) < 0.1 * error(quantize.quantize(w, config)))
      True

    References:
      GPTQ, arXiv 2210.17323, algorithm 1.
    """
    w = affine.check_weight(w)
    axes = {"contract_axes": contract_axes, "stack_axes": stack_axes}
    counts = groups.group_shape(w.shape, config, **axes)
    layout = Matrices.of(w.shape, **axes)
    if jnp.shape(hessian) != (*layout.stacked, layout.k, layout.k):
        raise ValueError(
            f"hessian must have shape {(*layout.stacked, layout.k, layout.k)} for w of "
            f"shape {w.shape} contracted over {tuple(contract_axes)}, "
            f"got {jnp.shape(hessian)}"
        )
    if ranges is not None and jnp.shape(ranges) != w.shape:
        raise ValueError(
            f"ranges must have the shape of w, {w.shape}, got {jnp.shape(ranges)}"
        )

    hessian = affine.check_weight(hessian, "hessian")
    damping = check_damping(damping)
    matrices = layout.split(w)
    codes, scale, zero, sound = _round_stack(
        matrices,
        hessian.reshape((-1, layout.k, layout.k)),
        None if ranges is None else layout.split(affine.check_weight(ranges, "ranges")),
        jnp.float32(damping),
        config=config,
        act_order=checks.flag(act_order, "act_order"),
    )
    if not isinstance(sound, core.Tracer) and not sound.all():
        raise ValueError(unsound(w, hessian, scale, config, damping))
    return _stored(
        codes,
        scale,
        zero,
        layout=layout,
        counts=counts,
        bits=config.bits,
        dtype=w.dtype.name,
    )


@functools.partial(jax.jit, static_argnames=("layout", "counts", "bits", "dtype"))
def _stored(codes, scale, zero, *, layout, counts, bits, dtype) -> QTensor:
    """The weight whose matrices of codes, scales and zero points these are."""
    return QTensor.from_codes(
        layout.restore(codes, layout.shape),
        layout.restore(scale, counts),
        None if zero is None else layout.restore(zero, counts),
        bits=bits,
        contract_axes=layout.contract,
        dtype=dtype,
    )


@functools.partial(jax.jit, static_argnames=("config", "act_order"))
def _round_stack(matrices, hessians, ranges, damping, *, config, act_order):
    """Codes, scales, zero points and soundness of ``[stack, K, N]``."""

    def one(parts):
        w, hessian, reference = parts
        (codes, scale, zero, _), sound = round_matrix(
            w,
            hessian,
            damping,
            reference,
            config=config,
            act_order=act_order,
            static_groups=act_order,
        )
        return codes, scale, zero, sound

    return lax.map(one, (matrices, hessians, ranges))
