"""Simulated hardware: arrays in, arrays and a report in SI units out.

Knows nothing of models, parameter trees or `jeff`. `hwsim.rng` has Gaussian random
number generators to the bit, `hwsim.bnn_datapath` the cost of Bayesian inference.
"""

from hwsim.report import Quantity, Report, Row, text_table
from hwsim.technology import CMOS45, Cost, Technology, together

__all__ = [
    "CMOS45",
    "Cost",
    "Quantity",
    "Report",
    "Row",
    "Technology",
    "text_table",
    "together",
]
