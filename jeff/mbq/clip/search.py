"""AWQ's search for the range beyond which weights are clipped before quantizing.

The largest weight of a group sets the quantization step of all of it. Clipping it
costs little where its input is small and makes the other weights finer. The search
(AWQ, arXiv 2306.00978, program only) is exhaustive per output channel and group.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["clip_errors", "clip_search", "clip_weight", "shrunk"]

GRID, MAX_SHRINK = 20, 0.5  # of AWQ's program


def clip_search(
    w: jax.Array,
    x: jax.Array,
    quantize: Callable[[jax.Array], jax.Array],
    *,
    group_size: int | None = None,
    grid: int = GRID,
    max_shrink: float = MAX_SHRINK,
    tokens: int = 512,
) -> jax.Array:
    """Clipping limit of every group and output channel.

    For ``i = 0 .. max_shrink * grid - 1`` the group is clipped at
    ``max|w| (1 - i / grid)`` and quantized; the limit with the smallest mean squared
    error of the group's partial product wins, the widest of equals. Groups are
    handled one after another, so that memory is that of one group's products.

    Args:
      w: ``[in, out]``, scaled already.
      x: ``[..., in]``, inputs of the layer, scaled already.
      quantize: Quantizes and dequantizes one group of weights, ``[group_size, out] ->
        [group_size, out]``, each output channel by itself.
      group_size: Inputs per group; ``None``: all inputs are one group.
      grid: Steps into which the full range is divided.
      max_shrink: Fraction of the range that may be cut, in (0, 1].
      tokens: About how many tokens are used: every ``n // tokens``-th of ``n``, so
        fewer than twice as many; all, if there are fewer.

    Returns:
      float32 ``[in // group_size, out]``, for `clip_weight`.

    Raises:
      ValueError: If a shape does not fit, `group_size` does not divide the inputs, or
        an option is out of range.

    Examples:
      One large weight meets an input that is always 0, so it is clipped:

      >>> def two_bits(w):
      ...     step = jnp.abs(w).max(axis=0) / 2
      ...     return jnp.round(w / step) * step
      >>> w = jnp.array([[1.0], [2.0], [4.0]])
      >>> x = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
      >>> print(clip_search(w, x, two_bits))
      [[2.2]]

    Note:
      Where there are fewer tokens than asked for, the original stops with an error.
      A group clipped on both sides has the zero point of an asymmetric quantizer
      at exactly half a step: the last bit of the weights then decides its rounding,
      and with it the limit. Another order of the same multiplications moves one or
      two limits in a hundred.

    References:
      AWQ, arXiv 2306.00978; github mit-han-lab/llm-awq, where the query and key
      projections are left out.
    """
    if jnp.ndim(w) != 2:
        raise ValueError(f"w must have shape [in, out], got {jnp.shape(w)}")
    if jnp.ndim(x) < 1 or x.shape[-1] != w.shape[0]:
        raise ValueError(
            f"x must have the {w.shape[0]} inputs of w last, got shape {jnp.shape(x)}"
        )
    size = w.shape[0] if group_size is None else group_size
    if size < 1 or w.shape[0] % size:
        raise ValueError(
            f"group_size must divide the {w.shape[0]} inputs, got {group_size}"
        )
    if grid < 1 or not 0 < max_shrink <= 1 or int(max_shrink * grid) < 1:
        raise ValueError(
            "grid must be at least 1 and max_shrink in (0, 1] with at least one step, "
            f"got {grid=} and {max_shrink=}"
        )
    if tokens < 1:
        raise ValueError(f"tokens must be at least 1, got {tokens}")

    x = jnp.asarray(x, jnp.float32).reshape(-1, w.shape[0])
    x = x[:: max(1, x.shape[0] // tokens)]
    errors = clip_errors(
        w, x, quantize, group_size=size, grid=grid, max_shrink=max_shrink
    )
    return shrunk(w, jnp.argmin(errors, axis=0), grid=grid)


def clip_errors(
    w: jax.Array,
    x: jax.Array,
    quantize: Callable[[jax.Array], jax.Array],
    weights: jax.Array | None = None,
    *,
    group_size: int,
    grid: int = GRID,
    max_shrink: float = MAX_SHRINK,
) -> jax.Array:
    """What every limit of the search costs.

    ``e_i = sum_t a_t (x_t . w - x_t . Q(clip_i(w)))^2 / sum_t a_t`` over the inputs of
    one group, for ``i = 0 .. max_shrink * grid - 1``.

    Args:
      w: ``[in, out]``, scaled already.
      x: ``[tokens, in]``, inputs of the layer, scaled already.
      quantize: As for `clip_search`.
      weights: ``[tokens]``, weight `a_t` of every token; all alike if ``None``.
      group_size: Inputs per group; divides `in`.
      grid: Steps into which the full range is divided.
      max_shrink: Fraction of the range that may be cut.

    Returns:
      float32 ``[steps, in // group_size, out]``.

    Examples:
      >>> w = jnp.array([[1.0], [2.0], [4.0]])
      >>> to_even = lambda w: 2 * jnp.round(w / 2)
      >>> x = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
      >>> clip_errors(w, x, to_even, group_size=3, grid=4).ravel()  # at 4 and at 3
      Array([0.5, 0.5], dtype=float32)
      >>> clip_errors(w, x, to_even, jnp.array([0.0, 1.0]), group_size=3).shape
      (10, 1, 1)

    References:
      AWQ, arXiv 2306.00978, program only; the weights of tokens are ours.
    """
    x = jnp.asarray(x, jnp.float32)
    if weights is None:
        weights = jnp.ones(x.shape[0], jnp.float32)
    weights = weights / weights.sum()
    x = x.reshape(x.shape[0], -1, group_size).swapaxes(0, 1)  # [groups, tokens, size]
    w = jnp.asarray(w, jnp.float32).reshape(-1, group_size, w.shape[1])
    kept = jnp.asarray(1 - np.arange(int(max_shrink * grid)) / grid, jnp.float32)

    def one_group(group: tuple[jax.Array, jax.Array]) -> jax.Array:
        wg, xg = group
        peak = jnp.abs(wg).max(axis=0)  # [out]
        target = jnp.matmul(xg, wg, precision="highest")

        def error(fraction: jax.Array) -> jax.Array:
            limit = peak * fraction
            candidate = quantize(jnp.clip(wg, -limit, limit))
            got = jnp.matmul(xg, candidate, precision="highest")
            return jnp.einsum("t,to->o", weights, jnp.square(got - target))

        return jax.lax.map(error, kept)  # [steps, out]

    return jax.lax.map(one_group, (w, x)).swapaxes(0, 1)


def shrunk(w: jax.Array, steps: jax.Array, *, grid: int = GRID) -> jax.Array:
    """The limits that are some steps below the largest weight of each group.

    Args:
      w: ``[in, out]``.
      steps: Integers ``[groups, out]``.
      grid: Steps into which the full range is divided.

    Returns:
      float32 ``[groups, out]``, ``max|w| (1 - steps / grid)``.

    Examples:
      >>> print(shrunk(jnp.array([[1.0], [-2.0], [3.0], [4.0]]), jnp.array([[0], [5]])))
      [[2.]
       [3.]]
    """
    w = jnp.asarray(w, jnp.float32).reshape(steps.shape[0], -1, w.shape[1])
    kept = jnp.asarray(1 - np.arange(grid) / grid, jnp.float32)
    return jnp.abs(w).max(axis=1) * kept[steps]


def clip_weight(w: jax.Array, limits: jax.Array) -> jax.Array:
    """`w` clipped to plus and minus the limit of its group and output channel.

    Args:
      w: ``[in, out]``.
      limits: ``[groups, out]``, from `clip_search`.

    Returns:
      ``[in, out]``, dtype of `w`.

    Raises:
      ValueError: If the shapes do not fit.

    Examples:
      >>> w = jnp.array([[1.0], [-2.0], [3.0], [4.0]])
      >>> print(clip_weight(w, jnp.array([[1.5], [9.0]])).ravel())
      [ 1.  -1.5  3.   4. ]
    """
    if jnp.ndim(w) != 2 or jnp.ndim(limits) != 2 or limits.shape[1] != w.shape[1]:
        raise ValueError(
            "w must have shape [in, out] and limits [groups, out], got "
            f"{jnp.shape(w)} and {jnp.shape(limits)}"
        )
    if limits.shape[0] < 1 or w.shape[0] % limits.shape[0]:
        raise ValueError(
            f"the {w.shape[0]} inputs of w do not divide into {limits.shape[0]} groups"
        )
    groups = w.reshape(limits.shape[0], -1, w.shape[1])
    limit = limits[:, None, :].astype(w.dtype)
    return jnp.clip(groups, -limit, limit).reshape(w.shape)
