"""What ``jeff run dm-bnn`` found, as measures, tables, plots and sentences.

Plain NumPy on the host, but for scores that `jeff.evaluate` computes.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jeff.dm_bnn.study import figures, sentences
from jeff.dm_bnn.study.answers import Answers, ece_if_calibrated
from jeff.dm_bnn.study.faults import NETWORKS, Damage, rate_word
from jeff.dm_bnn.study.settings import DMBNNSettings
from jeff.dm_bnn.study.speed import Speed
from jeff.dm_bnn.study.subject import KINDS
from jeff.dm_bnn.study.trees import Grown
from jeff.dm_bnn.uncertainty import Predictive
from jeff.evaluate import (
    Interval,
    Measure,
    Outcome,
    Table,
    delong,
    ece,
    student_t,
    wilson,
)
from pallas_kernels.timing import spread

__all__ = ["outcome"]

_HALF = "about half of the standard scheme's computations removed (abstract)"


class _Scores(NamedTuple):
    """One network's predictions of the test digits, scored."""

    right: Interval
    nll: Interval
    ece: float
    ece_equal_mass: float
    brier: Interval


def outcome(
    settings: DMBNNSettings,
    grown: Grown,
    timed: Speed,
    said: Answers,
    labels: np.ndarray,
    damage: Damage,
    *,
    words: dict[str, int],
    rng: np.random.Generator,
) -> Outcome:
    """Everything the command line shows and stores.

    Args:
      settings: What was asked for.
      grown: Costs and worths of trees.
      timed: Times.
      said: Predictions, NumPy arrays ``[kinds, images, ...]``.
      labels: int32 ``[images]``, of the first kind.
      damage: Right answers of faulty devices.
      words: Stored words by network.
      rng: For the calibration error of a calibrated network.

    Returns:
      Measures, tables, figures and notes.
    """
    chance = ece_if_calibrated(np.asarray(said.bayesian.probs[0]), rng)
    detection = _detection(said)
    measures = (
        *_costs(settings, grown),
        Measure("max_difference.naive_dm", timed.difference),
        *_trust(said, labels, chance),
        *detection,
        *_times(timed),
        *_faulty(damage),
    )
    return Outcome(
        measures=measures,
        tables=(_trees_table(grown), _faults_table(damage, words)),
        figures=figures.all_figures(grown, timed, said, labels, damage),
        notes=sentences.notes(settings, grown, timed, detection, damage, words),
    )


def _costs(settings: DMBNNSettings, grown: Grown) -> list[Measure]:
    by_name = {tree.name: tree for tree in grown.trees}
    standard = by_name["standard"].count.multiplications
    measures = [
        Measure(
            f"multiplications.{name}",
            by_name[name].count.multiplications,
            baseline=standard,
            paper=None if name == "standard" else _HALF,
        )
        for name in ("standard", "hybrid", "dm")
    ]
    # Independent voters are worth their number; there is nothing to estimate.
    measures.append(Measure("effective_voters.standard", settings.voters))
    for name in ("dm", "planned"):
        measures.append(
            _interval(
                f"effective_voters.{name}",
                student_t(by_name[name].effective),
                baseline=settings.voters,
            )
        )
    hybrid = by_name["hybrid"].products_each.mean()
    measures.append(
        Measure("products_per_effective_voter.hybrid", hybrid, baseline=hybrid)
    )
    for name in ("dm", "planned"):
        found = student_t(by_name[name].products_each)
        full_name = f"products_per_effective_voter.{name}"
        measures.append(_interval(full_name, found, baseline=hybrid))
    return measures


def _trust(said: Answers, labels: np.ndarray, chance: np.ndarray) -> list[Measure]:
    voters = _scores(Predictive(*(a[0] for a in said.bayesian)), labels)
    twin = _scores(Predictive(*(a[0] for a in said.deterministic)), labels)
    low, high = np.quantile(chance, (0.025, 0.975))
    by_chance = Interval(float(chance.mean()), float(low), float(high), chance.size)
    return [
        _interval("accuracy", voters.right, "fraction", baseline=twin.right.value),
        _interval("accuracy.deterministic", twin.right, "fraction"),
        Measure("ece", voters.ece, "fraction", baseline=twin.ece),
        Measure("ece.deterministic", twin.ece, "fraction"),
        _interval("ece.if_calibrated", by_chance, "fraction"),
        Measure(
            "ece_equal_mass",
            voters.ece_equal_mass,
            "fraction",
            baseline=twin.ece_equal_mass,
        ),
        Measure("ece_equal_mass.deterministic", twin.ece_equal_mass, "fraction"),
        _interval("nll", voters.nll, "nats", baseline=twin.nll.value),
        _interval("nll.deterministic", twin.nll, "nats"),
        _interval("brier", voters.brier, baseline=twin.brier.value),
        _interval("brier.deterministic", twin.brier),
    ]


