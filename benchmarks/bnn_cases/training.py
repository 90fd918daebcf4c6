"""Training of posteriors and their twins, and the choice of the divergence's weight."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bnn_cases.networks import Net, is_kernel
from bnn_cases.scores import losses, measure
from jeff import dm_bnn, evaluate, prng

__all__ = ["Data", "Training", "choose_weight", "fit"]

Data = tuple[Any, Any]
"""Inputs float32 ``[examples, inputs]`` and labels int32 ``[examples]``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is trained.

    Attributes:
      epochs: Passes over the data.
      batch: Examples a step.
      rate: Learning rate of Adam.
      start_std: Standard deviation of every random weight before training.
      prior_std: Standard deviation of the prior, whose mean is 0.
      falls: Whether the rate falls to 0 along half a cosine, or stays.
    """

    epochs: int
    batch: int
    rate: float
    start_std: float
    prior_std: float
    falls: bool = False

    def optimizer(self, examples: int) -> optax.GradientTransformation:
        """Adam at this rate.

        Args:
          examples: In the data.

        Returns:
          The optimizer.
        """
        if not self.falls:
            return optax.adam(self.rate)
        steps = self.epochs * (examples // self.batch)
        return optax.adam(optax.cosine_decay_schedule(self.rate, steps))


def fit(
    net: Net, training: Training, data: Data, key: jax.Array, kl_weight: float | None
) -> Any:
    """A trained posterior, or its deterministic twin.

    Both start from the same means and see the same batches in the same order.

    Args:
      net: The network.
      training: How it is trained.
      data: On what.
      key: Of initial params, order of the data, and draws.
      kl_weight: Weight of the divergence from the prior; ``None`` for the twin.

    Returns:
      Params with random kernels; without any for the twin.
    """
    is_twin = kl_weight is None
    # The weight is traced, so that all weights (and keys) are one program.
    trained, history = _fit(net, training, is_twin, tuple(data), key, kl_weight or 0.0)
    last = float(history.log_likelihood[-1])
    what = "twin" if is_twin else f"weight {kl_weight:g}"
    print(f"{what}: log-likelihood in the last pass {last:.4f}", flush=True)
    return trained


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _fit(net: Net, training: Training, is_twin: bool, data: Data, key, kl_weight):
    start = net.init(prng.named_key(key, "init"))
    if not is_twin:
        start = dm_bnn.posterior(start, training.start_std, where=is_kernel)
    return dm_bnn.fit(
        net.apply,
        start,
        data,
        prng.named_key(key, "fit"),
        dm_bnn.FitSettings(
            epochs=training.epochs,
            batch=training.batch,
            kl_weight=lambda step: kl_weight,
        ),
        optimizer=training.optimizer(len(data[1])),
        prior_std=training.prior_std,
    )


def choose_weight(
    weights: Sequence[float],
    data: Data,
    unseen: np.ndarray,
    predict: Callable[[float, Data, np.ndarray], Any],
) -> tuple[list[evaluate.Measure], float]:
    """Scores of every weight of the divergence on held-out examples, and the choice.

    Args:
      weights: To choose from.
      data: For training; no other data have a say.
      unseen: bool ``[trainings, examples]``, what each training of a weight holds out.
      predict: ``predict(weight, seen, images)``: probabilities ``[images, classes]`` by
        a network that was trained on `seen`.

    Returns:
      Measures ``validation_nll.WEIGHT`` and ``validation_ece.WEIGHT``, and
      ``kl_weight``; and the largest weight whose mean negative log-likelihood is within
      one standard error of the smallest.
    """
    images, labels = data
    held_out = unseen.any(axis=0)
    truth = labels[held_out]
    measures, found = [], {}
    for weight in weights:
        said = [
            predict(weight, (images[~rows], labels[~rows]), images[rows])
            for rows in unseen
        ]
        probs = np.zeros((len(labels), said[0].shape[-1]), np.float32)
        for rows, part in zip(unseen, said, strict=True):
            probs[rows] = part
        each = losses(probs[held_out], truth)
        found[weight] = each.mean(), each.std(ddof=1) / len(each) ** 0.5
        ece = float(evaluate.ece(jnp.asarray(probs[held_out]), jnp.asarray(truth)))
        measures += [
            measure(f"validation_nll.{weight:g}", evaluate.student_t(each), "nats"),
            evaluate.Measure(f"validation_ece.{weight:g}", ece, "fraction"),
        ]
        print(
            f"weight {weight:g}: NLL {found[weight][0]:.4f}, ECE {ece:.4f}",
            flush=True,
        )
    best, error = min(found.values())
    chosen = max(weight for weight, (nll, _) in found.items() if nll <= best + error)
    return [*measures, evaluate.Measure("kl_weight", chosen)], chosen
