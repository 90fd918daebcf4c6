"""Gaussian random number generators of hardware, bit for bit.

Shift registers (`hwsim.rng.lfsr`) feed sums of their words (`hwsim.rng.clt`), counts of
their ones (`hwsim.rng.rlf`), and the addresses of Wallace's pool
(`hwsim.rng.wallace`). ``clt.normal(...)``, ``rlf.normal(...)`` and
``wallace.normal(...)`` give pure functions ``normal_fn(key, n)``; `hwsim.rng.quality`
says how good they are.
"""

from hwsim.rng import checks, clt, lfsr, quality, reference, rlf, wallace
from hwsim.rng.clt import Clt
from hwsim.rng.lfsr import Lfsr
from hwsim.rng.rlf import Rlf
from hwsim.rng.structure import Structure, lane_cost
from hwsim.rng.taps import TAPS, maximal_taps
from hwsim.rng.wallace import Wallace

__all__ = [
    "TAPS",
    "Clt",
    "Lfsr",
    "Rlf",
    "Structure",
    "Wallace",
    "checks",
    "clt",
    "lane_cost",
    "lfsr",
    "maximal_taps",
    "quality",
    "reference",
    "rlf",
    "wallace",
]
