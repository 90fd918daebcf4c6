"""What Bayesian inference costs in hardware: standard, hybrid, and decomposed (DM).

Operations are counted from layer sizes and a tree of voters, and priced on a machine of
multipliers, adders, draw lanes and memories. Nothing is fitted to a publication.
"""

from hwsim.bnn_datapath.bracket import Saving, between, savings, savings_table
from hwsim.bnn_datapath.cost import estimate
from hwsim.bnn_datapath.machine import Generator, Machine
from hwsim.bnn_datapath.operations import (
    DRAWS,
    SCHEMES,
    Operations,
    count,
    decomposed,
    sampled,
    total,
)

__all__ = [
    "DRAWS",
    "SCHEMES",
    "Generator",
    "Machine",
    "Operations",
    "Saving",
    "between",
    "count",
    "decomposed",
    "estimate",
    "sampled",
    "savings",
    "savings_table",
    "total",
]
