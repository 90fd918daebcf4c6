"""Measurements: accuracies, intervals, and what a study hands back."""

from jeff.evaluate.accuracy import accuracy, correct
from jeff.evaluate.auroc import auroc, delong
from jeff.evaluate.calibration import (
    Reliability,
    ace,
    ece,
    reliability,
    reliability_figure,
)
from jeff.evaluate.figure import Figure, Series
from jeff.evaluate.interval import (
    Interval,
    clopper_pearson,
    empirical_bernstein,
    proportion,
    student_t,
    wilson,
)
from jeff.evaluate.measure import Measure, Outcome, Table
from jeff.evaluate.proper_scores import brier, nll
from jeff.evaluate.study import NoProgress, Progress, Study

__all__ = [
    "Figure",
    "Interval",
    "Measure",
    "NoProgress",
    "Outcome",
    "Progress",
    "Reliability",
    "Series",
    "Study",
    "Table",
    "accuracy",
    "ace",
    "auroc",
    "brier",
    "clopper_pearson",
    "correct",
    "delong",
    "ece",
    "empirical_bernstein",
    "nll",
    "proportion",
    "reliability",
    "reliability_figure",
    "student_t",
    "wilson",
]
