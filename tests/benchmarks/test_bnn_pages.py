"""What the page of Bayesian networks says in prose is what its records hold."""

import json
import runpy
import types

import pytest
from support import pages

pytestmark = pages.in_checkout


@pytest.fixture(scope="module")
def fashion():
    """The measures on Fashion-MNIST by name."""
    path = pages.ROOT / "benchmarks" / "records" / "bnn_fashion.json"
    measures = json.loads(path.read_text())["measures"]
    return {m["name"]: types.SimpleNamespace(**m) for m in measures}


@pytest.fixture(scope="module")
def read():
    """How to read Fashion-MNIST's tables, on one line, with plain minus signs."""
    text = (pages.ROOT / "docs" / "bnn_benchmark.md").read_text(encoding="utf-8")
    part = text.partition("### How to read it")[2].partition("### Results")[0]
    return " ".join(part.replace("−", "-").split())


def _ends(low, high, scale, digits):
    return f"[{low * scale:z.{digits}f}, {high * scale:z.{digits}f}]"


def _gain(m, scale=1, digits=3):
    """A difference as the gain or loss that it is, without its sign."""
    ends = sorted([abs(m.low), abs(m.high)])
    return f"{abs(m.value) * scale:.{digits}f}", _ends(*ends, scale, digits)


def _percent(m, digits=1):
    return f"{m.value:.{digits}%}".replace("%", " %")


def test_likelihood_and_calibration(fashion, read):
    size, ends = _gain(fashion["nll_difference.lrt.twin"])
    assert fashion["nll_difference.lrt.twin"].high < 0
    assert (
        f"more likely than those of one twin, by {size} nats a picture {ends}" in read
    )
    level = fashion["nll_difference.lrt.twin_scaled"]
    ends = _ends(level.low, level.high, 1, 3)
    assert f"a difference of {level.value:.3f} nats {ends}" in read
    posterior = ("lrt", "naive", "tree", *(f"planned_{p}" for p in PRICES))
    errors = [fashion[f"ece.{name}"].value for name in posterior]
    chance = fashion["ece_if_calibrated.lrt"]
    assert (
        f"its ECE is {min(errors) * 100:.1f} % to {max(errors) * 100:.1f} %, where a "
        f"calibrated network would show {chance.low * 100:.1f} % to "
        f"{chance.high * 100:.2f} %; the twin's is {_percent(fashion['ece.twin'])}, "
        f"with its temperature {_percent(fashion['ece.twin_scaled'])}."
    ) in read


def test_accuracy_beside_the_twin_and_the_ensemble(fashion, read):
    twin = fashion["accuracy_difference.lrt.twin"]
    ends = _ends(twin.low, twin.high, 100, 2)
    assert f"the difference is {twin.value * 100:.2f} % {ends}, not shown" in read
    assert twin.low < 0 < twin.high
    ensemble = fashion["accuracy_difference.lrt.ensemble"]
    size, ends = _gain(ensemble, 100, 2)
    assert f"against the ensemble they lose {size} % {ends}" in read
    assert ensemble.high < 0
    level = fashion["nll_difference.lrt.ensemble"]
    assert "In likelihood they are level with the ensemble" in read
    assert level.low < 0 < level.high
    size, ends = _gain(fashion["nll_difference.lrt.ensemble_scaled"])
    assert f"behind it, by {size} nats {ends}" in read
    assert fashion["nll_difference.lrt.ensemble_scaled"].low > 0


def test_detection(fashion, read):
    def area(name):
        m = fashion[f"auroc.mnist.{name}"]
        return f"{_percent(m)} {_ends(m.low, m.high, 100, 1)}"

    both = area("mutual_information"), area("entropy")
    assert f"with an AUROC of {both[0]}, by their entropy with {both[1]}," in read
    twin = area("twin_entropy"), area("twin_scaled_entropy")
    assert f"twin's entropy with {twin[0]}, and with {twin[1]} where it" in read
    best = fashion["auroc.mnist.twin_scaled_entropy"].high
    assert best < fashion["auroc.mnist.entropy"].low
    several = (area(f"ensemble{kind}_mutual_information") for kind in ("", "_scaled"))
    assert "as well or better: {}, with a temperature {}.".format(*several) in read


def test_voters_and_trees(fashion, read):
    few, many = (fashion[f"nll_of_voters.{n}"].value for n in (10, 100))
    assert "Ten voters are within 0.003 nats of a hundred." in read
    assert 0 < few - many < 0.003
    one, twin = fashion["nll_of_voters.1"].value, fashion["nll.twin"].value
    assert f"{one:.3f} and {twin:.3f} nats" in read
    plans = [1 - fashion[f"planned_cost.fashion.{p}"].value for p in PRICES]
    found = [fashion[f"found_cost.fashion.{p}"] for p in PRICES]
    costs = [m.value for m in found]
    assert (
        f"planned trees save {min(plans) * 100:.0f} % to {max(plans) * 100:.0f} % by "
        f"the plan, and what was found, {min(costs):.3f} to {max(costs):.3f} of the "
        "cost"
    ) in read
    assert all(0.75 < m.low < 1 < m.high for m in found)
    shares = [fashion[f"variance_share.fashion.level{i}"].value for i in (1, 2, 3)]
    assert "Three quarters of a voter's variance" in read
    assert abs(shares[0] - 0.75) < 0.02
    worth = 1 / (shares[0] / 10 + shares[1] / 100 + shares[2] / 100)
    assert f"worth {worth:.0f} independent voters by these shares" in read
    assert abs(fashion["nll.tree"].value - few) < 0.001


