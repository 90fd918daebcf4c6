"""Feedback taps of linear feedback shift registers of maximal period.

Stages are numbered 1 (newest bit) to n (oldest bit). With taps ``t1, t2, ...`` the bit
that enters is ``b[t] = b[t - t1] ^ b[t - t2] ^ ...``; its period is ``2^n - 1`` exactly
if ``x^n + ... + x^t + ... + 1`` is primitive over GF(2).

References:
  P. Alfke, "Efficient Shift Registers, LFSR Counters, and Long Pseudo-Random Sequence
  Generators", Xilinx application note XAPP 052 (1996), which lists taps for 3 to 168
  stages. The entries here, and that for 255 stages, were written down from memory:
  what vouches for them is ``tests/hwsim/rng/test_taps.py``, which proves for each that
  its polynomial is primitive, from the prime factors of ``2^n - 1``.
"""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["TAPS", "maximal_taps"]

TAPS: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {
        3: (3, 2),
        4: (4, 3),
        5: (5, 3),
        6: (6, 5),
        7: (7, 6),
        8: (8, 6, 5, 4),
        9: (9, 5),
        10: (10, 7),
        11: (11, 9),
        12: (12, 6, 4, 1),
        13: (13, 4, 3, 1),
        14: (14, 5, 3, 1),
        15: (15, 14),
        16: (16, 15, 13, 4),
        17: (17, 14),
        18: (18, 11),
        19: (19, 6, 2, 1),
        20: (20, 17),
        21: (21, 19),
        22: (22, 21),
        23: (23, 18),
        24: (24, 23, 22, 17),
        25: (25, 22),
        26: (26, 6, 2, 1),
        27: (27, 5, 2, 1),
        28: (28, 25),
        29: (29, 27),
        30: (30, 6, 4, 1),
        31: (31, 28),
        32: (32, 22, 2, 1),
        33: (33, 20),
        34: (34, 27, 2, 1),
        35: (35, 33),
        36: (36, 25),
        37: (37, 5, 4, 3, 2, 1),
        38: (38, 6, 5, 1),
        39: (39, 35),
        40: (40, 38, 21, 19),
        41: (41, 38),
        42: (42, 41, 20, 19),
        43: (43, 42, 38, 37),
        44: (44, 43, 18, 17),
        45: (45, 44, 42, 41),
        46: (46, 45, 26, 25),
        47: (47, 42),
        48: (48, 47, 21, 20),
        49: (49, 40),
        50: (50, 49, 24, 23),
        51: (51, 50, 36, 35),
        52: (52, 49),
        53: (53, 52, 38, 37),
        54: (54, 53, 18, 17),
        55: (55, 31),
        56: (56, 55, 35, 34),
        57: (57, 50),
        58: (58, 39),
        59: (59, 58, 38, 37),
        60: (60, 59),
        61: (61, 60, 46, 45),
        62: (62, 61, 6, 5),
        63: (63, 62),
        64: (64, 63, 61, 60),
        127: (127, 126),
        255: (255, 253, 252, 250),
    }
)
"""Taps by number of stages: 3 to 64, 127 and 255."""


def maximal_taps(width: int) -> tuple[int, ...]:
    """Taps that give a register of `width` stages the period ``2^width - 1``.

    Args:
      width: Number of stages.

    Returns:
      The taps, falling; the first is `width`.

    Raises:
      ValueError: If the table has no such register.

    Examples:
      >>> maximal_taps(16)
      (16, 15, 13, 4)
    """
    if width not in TAPS:
        raise ValueError(f"width must be 3 to 64, 127 or 255, got {width!r}")
    return TAPS[width]
