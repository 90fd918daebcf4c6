"""Weights and inputs of the golden fixtures, from an integer hash (same bits anywhere).

The fixtures in ``tests/golden`` store outputs of original programs. Most of the
weights and inputs those programs were given are not stored: they follow from a name,
a seed and a shape through a splitmix64 counter that starts at a hash of the name.
"""

import hashlib

import numpy as np

__all__ = ["bits", "gauss", "ints", "unif"]


def bits(name: str, seed: int, n: int) -> np.ndarray:
    """`n` pseudo-random ``uint64`` of the stream called `name`."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    start = np.uint64(int.from_bytes(digest[:8], "little"))
    with np.errstate(over="ignore"):
        z = start + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, n + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def gauss(name: str, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Nearly normal float64: the centred, scaled sum of four 16-bit uniforms.

    Examples:
      >>> print(gauss("x", 7, (3,)).round(8))
      [0.7628466  1.03921463 0.22541292]
    """
    z = bits(name, seed, int(np.prod(shape)))
    words = [(z >> np.uint64(16 * i)) & np.uint64(0xFFFF) for i in range(4)]
    total = sum(word.astype(np.int64) for word in words) - 131070
    return (total / 37837.227).reshape(shape)


def unif(name: str, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform float64 in [0, 1), on a grid of 2^-24."""
    z = bits(name, seed, int(np.prod(shape)))
    return ((z >> np.uint64(40)).astype(np.int64) / 2.0**24).reshape(shape)


def ints(name: str, seed: int, shape: tuple[int, ...], hi: int) -> np.ndarray:
    """Uniform int64 in [0, `hi`).

    Examples:
      >>> print(ints("a", 1, (5,), 4096))
      [1551  599 2921 1672 1699]
    """
    z = bits(name, seed, int(np.prod(shape))) >> np.uint64(33)
    return (z % np.uint64(hi)).astype(np.int64).reshape(shape)
