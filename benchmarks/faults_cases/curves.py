"""Accuracy and changed answers against the fault rate, of a trained network."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from faults_cases import subjects
from jeff import base, faults, sweep
from jeff.evaluate import Measure

__all__ = ["FEATURE_RATES", "WEIGHT_RATES", "accuracy_curves"]

WEIGHT_RATES = (1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Probability that a bit of an int8 weight is flipped."""
FEATURE_RATES = (1e-8, 1e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4)
"""MiBB's probability that a multiplication is faulty."""


def accuracy_curves(
    subject: subjects.Subject, *, devices: int, runs: int, seed: int
) -> tuple[list[Measure], dict[str, Any]]:
    """Sweeps both kinds of faults over their rates.

    Args:
      subject: Network and pictures.
      devices: Faulty devices (trials) of each weight rate.
      runs: Noisy runs (trials) of each feature rate.
      seed: Of all faults.

    Returns:
      ``accuracy.KIND.RATE`` and ``changed.KIND.RATE`` with an interval over
      trials (`sweep.mean_of_devices`), for new devices on the same pictures, and
      ``golden_accuracy``; and how the sweeps ran.
    """
    data, key = subject.data, jax.random.key(seed)
    dense = base.decoded(subject.params)

    def flips(rate: jax.Array) -> base.FaultModel:
        model = faults.bit_flip(rate, max_rate=max(WEIGHT_RATES))
        return faults.on_weights(model, where=subjects.KERNELS)

    bias = functools.partial(faults.mibb_at_sites, max_rate=max(FEATURE_RATES))
    sweeps = {
        "weights_int8": (
            sweep.weight_faults(subject.apply, subject.params, flips),
            WEIGHT_RATES,
            devices,
            {},
        ),
        "features_mibb": (
            sweep.feature_faults(subject.apply, dense, bias),
            FEATURE_RATES,
            runs,
            {"plan": "map"},
        ),
    }
    clean = float((data.golden.argmax(-1) == data.labels).mean())
    found = [Measure("golden_accuracy", clean, "fraction")]
    ran = {}
    for kind, (trial, rates, trials, options) in sweeps.items():
        result = sweep.run(
            trial, key, rates=rates, trials=trials, data=data, unit=4, batch=50,
            **options,
        )  # fmt: skip
        sweep.check_overflow(result.stats)
        found += _measures(kind, rates, result.stats, clean)
        ran[kind] = f"{trials} trials of {len(data.labels)} pictures at each of "
        ran[kind] += f"{len(rates)} rates in {result.seconds:.0f} s"
    return found, ran


def _measures(kind: str, rates: Sequence[float], stats: Any, clean: float) -> list:
    found = []
    for i, rate in enumerate(rates):
        images = np.asarray(stats.images)[0, i]
        for name, count, baseline in (
            ("accuracy", stats.correct, clean),
            ("changed", stats.changed, None),
        ):
            value, low, high, trials = sweep.mean_of_devices(
                np.asarray(count)[0, i] / images
            )
            found.append(
                Measure(
                    f"{name}.{kind}.{rate:g}", value, "fraction", baseline=baseline,
                    low=low, high=high, trials=trials,
                )
            )  # fmt: skip
    return found