def test_products_of_hybrid_voters(read):
    first, others, voters = 784 * 200, 200 * 200 + 200 * 10, 100
    hybrid = (voters + 2) * first + 2 * voters * others
    fewer = 1 - hybrid / (2 * voters * (first + others))
    assert f"takes {fewer * 100:.0f} % fewer products for the same voters" in read


PRICES = ("products", "draws", "datapath")


@pytest.fixture(scope="module")
def said():
    path = pages.ROOT / "docs" / "bnn_sentences.py"
    return runpy.run_path(str(path))["bnn_sentences"]


def _measure(value, low, high, unit=""):
    return {"value": value, "low": low, "high": high, "unit": unit}


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ((1.0e-3, 1.9e-3), "reached"),
        ((1.5e-3, 2.5e-3), "neither reached nor missed"),
        ((2.1e-3, 2.5e-3), "**missed**"),
    ],
)
def test_a_goal_is_reached_by_its_whole_interval(said, ends, verdict):
    time = _measure(sum(ends) / 2, *ends, "s")
    ratio = _measure(0.5 / time["value"], 0.5 / ends[1], 0.5 / ends[0])
    goals, *_ = said(
        {"seconds.lrt_b1_t100": time, "ratio.bayesian_torch.lrt_b1_t100": ratio}
    )
    assert goals.count(f": {verdict})") == 2  # both are the same, turned round


def test_losses_are_told_and_counted(said):
    """Two cells lost, one won, one not told apart, and the extremes."""
    values = {"b1_t10": 0.5, "b8_t10": 0.9, "b1_t1000": 1.0, "b8_t1000": 2.0}
    found = {
        f"ratio.torch_lrt.lrt_{case}": _measure(v, v - 0.05, v + 0.05)
        for case, v in values.items()
    }
    found["ratio.torch_lrt.lrt16_b1_t10"] = _measure(3.0, 2.0, 4.0)
    found["ratio.blitz.lrt_b1_t10"] = _measure(9.0, 9.0, 9.0)  # other algorithms
    same, fewer = said(found)
    assert same.endswith(
        "LRT beside ten lines of torch faster in 1 and slower in 2 and not told apart "
        "in 1 of 4 cells, 0.5 (1 x 10) to 2 (8 x 1,000)."
    )
    assert fewer.endswith(
        "LRT beside ten lines of torch faster in 1 of 1 cells, 3 (1 x 10)."
    )


def test_decomposition_that_does_not_pay_is_told(said):
    found = {
        f"seconds.{name}_b{rows}_t100": _measure(value, value, value, "s")
        for rows, values in {1: (1.0, 2.0), 64: (3.0, 2.0)}.items()
        for name, value in zip(("hybrid", "naive"), values, strict=True)
    }
    (sentence,) = said(found)
    assert sentence == (
        "- *hybrid* takes longer than *naive* in 1 of 2 cells: its time over naive's, "
        "of medians, is 0.5 (1 x 100) to 1.5 (64 x 100)."
    )


@pytest.fixture(scope="module")
def faults_said():
    path = pages.ROOT / "docs" / "dm_bnn_tables.py"
    return runpy.run_path(str(path))["dm_bnn_summary"]


def _record(gains):
    """Faults at rates with gains whose intervals are +- 0.1 over 8 devices."""
    measures = []
    for rate, gain in gains.items():
        values = {
            f"faulty_accuracy.bayesian.{rate}": 0.5 + gain,
            f"faulty_accuracy.only_means.{rate}": 0.6,
            f"faulty_accuracy.only_stds.{rate}": 0.9,
            f"faulty_accuracy.one_pass.{rate}": 0.55,
            f"faulty_accuracy.deterministic.{rate}": 0.5,
            f"faulty_accuracy_gain.{rate}": gain,
        }
        measures += [
            {"name": n, "trials": 8, **_measure(v, v - 0.1, v + 0.1, "fraction")}
            for n, v in values.items()
        ]
    rest = {"preset": "full", "seed": 0, "device": "cpu x 1", "versions": {}}
    return {"measures": measures, **rest}


def test_faults_are_told_for_all_rates_together(faults_said):
    """Of one rate 0.12 +- 0.1 is a difference, of two none: 2.841 / 2.365 of it is."""
    one = faults_said(_record({"1e-4": 0.12}))
    assert one.startswith(
        "With 1e-4 of all stored bits flipped the Bayesian network reads 62.0 % [52.0, "
        "72.0] of the digits right, its twin 50.0 % [40.0, 60.0]: 12.0 % [2.0, 22.0] "
        "more (flips of the means alone leave 60 %, of the standard deviations alone "
        "90 %, one pass with the hit means has 55 %).\n"
    )
    two = faults_said(_record({"1e-4": 0.12, "1e-3": -0.13}))
    assert "At 1e-4 no difference is shown." in two
    assert "13.0 % [3.0, 23.0] fewer" in two
