"""How many products a contraction makes, and how many sums they are added up to.

Every entry of the output that has any products counts as one sum. A convolution's taps
that fall on padding are products, as papers count them; those that fall on the zeros
which a transposed convolution inserts between the entries of its input are not.

References:
  What strides, paddings and dilations do: ``jax.lax.conv_general_dilated``,
  https://docs.jax.dev/en/latest/_autosummary/jax.lax.conv_general_dilated.html, and
  Dumoulin and Visin, "A guide to convolution arithmetic" (arXiv 1603.07285, chapter 4).
"""

import math
from typing import Any

__all__ = ["PRIMITIVES", "macs", "macs_and_sums"]


def macs(eqn: Any) -> int:
    """Multiply-accumulates of a contraction, complex ones counted once.

    Args:
      eqn: An equation of one of the `PRIMITIVES`.

    Returns:
      Products of an entry of one operand with an entry of the other.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> eqn = jax.make_jaxpr(jnp.dot)(jnp.ones((4, 8)), jnp.ones((8, 2))).eqns[0]
      >>> macs(eqn)
      64
      >>> x, w = jnp.ones((1, 5, 5, 3)), jnp.ones((2, 2, 3, 4))
      >>> upsampled = lambda x, w: jax.lax.conv_transpose(x, w, (2, 2), "SAME")
      >>> macs(jax.make_jaxpr(upsampled)(x, w).eqns[0]) == 5 * 5 * 3 * 2 * 2 * 4
      True
    """
    return macs_and_sums(eqn)[0]


def macs_and_sums(eqn: Any) -> tuple[int, int]:
    """Multiply-accumulates, and entries of the output that have any.

    Args:
      eqn: An equation of one of the `PRIMITIVES`.

    Returns:
      ``(macs, sums)``; the contraction adds ``macs - sums`` times.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> eqn = jax.make_jaxpr(jnp.dot)(jnp.ones((4, 8)), jnp.ones((8, 2))).eqns[0]
      >>> macs_and_sums(eqn)
      (64, 8)
    """
    return PRIMITIVES[eqn.primitive.name](eqn)


def _dot_general(eqn: Any) -> tuple[int, int]:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    out, lhs = eqn.outvars[0].aval, eqn.invars[0].aval
    length = math.prod(lhs.shape[axis] for axis in contracted)
    return out.size * length, out.size if length else 0


def _ragged_dot(eqn: Any) -> tuple[int, int]:
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (contracted, _), _ = numbers.dot_dimension_numbers
    out, lhs, groups = eqn.outvars[0].aval, eqn.invars[0].aval, eqn.invars[2].aval
    length = math.prod(lhs.shape[axis] for axis in contracted)
    macs = out.size * length
    if set(numbers.lhs_ragged_dimensions) & set(contracted):
        macs //= groups.shape[-1]  # each place along the contraction is in one group
    return macs, min(out.size, macs)


def _conv(eqn: Any) -> tuple[int, int]:
    """Multiply-accumulates of a convolution, and outputs that have any."""
    params, out = eqn.params, eqn.outvars[0].aval
    kernel, numbers = eqn.invars[1].aval, params["dimension_numbers"]
    taps, places = kernel.shape[numbers.rhs_spec[1]], 1
    reached = out.shape[numbers.out_spec[0]] * out.shape[numbers.out_spec[1]]
    for i, (axis, kernel_axis) in enumerate(
        zip(numbers.out_spec[2:], numbers.rhs_spec[2:], strict=True)
    ):
        hits = _taps_per_output(
            outputs=out.shape[axis],
            taps=kernel.shape[kernel_axis],
            stride=params["window_strides"][i],
            low=params["padding"][i][0],
            dilation=params["rhs_dilation"][i],
            spread=params["lhs_dilation"][i],
        )
        places *= sum(hits)
        reached *= sum(hit > 0 for hit in hits)
    batch_and_features = out.shape[numbers.out_spec[0]] * out.shape[numbers.out_spec[1]]
    macs = batch_and_features * taps * places
    return macs, reached if taps else 0


def _taps_per_output(*, outputs, taps, stride, low, dilation, spread) -> list[int]:
    """For each output along one axis, the taps that do not fall on an inserted zero.

    The input is spread out with ``spread - 1`` zeros between its elements, and so, for
    the sake of counting, is the padding around it.
    """
    if spread == 1:
        return [taps] * outputs
    return [
        sum((o * stride + t * dilation - low) % spread == 0 for t in range(taps))
        for o in range(outputs)
    ]


# What counts an equation, by its primitive.
PRIMITIVES = {
    "conv_general_dilated": _conv,
    "dot_general": _dot_general,
    "ragged_dot_general": _ragged_dot,
}
