"""Measures and notes from what was timed."""

from collections.abc import Mapping

import numpy as np

from bnn_cases import contests, generators, planned, subject
from jeff.evaluate import Measure
from pallas_kernels import timing

__all__ = ["BESIDE", "contest_measures", "draw_measures", "notes", "tree_measures"]

BESIDE = {
    "bayesian_torch": (
        *("lrt", "lrt16", "naive", "naive16"),
        *("hybrid", "tree", "tree_shared"),
    ),
    "bayesian_torch_flipout": ("flipout", "lrt"),
    "blitz": ("lrt", "naive"),
    "torch_lrt": ("lrt", "lrt16"),
}
"""By peer, with which of jeff's modes it is compared."""


def contest_measures(
    found: Mapping[tuple[int, int], contests.Timed],
) -> list[Measure]:
    """Times, ratios, memory and compile times.

    Args:
      found: By ``(rows, voters)``.

    Returns:
      Measures, the ratios first.
    """
    ratios, others = [], []
    for (rows, voters), timed in found.items():
        case = f"b{rows}_t{voters}"
        for peer, modes in BESIDE.items():
            for mode in modes:
                if peer in timed.seconds and mode in timed.seconds:
                    ratio = timed.seconds[peer] / timed.seconds[mode]
                    name = f"ratio.{peer}.{mode}_{case}"
                    ratios.append(_middle(name, "", ratio))
        for name, seconds in timed.seconds.items():
            others.append(_middle(f"seconds.{name}_{case}", "s", seconds))
        kinds = {
            "peak_bytes": (timed.peak_bytes, "bytes"),
            "compiled_bytes": (timed.compiled_bytes, "bytes"),
            "compile_seconds": (timed.compile_seconds, "s"),
        }
        for kind, (values, unit) in kinds.items():
            for name, value in values.items():
                others.append(Measure(f"{kind}.{name}_{case}", value, unit))
    return [*ratios, *others]


def draw_measures(speeds: generators.Speeds) -> list[Measure]:
    """Numbers a second of the generators, and hybrid voters made with them.

    Args:
      speeds: What was found.

    Returns:
      Measures.
    """
    found = []
    for kind in ("rows", "long"):
        for name, seconds in getattr(speeds, kind).items():
            found.append(_middle(f"draws_per_second.{kind}.{name}", "1/s", 1 / seconds))
    for name, seconds in speeds.voters.items():
        found.append(_middle(f"hybrid_seconds.{name}", "s", seconds))
    return found


def tree_measures(found: Mapping[str, planned.Found]) -> list[Measure]:
    """Costs per effective voter, over those of independent voters.

    Args:
      found: By network.

    Returns:
      Measures.
    """
    measures = []
    for network, of_network in found.items():
        total = sum(of_network.components)
        for level, value in enumerate(of_network.components, 1):
            name = f"variance_share.{network}.level{level}"
            measures.append(Measure(name, value / total, "fraction"))
        for prices, tree in of_network.trees.items():
            case = f"{network}.{prices}"
            measures.append(Measure(f"planned_cost.{case}", tree.ratio, ""))
            if tree.found is not None:
                value, low, high = tree.found
                name = f"found_cost.{case}"
                measures.append(Measure(name, value, "", low=low, high=high))
            if tree.seconds is not None:
                measures.append(_middle(f"found_seconds.{case}", "", tree.seconds))
    return measures


def notes(
    settings: contests.Settings,
    trees: Mapping[str, planned.Found],
    tree_settings: planned.Settings,
    missing: Mapping[str, str],
) -> list[str]:
    """What a reader of the numbers must know.

    Args:
      settings: Of the contests.
      trees: By network.
      tree_settings: Of the trees.
      missing: Why a peer cannot run, by name.

    Returns:
      Sentences.
    """
    sizes = "-".join(map(str, subject.SIZES))
    branches = ", ".join(str(contests.trees(v)) for v in settings.voters)
    plans = [
        f"{network}, {prices}: {tree.voters}, counted as {tree.mode}"
        for network, found in trees.items()
        for prices, tree in found.trees.items()
    ]
    found = [
        f"CASE is CONTENDER_bROWS_tVOTERS. The network is {sizes}, ReLU, no biases, "
        "with untrained means and standard deviations of 0.025 to 0.075; inputs are "
        "uniform. One core and one thread for everybody; contenders take turns. With "
        "the same noise all give the same outputs (output_difference).",
        "ratio.PEER.CASE: time of the peer over jeff's in the same round, median and "
        "its 95 % interval by ranks (of fewer than 6 rounds: their range). "
        "bayesian_torch draws every weight, as naive does; its ratio to lrt is of "
        "another algorithm with the same distribution for each input. torch_lrt is "
        "that algorithm written by hand in torch. Names that end in 16: the same with "
        "numbers of 16 random bits (dm_bnn.normal16).",
        f"tree, tree_shared: voters of {branches} branches, of which those that share "
        "ancestors are alike: fewer effective voters, see planned_cost.",
        f"At most {settings.repeats} rounds, fewer where they would take more than "
        f"{settings.cell_seconds:g} s, at least {contests.FEWEST}: trials says how "
        "many. Memory is measured before, so that all have run when they are timed; "
        "peak_bytes is the larger of two calls, of those of more than 2 s of one.",
        "peak_bytes: growth of the process's resident memory during a call; "
        "compiled_bytes: intermediate results and outputs, as XLA's compiler plans "
        "them.",
        "draws_per_second: numbers that are drawn and multiplied with something, 784 "
        "(rows) or 131,072 (long) under a key; clt, rlf and wallace are simulations of "
        "hardware. hybrid_seconds: "
        f"{max(v for v in settings.voters if v <= 100)} hybrid voters of one row.",
        f"planned_cost: cost of an effective voter of the planned tree over that of "
        f"one of {tree_settings.voters} independent hybrid voters of the same budget, "
        f"from a pilot of {tree_settings.pilot} and the softmax of "
        f"{tree_settings.examples} inputs; below 1 the tree is cheaper. found_cost: "
        "the same with the variance of the mean over "
        f"{tree_settings.repetitions} repetitions of both (bootstrap interval); "
        "found_seconds: the same, the cost being time on this core (interval of the "
        "times alone). Neither where independent voters are the plan. Prices: "
        "products alone; draws alone; datapath: energies of hwsim's default machine "
        "without memories. The planned trees: " + "; ".join(plans) + ".",
    ]
    return [*found, *(f"{name} is not there: {why}" for name, why in missing.items())]


def _middle(name: str, unit: str, samples: np.ndarray) -> Measure:
    s = timing.spread(samples)
    return Measure(name, s.median, unit, low=s.low, high=s.high, trials=s.trials)
