"""Faults as arrays: sampled exactly from keys, applied by pure functions."""

from jeff.faults.adsaf import StuckCells, adsaf
from jeff.faults.adsaf_cells import StuckBits, adsaf_cells
from jeff.faults.bit_flip import BitFlips, bit_flip
from jeff.faults.composed import Composed, compose
from jeff.faults.fixed_point import FixedPoint, fixed_point_format, to_fixed_point
from jeff.faults.fixed_point_flip import FixedPointFlips, fixed_point_flip
from jeff.faults.mac_count import MacCount, conv_macs, mac_fault_rate, site_macs
from jeff.faults.masks import Mask, marked, mask
from jeff.faults.method import choose
from jeff.faults.mibb import BitBias, mibb
from jeff.faults.model import Codes, fault_model
from jeff.faults.on_features import mibb_at_sites, on_features
from jeff.faults.on_weights import WeightFaults, on_weights
from jeff.faults.stuck_at import StuckAt, stuck_at
from jeff.faults.variation import (
    Deviation,
    SaltAndPepper,
    gaussian,
    lognormal,
    reciprocal_normal,
    salt_and_pepper,
)
from jeff.faults.words import Words, bit_words

__all__ = [
    "BitBias",
    "BitFlips",
    "Codes",
    "Composed",
    "Deviation",
    "FixedPoint",
    "FixedPointFlips",
    "MacCount",
    "Mask",
    "SaltAndPepper",
    "StuckAt",
    "StuckBits",
    "StuckCells",
    "WeightFaults",
    "Words",
    "adsaf",
    "adsaf_cells",
    "bit_flip",
    "bit_words",
    "choose",
    "compose",
    "conv_macs",
    "fault_model",
    "fixed_point_flip",
    "fixed_point_format",
    "gaussian",
    "lognormal",
    "mac_fault_rate",
    "marked",
    "mask",
    "mibb",
    "mibb_at_sites",
    "on_features",
    "on_weights",
    "reciprocal_normal",
    "salt_and_pepper",
    "site_macs",
    "stuck_at",
    "to_fixed_point",
]
