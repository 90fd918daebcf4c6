"""``jeff run dm-bnn``: the embedded Bayesian network, its voters and its memory."""

from jeff.dm_bnn.study.study import STUDY

__all__ = ["STUDY"]
