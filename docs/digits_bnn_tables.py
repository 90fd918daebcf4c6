"""Tables and sentences of the record of the embedded Bayesian network's training."""

import pathlib
import runpy
from typing import Any

from jeff.cli.quantity import quantity

__all__ = ["digits_bnn"]

_SCORES = runpy.run_path(str(pathlib.Path(__file__).with_name("score_tables.py")))
_NAMES = {
    "mean": "posterior, mean weights, one pass",
    "bayesian": "posterior, voters",
    "full_kl": "posterior of the full divergence, voters",
    "deterministic": "twin",
}
_KINDS = {
    "rotated": "digits turned by a quarter, AUROC",
    "uniform": "uniform noise, AUROC",
}
_BOTH = ("accuracy", "ece")
_UNCERTAINTIES = {
    "mutual_information": "voters, mutual information",
    "entropy": "voters, entropy",
    "deterministic": "twin, entropy",
}


def digits_bnn(record: dict[str, Any]) -> str:
    """The record as sentences and tables.

    Args:
      record: Made by ``benchmarks/train_digits_bnn.py``.

    Returns:
      Markdown.
    """
    found = {m["name"]: m for m in record["measures"]}
    settings = record["settings"]
    parts = [
        [_training(settings, found)],
        _SCORES["scores"](found, _NAMES),
        [_tempering(found)],
        _SCORES["choice"](found),
        _SCORES["detection"](found, _KINDS, _UNCERTAINTIES),
    ]
    lines = [line for part in parts if part for line in (*part, "")]
    lines += [f"- {note}".replace("|", "\\|") for note in record["notes"]]
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
    made = f"Made by `python benchmarks/train_digits_bnn.py` in {record['seconds']} s"
    return "\n".join([*lines, "", f"{made} on {record['device']} ({versions})."])


def _training(settings: dict[str, Any], found: dict[str, Any]) -> str:
    """How the networks were trained."""
    return (
        f"Trained with Adam at {settings['rate']:g} for {settings['epochs']} passes in "
        f"batches of {settings['batch']}, gradients by local reparameterisation, every "
        f"standard deviation from {settings['start_std']:g}, prior N(0, "
        f"{settings['prior_std']:g}²) for every kernel, none for biases, divergence "
        f"weighted with {found['kl_weight']['value']:g}, seed {settings['seed']}. The "
        "twin: the same start, batches and steps, no noise and no prior. "
        f"{settings['voters']} voters."
    )


def _tempering(found: dict[str, Any]) -> str:
    """What the full bound does to calibration, and the tempered one."""
    measured = [
        tuple(quantity(found[f"{kind}.{name}"]["value"], "fraction") for kind in _BOTH)
        for name in ("full_kl", "bayesian")
    ]
    (full_accuracy, full_ece), (accuracy, ece) = measured
    gap = found["ece.full_kl"]["value"] - found["ece.bayesian"]["value"]
    verdict = "is better calibrated" if gap > 0 else "is not better calibrated"
    mean = {
        kind: quantity(found[f"{kind}.mean"]["value"], unit)
        for kind, unit in (("nll", "nats"), ("ece", "fraction"))
    }
    lower = all(
        found[f"{kind}.mean"]["value"] < found[f"{kind}.bayesian"]["value"]
        for kind in mean
    )
    both = "both below the voters'" if lower else "not both below the voters'"
    return (
        f"With the full divergence voters reach {full_accuracy} accuracy at an ECE of "
        f"{full_ece}; with the chosen weight {accuracy} at {ece}: tempered, the "
        f"posterior {verdict}. One pass with its mean weights has a negative "
        f"log-likelihood of {mean['nll']} and an ECE of {mean['ece']}, {both}."
    )
