"""GPTQ in NumPy, float64: one channel after the other, an explicit inverse for each."""

import numpy as np

__all__ = ["damped", "error", "grid", "hessian", "rounded"]


def hessian(x):
    """``mean_t x_t x_t^T`` of ``[T, K]``, one token at a time."""
    return sum(np.outer(row, row) for row in np.asarray(x, np.float64)) / len(x)


def damped(h, damping=0.01):
    """`h` with part of its mean non-zero diagonal added, dead channels filled."""
    h = np.array(h, np.float64)
    dead = np.diag(h) == 0
    mean = np.diag(h)[~dead].mean() if (~dead).any() else 0.0
    h[dead, dead] = mean or 1.0
    return h + damping * mean * np.eye(len(h))


def grid(w, bits, symmetric=False):
    """Scale and zero point ``[N]`` of one group ``[size, N]``, its range holding 0."""
    if symmetric:
        scale = np.maximum(np.abs(w).max(0), 1e-5) / (2 ** (bits - 1) - 1)
        return scale, np.full(scale.shape, 2.0 ** (bits - 1))
    low, high = np.minimum(w.min(0), 0), np.maximum(w.max(0), 0)
    scale = np.maximum(high - low, 1e-5) / (2**bits - 1)
    return scale, np.clip(-np.round(low / scale), 0, 2**bits - 1)


def rounded(w, h, bits, size, *, order=None, static=False, symmetric=False):
    """Codes, decoded weight, and ``sum |e_i|^2`` of ``w [K, N]`` under a damped `h`.

    Channel i is rounded; the others that are left move by the minimiser of the
    quadratic error under that constraint, ``-(w_i - q_i) / P_ii P_i``, `P` being the
    inverse of the Hessian of the channels that are left.
    """
    w = np.array(w, np.float64)
    k, n = w.shape
    order = np.arange(k) if order is None else np.asarray(order)
    fixed = [grid(w[g : g + size], bits, symmetric) for g in range(0, k, size)]
    codes, decoded, cost = np.zeros((k, n), np.uint8), np.zeros((k, n)), 0.0
    for at, i in enumerate(order):
        left = order[at:]
        if static:
            scale, zero = fixed[i // size]
        elif at % size == 0:
            scale, zero = grid(w[left[:size]], bits, symmetric)
        codes[i] = np.clip(np.round(w[i] / scale) + zero, 0, 2**bits - 1)
        decoded[i] = (codes[i] - zero) * scale
        p = np.linalg.inv(h[np.ix_(left, left)])
        lost = w[i] - decoded[i]
        cost += (lost**2 / p[0, 0]).sum()
        w[left] -= p[:, :1] / p[0, 0] * lost
    return codes, decoded, cost


def error(w, q, h):
    """``trace((w - q)^T h (w - q))``, the squared error of the layer's output."""
    d = np.asarray(w, np.float64) - np.asarray(q, np.float64)
    return float(np.einsum("kn,kl,ln->", d, np.asarray(h, np.float64), d))
