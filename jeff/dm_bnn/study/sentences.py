"""What a reader of the numbers of ``jeff run dm-bnn`` must know."""

from collections.abc import Sequence

import numpy as np

from jeff.dm_bnn.study.faults import Damage, rate_word
from jeff.dm_bnn.study.settings import IMAGES, DMBNNSettings
from jeff.dm_bnn.study.speed import Speed
from jeff.dm_bnn.study.trees import Grown
from jeff.evaluate import Measure, student_t
from pallas_kernels.timing import spread

__all__ = ["about_detection", "about_faults", "about_speed", "notes"]


def notes(
    settings: DMBNNSettings,
    grown: Grown,
    timed: Speed,
    detection: Sequence[Measure],
    damage: Damage,
    words: dict[str, int],
) -> tuple[str, ...]:
    """Data, trees, tests, and where the method does not help.

    Args:
      settings: What was asked for.
      grown: Costs and worths of trees.
      timed: Times.
      detection: Areas under the curve, with the twin's as the baseline.
      damage: Right answers of faulty devices.
      words: Stored words by network.

    Returns:
      Sentences.
    """
    return (
        f"Data: {IMAGES} test digits of 8x8 (UCI, through scikit-learn), and as many "
        "turned by a quarter or uniform; network 64-100-100-10, trained on 1,197 other "
        "digits, random kernels. A toy: its numbers stand for no large one.",
        f"Voters: {settings.voters}; standard, hybrid, accuracy and ECE: independent; "
        f"dm: tree {_tree(settings.tree)}, noise independent between branches; "
        f"planned: tree {_tree(grown.plan.voters)} in mode {_planned(grown).mode}, "
        "the least variance for what independent hybrid voters cost, from one pilot on "
        "training digits.",
        "multiplications: of one digit, counted in the traced program. max_difference: "
        "naive and dm for the same keys and tree, largest over "
        f"{settings.repeats} digits, relative to the largest logit.",
        "effective_voters: independent voters whose mean probabilities vary as much; "
        f"nested analysis of variance of {settings.pilots} pilot trees "
        f"{_tree(settings.pilot)} on {settings.pilot_images} test digits, Student's t "
        "intervals over the pilots.",
        _about_trees(grown),
        *about_speed(timed, settings.quick_compile),
        "accuracy: Wilson's interval, nll: Student's t, over images; one draw of "
        "voters, one training. ece: 15 bins of equal width; ece.if_calibrated: what a "
        "calibrated network of the voters' confidences would show on as many images, "
        "mean and central 95 % of 1,000 draws. ece_equal_mass: 15 bins of as many "
        "images each. brier: sum of squares over the classes, 0 to 2; Student's t.",
        about_detection(detection),
        f"faulty_accuracy: every bit of every stored {settings.words} word flipped "
        f"independently ({words['bayesian']:,} words with two per random weight, "
        f"{words['deterministic']:,} in the twin; at one rate the Bayesian network has "
        f"{words['bayesian'] / words['deterministic']:.2f} times the flips); "
        f"{settings.devices} devices, {settings.device_images} test digits, "
        f"{settings.device_voters} voters by local reparameterisation, arithmetic in "
        "float32. The same flips hit the means and the twin. Nothing is repaired: a "
        "network whose probabilities are NaN is wrong, so one voter's NaN is too. "
        "only_means, only_stds: voters, the other words untouched; one_pass: the hit "
        "means as a network of their own.",
        "faulty_accuracy_gain: Bayesian minus twin, paired over devices; Student's t "
        "intervals over devices, on these images; rough where only a few devices are "
        "hurt, and without width where none is.",
        *about_faults(damage),
    )


def _about_trees(grown: Grown) -> str:
    by_name = {tree.name: tree for tree in grown.trees}
    hybrid = float(by_name["hybrid"].products_each.mean())
    parts = []
    for name in ("dm", "planned"):
        tree = by_name[name]
        ratio = student_t(tree.products_each / hybrid)
        parts.append(
            f"the {name} tree {_tree(tree.voters)} {ratio.value:.2f} "
            f"[{ratio.low:.2f}, {ratio.high:.2f}]"
        )
    return (
        "Products per effective voter, over those of independent hybrid voters: "
        f"{', '.join(parts)}. Fewer products per voter are not fewer per effective "
        "voter."
    )