def _scores(found: Predictive, labels: np.ndarray) -> _Scores:
    probs, truth = jnp.asarray(found.probs), jnp.asarray(labels)
    right = int((found.probs.argmax(-1) == labels).sum())
    own = found.probs[np.arange(len(labels)), labels]
    one_hot = np.eye(found.probs.shape[-1])[labels]
    surprise = -np.log(np.maximum(own, np.finfo(np.float32).tiny))
    return _Scores(
        wilson(right, len(labels)),
        student_t(surprise),
        float(ece(probs, truth)),
        float(ece(probs, truth, mass="equal")),
        student_t(np.square(found.probs - one_hot).sum(-1)),
    )


def _detection(said: Answers) -> list[Measure]:
    """How well an uncertainty tells digits from inputs of the other kinds."""
    images = said.bayesian.entropy.shape[1]
    positive = jnp.arange(2 * images) >= images
    measures = []
    for number, kind in enumerate(KINDS[1:], 1):
        areas = {
            name: delong(
                jnp.concatenate([uncertainty[0], uncertainty[number]]), positive
            )
            for name, uncertainty in (
                ("mutual_information", said.bayesian.mutual_information),
                ("entropy", said.bayesian.entropy),
                ("deterministic", said.deterministic.entropy),
            )
        }
        twin = areas["deterministic"].value
        measures += [
            _interval(f"auroc.{kind}.{name}", area, "fraction", baseline=twin)
            for name, area in areas.items()
        ]
    return measures


def _times(timed: Speed) -> list[Measure]:
    naive = 1e3 * float(np.median(timed.seconds["naive"]))
    measures = []
    for name in ("naive", "hybrid", "lrt", "naive_tree", "dm"):
        s = spread(1e3 * timed.seconds[name])
        found = Interval(s.median, s.low, s.high, s.trials)
        measures.append(_interval(f"milliseconds.{name}", found, "ms", baseline=naive))
    return measures


def _faulty(damage: Damage) -> list[Measure]:
    """Accuracy by what was hit, and the paired difference, at every rate but 0."""
    measures = []
    for number, rate in enumerate(damage.rates[1:], 1):
        word = rate_word(rate)
        accuracy = {k: v[:, number] / damage.images for k, v in damage.correct.items()}
        for name in NETWORKS:
            found = figures.within(student_t(accuracy[name]))
            measures.append(
                _interval(f"faulty_accuracy.{name}.{word}", found, "fraction")
            )
        gain = student_t(accuracy["bayesian"] - accuracy["deterministic"])
        measures.append(
            _interval(f"faulty_accuracy_gain.{word}", gain, "fraction", baseline=0.0)
        )
    return measures


def _trees_table(grown: Grown) -> Table:
    rows = []
    for tree in grown.trees:
        worth, price = student_t(tree.effective), student_t(tree.products_each)
        rows.append(
            (
                tree.name,
                str(tree.voters),
                tree.mode,
                tree.count.multiplications,
                tree.count.additions,
                tree.count.random_draws,
                round(worth.value, 1),
                round(price.value),
                f"[{price.low:,.0f}, {price.high:,.0f}]",
            )
        )
    shares = ", ".join(f"{share:.0%}" for share in grown.shares.mean(axis=0))
    return Table(
        title="Trees of voters, for one digit",
        columns=(
            "name",
            "branches",
            "mode",
            "products",
            "sums",
            "draws",
            "effective voters",
            "products per effective voter",
            "95 % interval",
        ),
        rows=tuple(rows),
        caption="Products, sums and draws are counted in the program. Of the variance "
        f"of a voter's probabilities the three layers cause {shares}.",
    )


def _faults_table(damage: Damage, words: dict[str, int]) -> Table:
    rows = []
    for number, rate in enumerate(damage.rates):
        cells = []
        for counts in damage.correct.values():
            found = figures.within(student_t(counts[:, number] / damage.images))
            cells.append(f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}]")
        rows.append((rate_word(rate), *cells))
    return Table(
        title="Accuracy with bits of the stored words flipped",
        columns=("rate", *(name.replace("_", " ") for name in damage.correct)),
        rows=tuple(rows),
        caption=f"{words['bayesian']:,} words in the Bayesian network, "
        f"{words['deterministic']:,} in its twin. Only means, only stds: voters, the "
        "other words untouched. One pass: the hit means as a network of their own.",
    )


def _interval(
    name: str, found: Interval, unit: str = "", *, baseline: float | None = None
) -> Measure:
    return Measure(
        name,
        found.value,
        unit,
        baseline=baseline,
        low=found.low,
        high=found.high,
        trials=found.trials,
    )
