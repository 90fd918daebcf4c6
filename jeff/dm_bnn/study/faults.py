"""Bit flips in the memory of a Bayesian network, and in that of its twin.

Every stored bit is flipped with one probability, independently. The Bayesian network
stores two words per random weight, its twin one, so that at the same rate it has about
twice as many flips. The words of the means are hit by the very flips that hit the twin:
the difference between the two is paired, device by device. For one device, the flips at
a lower rate are some of those at a higher one.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import prng
from jeff.dm_bnn.mean_field import MeanField
from jeff.dm_bnn.predict import predict
from jeff.dm_bnn.study.settings import BATCH, DMBNNSettings
from jeff.dm_bnn.study.subject import QUICK, Subject
from jeff.evaluate import Progress, correct
from jeff.faults import bit_flip, on_weights
from jeff.models import digits_mlp

__all__ = [
    "NETWORKS",
    "Damage",
    "Damaged",
    "damage",
    "flip_bits",
    "rate_word",
    "stored_words",
]

NETWORKS = ("bayesian", "only_means", "only_stds", "one_pass", "deterministic")
"""All words hit; only means; only standard deviations; one pass with the hit means
instead of voters; the twin."""


class Damaged(NamedTuple):
    """Params after the flips, float32.

    Attributes:
      mean: Means of the posterior, with its biases.
      std: By layer, standard deviations of its kernels; flips may make them negative.
      deterministic: The twin.
      overflow: bool, whether flips are missing.
    """

    mean: dict[str, Any]
    std: dict[str, Any]
    deterministic: dict[str, Any]
    overflow: jax.Array


class Damage(NamedTuple):
    """How often faulty devices were right.

    Attributes:
      rates: ``(0, ...)``, all rates.
      correct: By network, ``[devices, rates]``: images answered right.
      images: How many each was asked.
    """

    rates: tuple[float, ...]
    correct: dict[str, np.ndarray]
    images: int


def stored_words(trained: digits_mlp.Trained) -> dict[str, int]:
    """How many words each of the two networks keeps.

    Args:
      trained: The networks.

    Returns:
      Words of ``"bayesian"`` (biases have no standard deviation) and of
      ``"deterministic"``.

    Examples:
      >>> stored_words(digits_mlp.load())
      {'bayesian': 35010, 'deterministic': 17610}
    """

    def size(params):
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    both = size(trained.mean) + size(_kernels(trained.std))
    return {"bayesian": both, "deterministic": size(trained.deterministic)}


def rate_word(rate: float) -> str:
    """A rate as it is written in names and tables.

    Args:
      rate: Any number.

    Returns:
      The shortest scientific notation.

    Examples:
      >>> rate_word(3e-05), rate_word(0.0)
      ('3e-5', '0')
    """
    word = np.format_float_scientific(rate, trim="-", exp_digits=1)
    return word.removesuffix("e+0")


def damage(
    key: jax.Array,
    rate: Any,
    trained: digits_mlp.Trained,
    *,
    words: str,
    max_rate: float,
) -> Damaged:
    """The networks as a faulty memory gives them back.

    Args:
      key: Of the device.
      rate: Probability of a flip, at most `max_rate`; may be traced.
      trained: The networks.
      words: Dtype that is stored.
      max_rate: Largest rate of the study.

    Returns:
      The params.
    """
    model = on_weights(bit_flip(rate, max_rate=max_rate))
    mean, std, twin = (
        jax.tree.map(lambda a: a.astype(words), params)
        for params in (trained.mean, _kernels(trained.std), trained.deterministic)
    )
    # The means are like the twin: what is drawn for one hits the other too.
    bayesian: Any = {"weights": mean, "stds": std}
    alone: Any = {"weights": twin, "stds": std}
    flips = model.sample(key, alone)
    bayesian, alone = model.inject(flips, bayesian), model.inject(flips, alone)
    hit = bayesian["weights"], bayesian["stds"], alone["weights"]
    mean, std, twin = jax.tree.map(lambda a: a.astype(jnp.float32), hit)
    return Damaged(mean, std, twin, flips.overflow)


def flip_bits(
    subject: Subject, settings: DMBNNSettings, key: jax.Array, progress: Progress
) -> Damage:
    """Asks faulty devices about the first test digits.

    The voters of a device are the same at every rate, and are drawn by local
    reparameterisation.

    Args:
      subject: The networks and digits.
      settings: Rates, devices, images, voters and words.
      key: Of flips and voters, by device.
      progress: Told about the devices.

    Returns:
      Counts of right answers.

    Raises:
      RuntimeError: If a draw of flips was cut off.
    """
    rates = (0.0, *settings.rates)
    each_rate = jnp.asarray(rates, jnp.float32)
    progress.stage("flip bits", settings.devices)
    counts = []
    for device in range(settings.devices):
        own = prng.named_key(key, "device", device)
        damaged = _damaged(own, each_rate, subject.trained, settings.words, rates[-1])
        if bool(damaged.overflow.any()):
            raise RuntimeError(f"flips of device {device} are missing: draw again")
        total = 0
        for start in range(0, settings.device_images, BATCH):
            part = slice(start, start + BATCH)
            voters = prng.named_key(own, "voters", start)
            asked = subject.inputs[0, part], subject.labels[part]
            found = _right(damaged, *asked, voters, settings.device_voters)
            total = total + np.asarray(found)
        counts.append(total)
        progress.advance()
    by_network = np.moveaxis(np.asarray(counts), 1, 0)
    return Damage(
        rates, dict(zip(NETWORKS, by_network, strict=True)), settings.device_images
    )


@functools.partial(jax.jit, static_argnums=(3, 4), compiler_options=QUICK)
def _damaged(key, rates, trained, words: str, max_rate: float) -> Damaged:
    """The networks at every rate, ``[rates, ...]``."""

    def at(rate):
        return damage(key, rate, trained, words=words, max_rate=max_rate)

    return jax.vmap(at)(rates)


@functools.partial(jax.jit, static_argnums=4, compiler_options=QUICK)
def _right(damaged: Damaged, x, labels, key, voters: int) -> jax.Array:
    """Right answers of all networks at all rates, ``[networks, rates]``."""
    clean = jax.tree.map(lambda a: jnp.broadcast_to(a[:1], a.shape), damaged)
    pairs = (
        (damaged.mean, damaged.std),
        (damaged.mean, clean.std),
        (clean.mean, damaged.std),
    )
    stacked = _stack([_posterior(mean, std) for mean, std in pairs])
    single = _stack([damaged.mean, damaged.deterministic])

    def voted(posterior):
        logits = predict(digits_mlp.apply, posterior, x, key, voters=voters, mode="lrt")
        return jax.nn.softmax(logits).mean(axis=0)

    def alone(params):
        return jax.nn.softmax(digits_mlp.apply(params, x))

    probs = jnp.concatenate(
        [jax.vmap(jax.vmap(voted))(stacked), jax.vmap(jax.vmap(alone))(single)]
    )
    everyone = jnp.broadcast_to(labels, probs.shape[:-1])
    return correct(probs, everyone).sum(-1)  # where probabilities are NaN, wrong


def _posterior(mean: dict[str, Any], std: dict[str, Any]) -> dict[str, Any]:
    """Params with random kernels."""
    return {
        layer: {**leaves, "kernel": MeanField(leaves["kernel"], std[layer])}
        for layer, leaves in mean.items()
    }


def _kernels(params: dict[str, Any]) -> dict[str, Any]:
    """The kernels by layer."""
    return {layer: leaves["kernel"] for layer, leaves in params.items()}


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
