"""A campaign on ResNet-8, whose arrays are large enough for XLA to share them out.

On CPUs XLA cuts products, convolutions and maps of large arrays into parts for its
threads. `sweep_case` is too small for that, and compiled in haste.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jeff import sweep
from jeff.faults import adsaf, gaussian, on_weights
from jeff.models import resnet
from jeff.models.resnet import RESNET_8

__all__ = ["UNITS", "run_network"]

UNITS = 6
IMAGES = 64


@functools.cache
def _subject():
    """Random weights and pictures."""
    rng = np.random.default_rng(5)
    shapes = resnet.layer_shapes(RESNET_8)
    params = resnet.assemble(
        {
            name: {
                "kernel": np.float32(rng.standard_normal(s) * np.prod(s[:-1]) ** -0.5),
                "bias": np.zeros(s[-1], np.float32),
            }
            for name, s in shapes.items()
        }
    )
    images = rng.standard_normal((IMAGES, 32, 32, 3), np.float32)
    return params, sweep.examples(resnet.apply, params, images, batch=IMAGES)


def run_network(**changes):
    """Stuck weights, and noise on one layer's features: a trial is a unit.

    The statistics are two moments of every logit.
    """
    params, data = _subject()
    trial = sweep.weight_and_feature_faults(
        resnet.apply,
        params,
        lambda rate: on_weights(adsaf(rate, method="sparse", max_rate=0.01)),
        lambda rate: gaussian(10 * rate),
        where=["blocks.2.first.kernel"],
        measure=_logits,
    )
    arguments = {
        "rates": [0.01], "trials": UNITS, "data": data,
        "unit": 1, "batch": IMAGES, "plan": "map",
    }  # fmt: skip
    return sweep.run(trial, jax.random.key(11), **(arguments | changes))


def _logits(logits, golden, labels, valid, overflow):
    kept = jnp.where(valid[:, None], logits, 0.0)
    return {
        "sum": kept.sum(0),
        "square": (kept**2).sum(0),
        "short": overflow.any().astype(int),
    }
