"""GPTQ on a weight of any axes: stacks of layers or experts, heads, transposed kernels.

The rounding itself is `gptq_codes` of a matrix; here axes are brought into its order
and back, and the result is stored.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import core, lax

from jeff.mbq.gptq_rounding import check_damping, round_matrix, unsound
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

    Returns:
      The stored weight, of the shape and dtype of `w`.

    Raises:
      TypeError: As `jeff.quantize.quantize`.
      ValueError: As `jeff.quantize.quantize` and `gptq_codes`, or if `hessian` does
        not fit the axes of `w`.

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
    counts = groups.group_shape(
        w.shape, config, contract_axes=contract_axes, stack_axes=stack_axes
    )
    contract = groups.normalize_axes(contract_axes, w.ndim, "contract_axes")
    stack = groups.normalize_axes(stack_axes, w.ndim, "stack_axes")
    outputs = [a for a in range(-w.ndim, 0) if a not in (*contract, *stack)]
    order = (*stack, *contract, *outputs)
    k = math.prod(w.shape[a] for a in contract)
    stacked = tuple(w.shape[a] for a in stack)
    if jnp.shape(hessian) != (*stacked, k, k):
        raise ValueError(
            f"hessian must have shape {(*stacked, k, k)} for w of shape {w.shape} "
            f"contracted over {tuple(contract_axes)}, got {jnp.shape(hessian)}"
        )

    hessian = affine.check_weight(hessian, "hessian")
    damping = check_damping(damping)
    matrices = w.transpose(order).reshape(
        (-1, k, math.prod(w.shape[a] for a in outputs))
    )
    codes, scale, zero, sound = _round_stack(
        matrices,
        hessian.reshape((-1, k, k)),
        jnp.float32(damping),
        config=config,
        act_order=checks.flag(act_order, "act_order"),
    )
    if not isinstance(sound, core.Tracer) and not sound.all():
        raise ValueError(unsound(w, hessian, scale, config, damping))

    def restored(a, shape):
        moved = a.reshape([shape[i] for i in order])
        return moved.transpose(np.argsort([i % w.ndim for i in order]))

    return QTensor.from_codes(
        restored(codes, w.shape),
        restored(scale, counts),
        None if zero is None else restored(zero, counts),
        bits=config.bits,
        contract_axes=contract,
        dtype=w.dtype,
    )


@functools.partial(jax.jit, static_argnames=("config", "act_order"))
def _round_stack(matrices, hessians, damping, *, config, act_order):
    """Codes, scales, zero points and soundness of ``[stack, K, N]``."""

    def one(pair):
        (codes, scale, zero, _), sound = round_matrix(
            *pair, damping, config=config, act_order=act_order, static_groups=act_order
        )
        return codes, scale, zero, sound

    return lax.map(one, (matrices, hessians))
