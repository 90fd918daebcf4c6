"""Trains the embedded Bayesian network on handwritten digits, and its twin.

    python benchmarks/train_digits_bnn.py

cross-validates the weight of the divergence on the training digits, trains the
posterior with the chosen weight and a deterministic twin on all of them, rounds both to
float16, measures them on the 600 test digits and on inputs that are no digits, and
writes the weights, their checksum and the record. A few minutes on a CPU; all draws
come from the seed. Needs nothing beside jeff.
"""

import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
import tyro
from bnn_cases import networks, scores, training

from jeff import dm_bnn, evaluate, io, prng, tree
from jeff.models import digits_mlp

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAME = "digits_bnn"
NET = networks.Net(digits_mlp.init, digits_mlp.apply)
NOTES = [
    "kl_weight: the largest of the grid whose cross-validated negative log-likelihood "
    "is within one standard error of the smallest; cross-validation saw training "
    "digits only, the test digits chose nothing",
    "full_kl: the same training with a weight of 1, not shipped",
    "*.mean: one pass with the means; *.bayesian, *.full_kl: mean of the softmax of "
    "100 voters; *.deterministic: the twin. Of the weights as stored, in float16",
    "auroc.*: test digits against as many other inputs by an uncertainty; rotated: the "
    "same digits turned by a quarter, uniform: pixels uniform in [0, 1]; DeLong's "
    "intervals. mutual_information and entropy are of the voters, deterministic is the "
    "entropy of the twin",
    "one seed; intervals are of the examples, and say nothing of other trainings",
    "ece_if_calibrated: the ECE that 600 labels drawn from the predictions "
    "themselves would have: mean and central 95 % of 1,000 draws",
    "digits turned by a quarter have ink on pixels that are blank in nearly all "
    "digits; the twin keeps the weights it started with there, the posterior goes to "
    "the prior",
    "the people who wrote the test digits also wrote training digits",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How the networks are trained and measured."""

    seed: int = 0
    """Seed of params, order of the data, draws and other inputs."""
    epochs: int = 200
    """Passes over the data."""
    batch: int = 128
    """Digits a step."""
    rate: float = 3e-3
    """Learning rate of Adam."""
    start_std: float = 0.05
    """Standard deviation of every weight before training."""
    prior_std: float = 0.3
    """Standard deviation of the prior, whose mean is 0."""
    kl_weights: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
    """Weights of the divergence to choose from."""
    folds: int = 3
    """Of the cross-validation."""
    voters: int = 100
    """Draws behind a prediction."""
    out: pathlib.Path = ROOT / "jeff" / "data"
    """Folder of the weights and checksums."""
    record: pathlib.Path = ROOT / "benchmarks" / "records" / f"{NAME}.json"
    """File of the record."""


def main(settings: Settings) -> None:
    """Choice of the weight, training, rounding, measurement, files: in this order."""
    start = time.monotonic()
    io.check_writable(settings.out)
    train, test = digits_mlp.split()
    measures, kl_weight = choose_weight(settings, train)
    fitted = {
        "bayesian": fit(settings, train, kl_weight),
        "full_kl": fit(settings, train, 1.0),
        "deterministic": fit(settings, train, None),
    }
    stored = {name: jax.tree.map(rounded, net) for name, net in fitted.items()}
    predict = {
        "mean": lambda x: networks.mean_logits(NET, stored["bayesian"], x),
        "bayesian": lambda x: voters(settings, stored["bayesian"], x),
        "full_kl": lambda x: voters(settings, stored["full_kl"], x),
        "deterministic": lambda x: networks.mean_logits(
            NET, stored["deterministic"], x
        ),
    }
    for name, run in predict.items():
        probs = dm_bnn.predictive(run(test.images)).probs
        measures += scores.score_measures(name, probs, test.labels)
    measures += detection(settings, predict, test)
    divergence = dm_bnn.kl(stored["bayesian"], prior_std=settings.prior_std)
    measures.append(evaluate.Measure("kl.bayesian", float(divergence), "nats"))
    content = safetensors.numpy.save(arrays_of(stored))
    io.write_atomically(settings.out / f"{NAME}.safetensors", content)
    write_checksum(settings.out / f"{NAME}.safetensors")
    fields = dataclasses.asdict(settings).items()
    record = {
        "format": 1,
        "system": NAME,
        "preset": "default",
        "settings": {k: v for k, v in fields if not isinstance(v, pathlib.Path)},
        "seed": settings.seed,
        "versions": io.versions(),
        "device": io.device(),
        "seconds": round(time.monotonic() - start),
        "measures": [dataclasses.asdict(m) for m in measures],
        "notes": NOTES,
    }
    io.write_atomically(settings.record, io.result_text(record))


def choose_weight(
    settings: Settings, train: digits_mlp.Part
) -> tuple[list[evaluate.Measure], float]:
    """Scores of every weight by cross-validation, and the chosen weight."""
    folds = np.arange(len(train.labels)) % settings.folds
    unseen = folds == np.arange(settings.folds)[:, None]

    def predict(weight, seen, images):
        net = fit(settings, seen, weight)
        return dm_bnn.predictive(voters(settings, net, images)).probs

    return training.choose_weight(settings.kl_weights, train, unseen, predict)


def fit(settings: Settings, data: training.Data, kl_weight: float | None) -> Any:
    """The trained posterior; the deterministic twin for a weight of ``None``."""
    how = training.Training(
        epochs=settings.epochs,
        batch=settings.batch,
        rate=settings.rate,
        start_std=settings.start_std,
        prior_std=settings.prior_std,
    )
    return training.fit(NET, how, data, jax.random.key(settings.seed), kl_weight)


def voters(settings: Settings, posterior: Any, x: jax.Array) -> jax.Array:
    """Logits of all voters, ``[voters, examples, 10]``."""
    key = prng.named_key(jax.random.key(settings.seed), "predict")
    return networks.voters(NET, posterior, x, key, settings.voters)


def detection(
    settings: Settings, predict: dict[str, Callable], test: digits_mlp.Part
) -> list[evaluate.Measure]:
    """Areas under the curve for telling digits from what is none."""
    key = prng.named_key(jax.random.key(settings.seed), "uniform")
    turned = np.rot90(test.images.reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64)
    others = {
        "rotated": turned,
        "uniform": jax.random.uniform(key, test.images.shape),
    }
    positive = np.arange(2 * len(test.labels)) >= len(test.labels)
    measures = []
    for kind, other in others.items():
        x = jnp.concatenate([test.images, other])
        of_voters = dm_bnn.predictive(predict["bayesian"](x))
        of_twin = dm_bnn.predictive(predict["deterministic"](x))
        uncertainties = {
            "mutual_information": of_voters.mutual_information,
            "entropy": of_voters.entropy,
            "deterministic": of_twin.entropy,
        }
        measures += scores.detection_measures(kind, uncertainties, positive)
    return measures


def arrays_of(stored: dict) -> dict[str, np.ndarray]:
    """float16 arrays by the names of `digits_mlp.load`."""
    arrays = {}
    for name, leaf in tree.flatten(stored["bayesian"])[0].items():
        if isinstance(leaf, dm_bnn.MeanField):
            arrays[f"std.{name}"] = leaf.std
            leaf = leaf.mean
        arrays[f"mean.{name}"] = leaf
    for name, leaf in tree.flatten(stored["deterministic"])[0].items():
        arrays[f"deterministic.{name}"] = leaf
    return {name: np.asarray(leaf, np.float16) for name, leaf in arrays.items()}


def write_checksum(file: pathlib.Path) -> None:
    """Puts the SHA-256 of `file` among those of the other files."""
    path = file.parent / "checksums.json"
    sums = json.loads(path.read_text())
    sums[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    io.write_atomically(path, json.dumps(dict(sorted(sums.items())), indent=2) + "\n")
    print(f"{file.name}: {file.stat().st_size} bytes")


def rounded(x: jax.Array) -> jax.Array:
    """The values of float16, in float32."""
    return x.astype(jnp.float16).astype(jnp.float32)


if __name__ == "__main__":
    main(tyro.cli(Settings))
