"""The plots of ``jeff run dm-bnn``."""

import jax.numpy as jnp
import numpy as np

from jeff.dm_bnn.study.answers import Answers
from jeff.dm_bnn.study.faults import Damage
from jeff.dm_bnn.study.speed import Speed
from jeff.dm_bnn.study.subject import KINDS
from jeff.dm_bnn.study.trees import Grown
from jeff.evaluate import (
    Figure,
    Interval,
    Series,
    reliability,
    reliability_figure,
    student_t,
)
from pallas_kernels.timing import spread

__all__ = ["all_figures", "within"]


def all_figures(
    grown: Grown, timed: Speed, said: Answers, labels: np.ndarray, damage: Damage
) -> dict[str, Figure]:
    """Every plot, by file-like name.

    Args:
      grown: Costs and worths of trees.
      timed: Times.
      said: Predictions.
      labels: Of the first kind of inputs.
      damage: Right answers of faulty devices.

    Returns:
      The figures.
    """
    return {
        "cost_per_effective_voter": _cost(grown),
        "accuracy_under_bit_flips": _flips(damage),
        "reliability": _reliability(said, labels),
        "mutual_information": _information(said),
        "milliseconds": _times(timed),
    }


def within(found: Interval) -> Interval:
    """An interval of a fraction, cut at 0 and 1.

    Args:
      found: Student's interval of accuracies.

    Returns:
      The interval.

    Examples:
      >>> within(Interval(0.9, 0.7, 1.1, 4)).high
      1.0
    """
    return found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0))


def _cost(grown: Grown) -> Figure:
    prices = [student_t(tree.products_each) for tree in grown.trees]
    names = tuple(
        f"{tree.name} {'x'.join(map(str, tree.voters))}"
        if tree.name in ("dm", "planned")
        else tree.name
        for tree in grown.trees
    )
    return Figure(
        kind="bars",
        title="What an independent voter's worth costs",
        x_label="scheme or tree",
        y_label="products per effective voter",
        series=(
            Series(
                "products per effective voter",
                names,
                tuple(p.value for p in prices),
                tuple(p.low for p in prices),
                tuple(p.high for p in prices),
            ),
        ),
        caption="One digit; 95 % intervals over pilots. Voters of a tree share "
        "ancestors: the fewest products per voter are not the best buy.",
    )


def _flips(damage: Damage) -> Figure:
    series = []
    for name, counts in damage.correct.items():
        found = [within(student_t(c)) for c in counts[:, 1:].T / damage.images]
        series.append(
            Series(
                name.replace("_", " "),
                damage.rates[1:],
                tuple(f.value for f in found),
                tuple(f.low for f in found),
                tuple(f.high for f in found),
            )
        )
    return Figure(
        kind="lines",
        title="Accuracy with bits of the stored words flipped",
        x_label="probability that a stored bit is flipped",
        y_label="accuracy (fraction)",
        x_scale="log",
        series=tuple(series),
        caption="Means over faulty devices, 95 % Student's t intervals. The Bayesian "
        "network stores nearly twice as many words.",
    )


def _reliability(said: Answers, labels: np.ndarray) -> Figure:
    """Both networks in one diagram."""
    drawn = [
        reliability_figure(
            reliability(jnp.asarray(probs[0]), jnp.asarray(labels)),
            title="Calibration on the test digits",
            name=name,
        )
        for name, probs in (
            ("voters", said.bayesian.probs),
            ("deterministic", said.deterministic.probs),
        )
    ]
    first, second = drawn
    return Figure(
        kind=first.kind,
        title=first.title,
        x_label=first.x_label,
        y_label=first.y_label,
        series=(*first.series, second.series[1]),
        caption=first.caption,
    )


def _information(said: Answers) -> Figure:
    information = np.asarray(said.bayesian.mutual_information)
    edges = np.linspace(0.0, max(float(information.max()), 1e-6), 31)
    return Figure(
        kind="histograms",
        title="How much the voters disagree",
        x_label="mutual information (nats)",
        y_label="images",
        y_scale="log",
        series=tuple(
            Series(kind, tuple(edges), tuple(np.histogram(values, edges)[0]))
            for kind, values in zip(KINDS, information, strict=True)
        ),
        caption="Test digits, the same digits turned by a quarter, and uniform noise.",
    )


def _times(timed: Speed) -> Figure:
    found = {name: spread(1e3 * s) for name, s in timed.seconds.items()}
    return Figure(
        kind="bars",
        title="Time to ask all voters about one digit",
        x_label="program",
        y_label="time (ms)",
        y_scale="log",
        series=(
            Series(
                "median",
                tuple(found),
                tuple(s.median for s in found.values()),
                tuple(s.low for s in found.values()),
                tuple(s.high for s in found.values()),
            ),
        ),
        caption="Compiled, every call with another digit and key; 95 % intervals of "
        "the median by its ranks. naive tree and dm draw the tree, the others "
        "independent voters.",
    )
