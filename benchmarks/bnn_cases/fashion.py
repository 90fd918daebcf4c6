"""What is trained on Fashion-MNIST, and how."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from bnn_cases import networks, planned, scores, training
from bnn_cases.images import Part
from jeff import dm_bnn, evaluate, prng

__all__ = [
    "NET",
    "SIZES",
    "Chosen",
    "Data",
    "Settings",
    "Trained",
    "choose",
    "lrt",
    "train",
    "twin_logits",
]

SIZES = (784, 200, 200, 10)
"""Pixels, hidden units, kinds of clothes: the paper's network for MNIST."""

NET = networks.layered(SIZES)
"""The network; its kernels are random, its biases are not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is trained and measured.

    Attributes:
      training: Of the posterior, and of the twins.
      kl_weights: Weights of the divergence to choose from.
      parts: The last of so many equal parts of the training pictures makes the choice.
      voters: Independent voters behind a prediction.
      tree: Branches of the tree that is not planned.
      members: Twins of the ensemble.
      keys: Draws of the voters behind `number_of_voters`.
      counts: Numbers of voters, of which none is above `voters`.
      block: Pictures at a time.
      trees: What is planned.
      train_images: Training pictures; all if there are fewer, or if ``None``.
      test_images: Likewise of the test pictures, and of the digits.
    """

    training: training.Training
    kl_weights: tuple[float, ...]
    parts: int
    voters: int
    tree: tuple[int, int, int]
    members: int
    keys: int
    counts: tuple[int, ...]
    block: int
    trees: planned.Settings
    train_images: int | None = None
    test_images: int | None = None


class Data(NamedTuple):
    """Pictures.

    Attributes:
      train: Clothes to train on.
      test: Clothes that chose nothing.
      digits: What is no clothes.
    """

    train: Part
    test: Part
    digits: Part


class Chosen(NamedTuple):
    """What held-out pictures chose.

    Attributes:
      kl_weight: Weight of the divergence.
      twin_temperature: Of one twin.
      ensemble_temperature: Of every twin of the ensemble.
    """

    kl_weight: float
    twin_temperature: float
    ensemble_temperature: float


class Trained(NamedTuple):
    """Networks trained on all training pictures.

    Attributes:
      posterior: Params of `NET` with random kernels.
      twins: Deterministic params; the first is the twin of the posterior, the others
        started elsewhere and saw the data in another order.
      chosen: What held-out pictures chose.
    """

    posterior: Any
    twins: tuple[Any, ...]
    chosen: Chosen


def choose(
    settings: Settings, train: Part, key: jax.Array
) -> tuple[list[evaluate.Measure], Chosen]:
    """Weight of the divergence and temperatures of twins, from held-out pictures.

    Args:
      settings: What is tried.
      train: Pictures to train on, the last of which are held out.
      key: Of training and voters.

    Returns:
      Measures, and what was chosen.
    """
    total = len(train.labels)
    unseen = np.arange(total)[None] >= total - total // settings.parts

    def predict(weight, seen, images):
        posterior = training.fit(NET, settings.training, seen, key, weight)
        return dm_bnn.predictive(lrt(settings, posterior, images, key)).probs

    weights = settings.kl_weights
    measures, weight = training.choose_weight(weights, train, unseen, predict)
    rest, held_out = (
        Part(*(a[rows] for a in train)) for rows in (~unseen[0], unseen[0])
    )
    logits = twin_logits(_twins(settings, rest, key), held_out.images)
    chosen = Chosen(
        weight,
        scores.temperature(logits[:1], held_out.labels),
        scores.temperature(logits, held_out.labels),
    )
    print(chosen, flush=True)
    for who in ("twin", "ensemble"):
        scale = getattr(chosen, f"{who}_temperature")
        measures.append(evaluate.Measure(f"temperature.{who}", scale))
    return measures, chosen


def train(settings: Settings, part: Part, key: jax.Array, chosen: Chosen) -> Trained:
    """Trains on all pictures.

    Args:
      settings: How.
      part: The pictures.
      key: Of training; of other twins keys are made of it.
      chosen: From held-out pictures.

    Returns:
      The networks.
    """
    posterior = training.fit(NET, settings.training, part, key, chosen.kl_weight)
    return Trained(posterior, _twins(settings, part, key), chosen)


def _twins(settings: Settings, part: Part, key: jax.Array) -> tuple[Any, ...]:
    keys = [prng.named_key(key, "member", i) for i in range(1, settings.members)]
    return tuple(
        training.fit(NET, settings.training, part, each, None) for each in (key, *keys)
    )


def lrt(
    settings: Settings, posterior: Any, x: np.ndarray, key: jax.Array
) -> np.ndarray:
    """Logits of independent voters by local reparameterisation.

    Args:
      settings: How many.
      posterior: Params of `NET`.
      x: Pictures ``[examples, 784]``.
      key: Of the voters.

    Returns:
      ``[voters, examples, 10]``.
    """
    own = prng.named_key(key, "voters")
    return networks.in_blocks(
        NET, posterior, x, own, settings.voters, "lrt", settings.block
    )


def twin_logits(twins: tuple[Any, ...], x: np.ndarray) -> np.ndarray:
    """Logits of deterministic networks.

    Args:
      twins: Params of `NET`.
      x: Pictures ``[examples, 784]``.

    Returns:
      ``[twins, examples, 10]``.
    """
    return np.concatenate([networks.mean_logits(NET, twin, x) for twin in twins])