def about_speed(timed: Speed, quick_compile: bool) -> tuple[str, ...]:
    """What decomposition and local reparameterisation gain in time.

    Args:
      timed: Times.
      quick_compile: Whether programs were compiled with fewer optimizations.

    Returns:
      Sentences.
    """
    compiled = (
        "Compiled at XLA's optimization level 1, to be done soon; preset full has the "
        "usual one."
        if quick_compile
        else "Compiled as usual."
    )

    def against(name, other):
        one, two = (1e3 * float(np.median(timed.seconds[n])) for n in (name, other))
        ratio = spread(timed.seconds[other] / timed.seconds[name])
        verdict = "no gain shown"
        if ratio.low > 1:
            verdict = "faster"
        elif ratio.high < 1:
            verdict = "slower"
        return (
            f"{one:.3g} ms against {two:.3g} ms, {ratio.median:.2f} times "
            f"[{ratio.low:.2f}, {ratio.high:.2f}] as fast, {verdict}"
        )

    return (
        "milliseconds: one digit, compiled, on the processor of this run; median of "
        f"{len(timed.seconds['naive'])} calls that take turns, each with another digit "
        "and key, 95 % interval by ranks; ratios are those of calls of one turn. "
        f"{compiled}",
        "Decomposition saves products and no draws. Independent voters, hybrid and "
        f"naive: {against('hybrid', 'naive')}; the tree, dm and naive: "
        f"{against('dm', 'naive_tree')}. On a processor take local "
        "reparameterisation, which draws outputs instead of weights: "
        f"{against('lrt', 'naive')}.",
    )


def about_detection(detection: Sequence[Measure]) -> str:
    """Whether an uncertainty detects worse than the twin's.

    Args:
      detection: Areas under the curve, with the twin's as the baseline.

    Returns:
      A sentence.
    """
    worse = [
        m.name
        for m in detection
        if m.baseline is not None and m.value < m.baseline - 1e-9
    ]
    verdict = (
        "below the twin's entropy: " + ", ".join(worse)
        if worse
        else "none is below the twin's entropy, the baseline"
    )
    return (
        "auroc: digits against other inputs by an uncertainty, DeLong's intervals; "
        f"{verdict}. Half is chance."
    )


def about_faults(damage: Damage) -> tuple[str, ...]:
    """Who survives, and why: four paired comparisons at every rate.

    Args:
      damage: Right answers of faulty devices.

    Returns:
      Sentences.
    """
    pairs = {
        "the Bayesian network minus its twin": ("bayesian", "deterministic"),
        "voting, that is voters minus one pass, hit means": ("only_means", "one_pass"),
        "training, that is one pass minus the twin": ("one_pass", "deterministic"),
        "flips of the standard deviations alone minus those of the means alone": (
            "only_stds",
            "only_means",
        ),
    }
    clean = {k: np.mean(v[:, 0]) / damage.images for k, v in damage.correct.items()}
    return (
        *(
            f"Accuracy under flips, {what}: {_by_rate(damage, name, other)}."
            for what, (name, other) in pairs.items()
        ),
        "Verdicts hold for all rates of a comparison together (95 %, Bonferroni), the "
        "intervals for one rate. Accuracy without flips: "
        f"{clean['bayesian']:.3f} Bayesian, {clean['deterministic']:.3f} twin.",
    )


def _by_rate(damage: Damage, name: str, other: str) -> str:
    """The paired difference and its verdict at every rate."""
    rates = damage.rates[1:]
    said = []
    for number, rate in enumerate(rates, 1):
        gaps = (damage.correct[name] - damage.correct[other])[:, number] / damage.images
        t, wide = student_t(gaps), student_t(gaps, level=1 - 0.05 / len(rates))
        verdict = "no difference shown"
        if wide.low == wide.high:
            verdict = "the same on every device"
        elif wide.low > 0:
            verdict = "better"
        elif wide.high < 0:
            verdict = "worse"
        said.append(
            f"at {rate_word(rate)}: {t.value:+.3f} [{t.low:+.3f}, {t.high:+.3f}], "
            f"{verdict}"
        )
    return "; ".join(said)


def _planned(grown: Grown):
    return next(tree for tree in grown.trees if tree.name == "planned")


def _tree(voters: Sequence[int]) -> str:
    return "x".join(map(str, voters))
