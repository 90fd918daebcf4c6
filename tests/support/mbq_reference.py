"""Slow, obvious NumPy versions of the array rules of MBQ and its baselines.

Independent of jeff: nothing is imported from it. Weights are ``(out, in)`` as in the
original program. Everything computes in the dtype it is given: float32 for parity with
the fixtures, float64 as ground truth for the library's float32 arithmetic.

References:
  MBQ, arXiv 2412.19509; its program (github thu-nics/MBQ); AWQ, arXiv 2306.00978;
  SmoothQuant, arXiv 2211.10438.
"""

from collections.abc import Callable

import numpy as np

__all__ = [
    "GRID",
    "asymmetric",
    "clip_limits",
    "duo_scale",
    "floored_ratios",
    "magnitude",
    "objective",
    "scale",
    "search",
    "smoothquant_scale",
    "symmetric",
]

GRID = 20  # candidates: alpha = 0, 1/20, ..., 19/20
MIN_RANGE = 1e-5
MIN_SCALE = 1e-4


def asymmetric(w: np.ndarray, bits: int, group: int | None) -> np.ndarray:
    """Dequantized `w`, one scale and integer zero point per row and group of inputs."""
    rows = w.reshape(-1, w.shape[-1] if group is None else group)
    top = 2**bits - 1
    high, low = rows.max(axis=1, keepdims=True), rows.min(axis=1, keepdims=True)
    step = np.maximum(high - low, w.dtype.type(MIN_RANGE)) / top
    zero = np.clip(-np.round(low / step), 0, top)
    code = np.clip(np.round(rows / step) + zero, 0, top)
    return ((code - zero) * step).reshape(w.shape)


def symmetric(x: np.ndarray, bits: int, *, whole: bool = False) -> np.ndarray:
    """Dequantized `x`, one scale per row (output channel or token), or for `whole`."""
    rows = x.reshape(1, -1) if whole else x.reshape(-1, x.shape[-1])
    top = 2 ** (bits - 1) - 1
    peak = np.abs(rows).max(axis=1, keepdims=True)
    step = np.maximum(peak, x.dtype.type(MIN_RANGE)) / top
    code = np.clip(np.round(rows / step), -top - 1, top)
    return (code * step).reshape(x.shape)


def floored_ratios(vision: list[float], answer: list[float]) -> np.ndarray:
    """Vision over answer sensitivity per layer, not below the median over layers."""
    ratios = np.array(vision, np.float64) / np.array(answer, np.float64)
    return np.maximum(ratios, np.median(ratios))


def magnitude(x: np.ndarray) -> np.ndarray:
    """Mean absolute value per channel (last axis), over all tokens."""
    return np.abs(x).reshape(-1, x.shape[-1]).mean(axis=0, dtype=x.dtype)


def scale(mean_abs: np.ndarray, alpha: float) -> np.ndarray:
    """The balance scale of one candidate."""
    s = np.maximum(mean_abs**alpha, mean_abs.dtype.type(MIN_SCALE))
    return s / np.sqrt(s.max() * s.min())


def duo_scale(mean_abs: np.ndarray, w: np.ndarray, group: int, alpha: float):
    """The scale of AWQ's ports for weights ``(out, in)``."""
    groups = np.abs(w).reshape(len(w), -1, group)
    peak = groups.max(axis=2, keepdims=True) + 1e-6
    weight_mean = (groups / peak).reshape(w.shape).mean(axis=0)
    s = np.maximum(mean_abs**alpha / (weight_mean ** (1 - alpha) + 1e-4), MIN_SCALE)
    return s / np.sqrt(s.max() * s.min())


def objective(
    original: np.ndarray,
    candidate: np.ndarray,
    *,
    kind: str,
    answer: np.ndarray | None = None,
    vision: np.ndarray | None = None,
    ratio: float | None = None,
) -> float:
    """The original's distance between two outputs ``[B, N, C]``.

    Args:
      original: Output of the full-precision module.
      candidate: Output of the quantized one.
      kind: ``"mae"`` or ``"mse"``; they are normalised differently.
      answer: bool ``[B, N]``, or ``None`` for the plain mean.
      vision: bool ``[B, N]``, or ``None`` for the answer tokens only.
      ratio: Weight of the vision error relative to the answer error, or ``None``
        for the plain mean.
    """
    error = original - candidate
    error = np.abs(error) if kind == "mae" else error * error
    if answer is None:
        return float(error.mean())
    channels = error.shape[-1]
    answer_sum, answer_count = error[answer].sum(), answer.sum() * channels
    if vision is None:
        return float(answer_sum / answer_count)
    if ratio is None:
        return float(error.mean())
    vision_sum, vision_count = error[vision].sum(), vision.sum() * channels
    if kind == "mae":
        total = answer_sum + ratio * vision_sum
        return float(total / (answer_count + vision_count))
    return float(answer_sum / answer_count + ratio * (vision_sum / vision_count))


def search(
    target: np.ndarray,
    mean_abs: np.ndarray,
    run: Callable[[np.ndarray], np.ndarray],
    distance: Callable[[np.ndarray, np.ndarray], float],
) -> tuple[int, np.ndarray]:
    """Tries every candidate in order; the first of the smallest wins.

    Args:
      target: Full-precision output of the inspected module.
      mean_abs: Mean absolute input per channel.
      run: From a scale to the output of the quantized module.
      distance: From the two outputs to a number.

    Returns:
      ``(i, losses)``: the best ``alpha = i / GRID`` and all losses, ``[GRID]``.
    """
    best, lowest, losses = -1, np.inf, []
    for i in range(GRID):
        loss = distance(target, run(scale(mean_abs, i / GRID)))
        losses.append(loss)
        if loss < lowest:
            best, lowest = i, loss
    return best, np.array(losses)


def smoothquant_scale(
    max_abs_x: np.ndarray, weights: list[np.ndarray], alpha: float = 0.5
) -> np.ndarray:
    """SmoothQuant's scale of one norm from its linears' weights ``(out, in)``."""
    peak = np.abs(np.concatenate(weights)).max(axis=0)
    peak = np.maximum(peak, peak.dtype.type(1e-5))
    return np.maximum(max_abs_x**alpha / peak ** (1 - alpha), peak.dtype.type(1e-5))


def clip_limits(
    w: np.ndarray, x: np.ndarray, bits: int, group: int, *, samples: int = 512
) -> np.ndarray:
    """AWQ's clipping threshold per output channel and group, ``(out, groups)``.

    Args:
      w: Weight ``(out, in)``.
      x: Input ``[..., in]``.
      bits: Width of the asymmetric quantizer.
      group: Inputs per group.
      samples: Every ``tokens // samples``-th token is used.
    """
    tokens = x.reshape(-1, x.shape[-1])
    tokens = tokens[:: len(tokens) // samples]
    limits = np.empty((w.shape[0], w.shape[1] // group), w.dtype)
    for g in range(limits.shape[1]):
        xg = tokens[:, g * group : (g + 1) * group]
        wg = w[:, g * group : (g + 1) * group]
        peak = np.abs(wg).max(axis=1)
        limits[:, g], lowest = peak, np.full(len(wg), np.inf)
        target = xg @ wg.T
        for i in range(10):
            limit = peak * w.dtype.type(1 - i / 20)
            clipped = np.clip(wg, -limit[:, None], limit[:, None])
            error = xg @ asymmetric(clipped, bits, None).T - target
            error = (error * error).mean(axis=0)
            better = error < lowest
            limits[better, g], lowest[better] = limit[better], error[better]
    return limits
