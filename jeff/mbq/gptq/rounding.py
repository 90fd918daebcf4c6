"""GPTQ: rounds a matrix so that the error of its product with the inputs is small.

What one input channel's rounding costs is made good by the channels that are not
rounded yet (`jeff.mbq.gptq.compensation`); here are the order of the channels, their
groups and scales.

References:
  GPTQ, arXiv 2210.17323, section 3.3 and algorithm 1.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import core

from jeff.mbq.gptq.compensation import sweep
from jeff.mbq.gptq.hessian import inverse_factor
from jeff.quantize import QuantConfig, affine, checks, groups
from jeff.quantize.config import check_config

__all__ = ["GPTQCodes", "check_damping", "gptq_codes", "round_matrix", "unsound"]

_LAZY = 128  # channels per block of the paper, section 3.3, step 2


class GPTQCodes(NamedTuple):
    """A rounded weight: channel `k` decodes with the scale ``scale[group_index[k]]``.

    Attributes:
      codes: uint8 ``[K, N]``, in the weight's order of channels.
      scale: ``[groups, N]`` (``[1, 1]`` per tensor), of ``config.scale_dtype``.
      zero: Zero points of the shape of `scale`, or ``None`` if symmetric.
      group_index: int32 ``[K]``, group of every channel.
    """

    codes: jax.Array
    scale: jax.Array
    zero: jax.Array | None
    group_index: jax.Array


def gptq_codes(
    w: jax.Array,
    hessian: jax.Array,
    config: QuantConfig,
    *,
    damping: float = 0.01,
    act_order: bool = False,
    static_groups: bool = False,
    block_size: int | None = None,
) -> GPTQCodes:
    """Rounds a weight so that the error of its layer's output is small.

    May be mapped with ``vmap`` or `lax.map` over stacks of weights and Hessians, and
    traces once per shape and setting.

    Args:
      w: ``[K, N]``, floating: `K` input channels.
      hessian: ``[K, K]``, symmetric and positive semidefinite, in any unit (see
        `activation_hessian`).
      config: The quantizer. The scale of a group is found from its weights as earlier
        corrections left them, when its first channel is reached; with one group per
        output channel, or per tensor, from the weights as they are given.
      damping: Part of the mean diagonal of the Hessian that is added to its diagonal.
      act_order: Rounds channels by descending diagonal of the Hessian, so that those
        that matter most are rounded while the others can still make good.
      static_groups: Finds all scales from the weights as they are given. With
        `act_order`, groups are then runs of neighbours as always; without it, runs of
        channels rounded one after the other, which only `group_index` describes.
      block_size: Channels per block; one of it and the group size must divide the
        other, unless scales are static. ``None`` takes the group size, or 128. The
        result depends on it by rounding only, except where it is larger than a group:
        as in the original program, scales then miss the corrections from within the
        block.

    Returns:
      The codes, in the order of `w`.

    Raises:
      TypeError: If an argument is of another type.
      ValueError: If shapes do not fit, the group size does not divide `K`, `damping` is
        negative, or, outside of a trace, `w` or `hessian` is not finite or the damped
        Hessian is not positive definite.

    Examples:
      Two inputs that are nearly equal: the second makes good what the first lost.

      >>> w = jnp.array([[0.4], [0.4], [3.0]])
      >>> hessian = jnp.array([[1.0, 0.99, 0.0], [0.99, 1.0, 0.0], [0.0, 0.0, 1.0]])
      >>> config = QuantConfig(bits=2)  # steps of 1
      >>> print(gptq_codes(w, hessian, config).codes[:, 0])
      [0 1 3]
      >>> print(gptq_codes(w, jnp.eye(3), config).codes[:, 0])  # to nearest
      [0 0 3]

    Note:
      A dead channel (zero diagonal) is rounded to nearest; the original program sets
      its weights to zero, which is only right if no input ever excites it.

    References:
      GPTQ, arXiv 2210.17323, algorithm 1; the options `act_order` and `static_groups`
      are those of its program.
    """
    check_config(config)
    w = affine.check_weight(w)
    hessian = affine.check_weight(hessian, "hessian")
    if w.ndim != 2:
        raise ValueError(f"w must have shape [K, N], got {w.shape}")
    if hessian.shape != (w.shape[0], w.shape[0]):
        raise ValueError(
            f"hessian must have shape {(w.shape[0],) * 2} for w of shape {w.shape}, "
            f"got {hessian.shape}"
        )
    groups.group_shape(w.shape, config)
    damping = check_damping(damping)
    got, sound = round_matrix(
        w,
        hessian,
        jnp.float32(damping),
        config=config,
        act_order=checks.flag(act_order, "act_order"),
        static_groups=checks.flag(static_groups, "static_groups"),
        block_size=block_size,
    )
    if not isinstance(sound, core.Tracer) and not sound:
        raise ValueError(unsound(w, hessian, got.scale, config, damping))
    return got


def check_damping(damping: Any) -> float:
    """`damping` as a float, if it is a finite number that is not negative.

    Args:
      damping: What was given.

    Returns:
      The number.

    Raises:
      TypeError: If it is no number.
      ValueError: If it is negative or not finite.

    Examples:
      >>> check_damping(-1)
      Traceback (most recent call last):
        ...
      ValueError: damping must be finite and not negative, got -1.0
    """
    value = checks.number(damping, "damping")
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"damping must be finite and not negative, got {value}")
    return value


def _block_size(block_size: int | None, size: int, static: bool) -> int:
    """Channels per block, checked against the size of a group."""
    if block_size is None:
        return _LAZY if static else size
    block = checks.integer(block_size, "block_size")
    if block < 1:
        raise ValueError(f"block_size must be positive, got {block}")
    if not static and block % size and size % block:
        raise ValueError(
            f"block_size {block} and group_size {size}: one must divide the other"
        )
    return block


def unsound(
    w: jax.Array,
    hessian: jax.Array,
    scale: jax.Array,
    config: QuantConfig,
    damping: float,
) -> str:
    """Why a weight could not be rounded.

    Args:
      w: The weight, or a stack of them.
      hessian: The Hessian, or a stack of them.
      scale: Scales that were found.
      config: The quantizer.
      damping: The damping.

    Returns:
      One line.

    Examples:
      >>> w, bad = jnp.ones((1, 1)), jnp.full((1, 1), jnp.nan)
      >>> config = QuantConfig(bits=2)
      >>> unsound(w, bad, w, config, 0.01)
      '1 values of hessian are NaN or infinite'
    """
    for name, array in (("w", w), ("hessian", hessian)):
        bad = int((~jnp.isfinite(array)).sum())
        if bad:
            return f"{bad} values of {name} are NaN or infinite"
    if jnp.isinf(scale).any():  # NaN comes from the Hessian
        return f"a scale overflows scale_dtype={config.scale_dtype!r}"
    return (
        f"hessian is not positive definite with damping={damping}; raise damping "
        "(0.01 is usual)"
    )


@functools.partial(
    jax.jit, static_argnames=("config", "act_order", "static_groups", "block_size")
)
def round_matrix(
    w: jax.Array,
    hessian: jax.Array,
    damping: jax.Array,
    ranges: jax.Array | None = None,
    *,
    config: QuantConfig,
    act_order: bool,
    static_groups: bool,
    block_size: int | None = None,
) -> tuple[GPTQCodes, jax.Array]:
    """`gptq_codes` without its checks of values, which cannot be made in a trace.

    Args:
      w: ``[K, N]``.
      hessian: ``[K, K]``.
      damping: float32 scalar.
      ranges: ``[K, N]``, weights whose scales are taken, found beforehand; those of `w`
        if ``None``.
      config: As in `gptq_codes`.
      act_order: As in `gptq_codes`.
      static_groups: As in `gptq_codes`.
      block_size: As in `gptq_codes`.

    Returns:
      The codes, and whether the weight, the factor of the inverse Hessian and all
      scales are finite; if they are not, the codes mean nothing.

    Raises:
      ValueError: If `block_size` and the group size do not fit each other.

    Examples:
      >>> got, sound = round_matrix(
      ...     jnp.array([[0.0], [3.0]]), jnp.eye(2), jnp.float32(0.0),
      ...     config=QuantConfig(bits=2), act_order=False, static_groups=False,
      ... )
      >>> print(got.codes[:, 0], sound)
      [0 3] True

    References:
      GPTQ, arXiv 2210.17323, algorithm 1.
    """
    k, n = w.shape
    w = w.astype(jnp.float32)
    size = k // groups.group_shape(w.shape, config)[0]
    static = static_groups or size == k or ranges is not None
    block = _block_size(block_size, size, static)
    positions = jnp.arange(k, dtype=jnp.int32)
    order, index = positions, positions // size
    reference = w if ranges is None else ranges.astype(jnp.float32)
    fixed = affine.affine_parameters(reference, config) if static else None
    if act_order:
        order = jnp.argsort(-jnp.diagonal(hessian)).astype(jnp.int32)
        w, hessian = w[order], hessian[order][:, order]
        if not static:
            index = index.at[order].set(positions // size)
    upper = inverse_factor(hessian, damping)
    rows = None
    if fixed is not None:
        spread = lambda a: jnp.broadcast_to(a, (a.shape[0], n))[index[order]]  # noqa: E731
        rows = jax.tree.map(spread, fixed)
    codes, found = sweep(w, upper, rows, config=config, block=block, size=size)
    if act_order:
        codes = jnp.zeros_like(codes).at[order].set(codes)
    scale, zero = found if fixed is None else fixed
    sound = functools.reduce(
        jnp.logical_and, (jnp.isfinite(a).all() for a in (w, upper, scale))
    )
    return GPTQCodes(codes, scale, zero, index), sound
