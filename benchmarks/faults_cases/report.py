"""Measures and notes from what was timed."""

from collections.abc import Mapping

import numpy as np

from faults_cases.speed import FLIP_RATE, MIBB_RATE, Speeds
from jeff.evaluate import Measure
from pallas_kernels import timing

__all__ = ["RATIOS", "notes", "speed_measures"]

RATIOS = {
    "pytorchfi.one_image": ("one_image", "jeff_flips", ("pytorchfi",)),
    "pytorchfi.one_image_single": ("one_image", "jeff_single", ("pytorchfi",)),
    "pytorchfi.one_image_norm": ("one_image", "jeff_flips", ("pytorchfi_norm",)),
    "pytorchfi.features": (
        "features",
        "jeff_single",
        ("pytorchfi_flip", "pytorchfi_neuron"),
    ),
    "mrfi.features": ("features", "jeff_flips", ("mrfi",)),
    "pytorchfi.prefix_reuse": ("prefix_reuse", "jeff_block", ("pytorchfi",)),
    "pytorchfi.prefix_reuse_layer": ("prefix_reuse", "jeff_layer", ("pytorchfi",)),
    "pytorchfi.prefix_reuse_stage": ("prefix_reuse", "jeff_stage", ("pytorchfi",)),
    "torch.one_image": ("one_image", "jeff_plain", ("torch",)),
    "torch.features": ("features", "jeff_plain", ("torch",)),
}
"""``PEER.CASE``: the contest, jeff's contender, and the peer's, the faster counts."""

_COUNTED = {"one_image": "models", "features": "inferences", "prefix_reuse": None}


def speed_measures(timed: Mapping[int, Speeds]) -> list[Measure]:
    """Rates, ratios, compile times and memory.

    Args:
      timed: By number of cores; those of one core get names that say so.

    Returns:
      The measures, of the most cores first.
    """
    found = []
    for cores, speeds in timed.items():
        suffix = "_one_core" if cores == 1 and len(timed) > 1 else ""
        for name, (contest, ours, theirs) in RATIOS.items():
            seconds = speeds.seconds[contest]
            there = [peer for peer in theirs if peer in seconds]
            if ours in seconds and there:
                best = min(there, key=lambda peer, s=seconds: np.median(s[peer]))
                ratio = np.divide(seconds[best], seconds[ours])
                found.append(_middle(f"ratio.{name}{suffix}", "", ratio))
        for contest, contenders in speeds.seconds.items():
            kind = _COUNTED[contest] or "inferences"
            for name, seconds in contenders.items():
                full = f"{kind}_per_second.{contest}{suffix}.{name}"
                found.append(_middle(full, "1/s", 1.0 / np.asarray(seconds)))
    speeds = next(iter(timed.values()))
    for name, seconds in speeds.compile_seconds.items():
        found.append(Measure(f"compile_seconds.{name}", seconds, "s"))
    for name, size in speeds.temporary_bytes.items():
        found.append(Measure(f"temporary_bytes.{name}", size, "bytes"))
    for name, error in speeds.agreement.items():
        found.append(Measure(f"logit_difference.{name}", error, "fraction"))
    return found


def notes(timed: Mapping[int, Speeds]) -> list[str]:
    """What a reader of the numbers must know."""
    first = next(iter(timed.values()))
    cores = next(iter(timed))
    found = [
        f"ratio.PEER.CASE: time of the peer over jeff's in the same round, median and "
        f"its 95 % interval by ranks; {cores} cores for everybody, and one core in "
        "names that say so. jeff runs one CPU device per core.",
        "The network is ResNet-20 with random int8 weights, 271,690 with its "
        "normalisations folded, as jeff holds it and as the peers get it; "
        "pytorchfi_norm is the same function with normalisations, 272,474 trained "
        "numbers. PyTorchFI's declaration of a new random fault is part of its time.",
        f"one_image: jeff_flips flips every bit of the weights' codes with probability "
        f"{FLIP_RATE:g}, about 2,160 bits a model; jeff_single flips one; PyTorchFI "
        "sets one weight to a random value.",
        "features: jeff_single flips one bit of an 8-bit code of one feature per "
        "image, layers equally often, as pytorchfi_flip; 16 faulty copies of an image "
        "share one run of the clean network. pytorchfi_neuron sets a feature to a "
        "random value; jeff_flips and mrfi keep all features in 8 bits and flip a bit "
        f"of a share {FLIP_RATE:g} of them; jeff_mibb has a fault in a share "
        f"{MIBB_RATE:g} of all multiplications. ratio.pytorchfi.features is over the "
        "faster of PyTorchFI's two.",
        "prefix_reuse: one fault in a weight of the last block (jeff_block), last "
        "convolution (jeff_layer) or last three blocks (jeff_stage), 64 images per "
        "fault; jeff starts from kept activations, PyTorchFI runs the whole network.",
        "injections: single bit flips of the trained network's int8 weights, one test "
        "picture each, until the share of changed answers is known to 0.01 at 95 %; "
        "fixed: the rule of the worst case; anytime: exact at every look, one look "
        "every 128 injections; stratified: two stages, pilot included, at a nominal "
        "level, for it looks again at a fixed interval; median, low and high are over "
        "campaigns.",
        "to_margin: ResNet-8 with its trained weights; an injection has faults of its "
        "own and, of jeff, a random picture. Peers: seconds of an injection times "
        "9,604, the fixed rule of one percent at 95 %, since they have no rule that "
        "stops. jeff: a whole campaign from the first draw to the decision, "
        "compilation apart: it stops once an interval that is valid at every look "
        "(99 %, a look every 128 injections) has the margin, and at the latest at the "
        "fixed rule of 96 %.",
        "weights_int8: every bit of the codes flips with the rate; features_mibb: the "
        "rate is per multiplication. Intervals: over devices or runs, on the same "
        "pictures (jeff.sweep.mean_of_devices).",
    ]  # fmt: skip
    for name, why in first.missing.items():
        found.append(f"{name} is not there: {why}")
    ran = [f"{name}: {text}" for name, text in first.plans.items()]
    return [*found, "How they ran: " + "; ".join(ran) + "."]


def _middle(name: str, unit: str, samples: np.ndarray) -> Measure:
    s = timing.spread(samples)
    return Measure(name, s.median, unit, low=s.low, high=s.high, trials=s.trials)
