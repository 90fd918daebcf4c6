"""Measurements: accuracies, intervals, and what a study hands back."""

from jeff.evaluate.accuracy import accuracy, correct
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
from jeff.evaluate.study import NoProgress, Progress, Study

__all__ = [
    "Figure",
    "Interval",
    "Measure",
    "NoProgress",
    "Outcome",
    "Progress",
    "Series",
    "Study",
    "Table",
    "accuracy",
    "clopper_pearson",
    "correct",
    "empirical_bernstein",
    "proportion",
    "student_t",
    "wilson",
]
