"""What networks for Fashion-MNIST say of clothes and of digits."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from scipy import special

from bnn_cases import networks, planned, scores
from bnn_cases.fashion import NET, Data, Settings, Trained, lrt, twin_logits
from bnn_cases.images import Part
from jeff import dm_bnn, evaluate, prng

__all__ = ["answers", "detection", "differences", "number_of_voters", "plan"]


def plan(settings: Settings, nets: Trained, data: Data) -> planned.Found:
    """Trees for every list of prices: from training pictures, judged by test pictures.

    Args:
      settings: What is planned.
      nets: Whose voters.
      data: Pictures.

    Returns:
      Trees and what their effective voters cost.
    """
    few = slice(settings.trees.examples)
    network = planned.Network(
        NET.apply,
        nets.posterior,
        data.test.images[few],
        pilot=data.train.images[few],
        mode="lrt",
    )
    found = planned.measure(network, settings.trees)
    for price, tree in found.trees.items():
        print(f"{price}: {tree.voters}, {tree.ratio:.3f}, {tree.found}", flush=True)
    return found


def answers(
    settings: Settings,
    nets: Trained,
    trees: Mapping[str, planned.Tree],
    x: np.ndarray,
    key: jax.Array,
) -> dict[str, dm_bnn.Predictive]:
    """What every kind of prediction says.

    Args:
      settings: How many voters.
      nets: The networks.
      trees: Planned, by list of prices; of equal ones the first is asked.
      x: Pictures ``[examples, 784]``.
      key: Of the voters.

    Returns:
      By name, `dm_bnn.Predictive` of ``[examples]``, on the host.
    """

    def grown(tree, mode, name):
        own = prng.named_key(key, name)
        return networks.in_blocks(
            NET, nets.posterior, x, own, tree, mode, settings.block
        )

    def twins(count, scale=1.0):
        return twin_logits(nets.twins[:count], x) / np.float32(scale)

    members, chosen = len(nets.twins), nets.chosen
    said = {
        "mean": lambda: networks.mean_logits(NET, nets.posterior, x),
        "lrt": lambda: lrt(settings, nets.posterior, x, key),
        "naive": lambda: grown(settings.voters, "naive", "naive"),
        "tree": lambda: grown(settings.tree, "best", "tree"),
        "twin": lambda: twins(1),
        "twin_scaled": lambda: twins(1, chosen.twin_temperature),
        "ensemble": lambda: twins(members),
        "ensemble_scaled": lambda: twins(members, chosen.ensemble_temperature),
    }
    first: dict[tuple[int, ...], str] = {}
    for price, tree in trees.items():
        first.setdefault(tree.voters, f"planned_{price}")
    for voters, name in first.items():
        said[name] = lambda v=voters, n=name: grown(v, "best", n)
    return {
        name: jax.tree.map(np.asarray, dm_bnn.predictive(run()))
        for name, run in said.items()
    }


def differences(
    said: Mapping[str, dm_bnn.Predictive], labels: np.ndarray
) -> list[evaluate.Measure]:
    """Voters against what one would take instead.

    Args:
      said: By name.
      labels: ``[examples]``.

    Returns:
      Measures.
    """
    others = "mean", "twin", "twin_scaled", "ensemble", "ensemble_scaled"
    measures = []
    for other in others:
        both = said["lrt"].probs, said[other].probs
        measures += scores.difference_measures(f"lrt.{other}", *both, labels)
    return measures


def detection(
    settings: Settings,
    nets: Trained,
    said: Mapping[str, dm_bnn.Predictive],
    digits: Part,
    key: jax.Array,
) -> list[evaluate.Measure]:
    """How well uncertainties tell digits from clothes.

    Args:
      settings: How many voters.
      nets: The networks.
      said: Of the clothes, by name.
      digits: What is no clothes.
      key: Of the voters of the digits.

    Returns:
      Measures ``auroc.mnist.NAME``.
    """
    logits = {
        "lrt": lrt(settings, nets.posterior, digits.images, key),
        "twin": twin_logits(nets.twins[:1], digits.images),
        "ensemble": twin_logits(nets.twins, digits.images),
    }
    heat = np.float32(nets.chosen.twin_temperature)
    heats = np.float32(nets.chosen.ensemble_temperature)
    logits |= {
        "twin_scaled": logits["twin"] / heat,
        "ensemble_scaled": logits["ensemble"] / heats,
    }
    other = {name: dm_bnn.predictive(of_name) for name, of_name in logits.items()}

    def both(name, field):
        each = (getattr(group[name], field) for group in (said, other))
        return np.concatenate([np.asarray(part) for part in each])

    uncertainties = {
        "mutual_information": both("lrt", "mutual_information"),
        "entropy": both("lrt", "entropy"),
        "twin_entropy": both("twin", "entropy"),
        "twin_scaled_entropy": both("twin_scaled", "entropy"),
        "ensemble_mutual_information": both("ensemble", "mutual_information"),
        "ensemble_entropy": both("ensemble", "entropy"),
        "ensemble_scaled_mutual_information": both(
            "ensemble_scaled", "mutual_information"
        ),
        "ensemble_scaled_entropy": both("ensemble_scaled", "entropy"),
    }
    counts = len(said["lrt"].entropy), len(digits.labels)
    positive = np.repeat([False, True], counts)
    return scores.detection_measures("mnist", uncertainties, positive)


def number_of_voters(
    settings: Settings, posterior: Any, test: Part, key: jax.Array
) -> list[evaluate.Measure]:
    """Negative log-likelihood of the mean of few and of many voters.

    Args:
      settings: Numbers of voters, and of keys.
      posterior: Params of `NET`.
      test: Pictures.
      key: Of the voters. Of every draw as many groups of a number of voters as fit into
        all are looked at, and their mean counts.

    Returns:
      Measures ``nll_of_voters.NUMBER``, with Student's intervals over the draws.
    """
    rows, labels = np.arange(len(test.labels)), test.labels
    found: dict[int, list[float]] = {count: [] for count in settings.counts}
    for number in range(settings.keys):
        drawn = prng.named_key(key, "again", number)
        logits = lrt(settings, posterior, test.images, drawn)
        own = special.log_softmax(logits, axis=-1)[:, rows, labels]
        for count, values in found.items():
            groups = len(own) // count
            grouped = own[: groups * count].reshape(groups, count, -1)
            nll = np.log(count) - special.logsumexp(grouped, axis=1)
            values.append(float(nll.mean(dtype=np.float64)))
    return [
        scores.measure(f"nll_of_voters.{count}", evaluate.student_t(values), "nats")
        for count, values in found.items()
    ]
