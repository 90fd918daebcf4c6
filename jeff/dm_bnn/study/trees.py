"""What voters cost, read from the program, and what they are worth, from pilots."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from jeff import prng
from jeff.dm_bnn.cost import tree_cost, voter_count
from jeff.dm_bnn.plan_voters import VoterPlan, plan_voters
from jeff.dm_bnn.predict import predict
from jeff.dm_bnn.study.settings import DMBNNSettings
from jeff.dm_bnn.study.subject import QUICK, Subject
from jeff.dm_bnn.variance import components, effective_voters
from jeff.evaluate import Progress
from jeff.models import digits_mlp
from jeff.program import Count

__all__ = ["Grown", "Tree", "compare"]


class Tree(NamedTuple):
    """A way to draw voters for one input.

    Attributes:
      name: ``"standard"``, ``"hybrid"``, ``"dm"``, ``"planned"`` or the branches.
      voters: Branches at each level.
      mode: Of `jeff.dm_bnn.predict`.
      count: What it does.
      effective: Effective voters by pilot, ``[pilots]``.
    """

    name: str
    voters: tuple[int, ...]
    mode: str
    count: Count
    effective: np.ndarray

    @property
    def products_each(self) -> np.ndarray:
        """Products per effective voter, ``[pilots]``."""
        return self.count.multiplications / self.effective


class Grown(NamedTuple):
    """What was found out about trees.

    Attributes:
      trees: The three schemes, the planned tree, and others.
      shares: Share of each level in the variance of a voter, ``[pilots, levels]``.
      plan: Where the planned tree comes from.
    """

    trees: tuple[Tree, ...]
    shares: np.ndarray
    plan: VoterPlan


def compare(
    subject: Subject, settings: DMBNNSettings, key: jax.Array, progress: Progress
) -> Grown:
    """Costs and worths of trees with about as many voters.

    Variance is that of the predicted probabilities, averaged over images and classes.
    One pilot on training digits plans a tree; other pilots, on test digits, judge it
    and all others.

    Args:
      subject: The network.
      settings: Trees and pilots.
      key: Of the pilots.
      progress: Told about the pilots.

    Returns:
      The comparison.

    Raises:
      ValueError: If no weight varies.
    """
    progress.stage("grow pilot trees", 1 + settings.pilots)
    pilot = _pilot(subject, settings, prng.named_key(key, "plan"), subject.train.images)
    progress.advance()
    plan, mode = _planned(subject, settings, pilot)
    pilots = []
    for number in range(settings.pilots):
        drawn = prng.named_key(key, "judge", number)
        pilots.append(_pilot(subject, settings, drawn, subject.inputs[0]))
        progress.advance()
    independent = (settings.voters, *[1] * (len(settings.tree) - 1))
    rows = [
        ("standard", independent, "naive"),
        ("hybrid", independent, "hybrid"),
        ("dm", settings.tree, "dm"),
        ("planned", plan.voters, mode),
        *((_branches(t), t, "dm") for t in _others(settings, independent)),
    ]
    trees = tuple(
        Tree(
            name,
            voters,
            mode,
            _count(subject, voters, mode),
            np.array([effective_voters(v, voters) for v in pilots]),
        )
        for name, voters, mode in rows
    )
    each = np.asarray(pilots)
    return Grown(trees, each / each.sum(axis=1, keepdims=True), plan)


@functools.partial(jax.jit, static_argnames="voters", compiler_options=QUICK)
def _probs(posterior, x, key, voters):
    """Probabilities of all voters, ``[T, images, classes]``.

    By local reparameterisation: for one input its trees are those of drawn weights in
    distribution, and images then have draws of their own.
    """
    logits = predict(digits_mlp.apply, posterior, x, key, voters=voters, mode="lrt")
    return jax.nn.softmax(logits)


def _pilot(
    subject: Subject, settings: DMBNNSettings, key: jax.Array, images: np.ndarray
) -> tuple[float, ...]:
    """Variance components of one tree."""
    x = images[: settings.pilot_images]
    probs = _probs(subject.posterior, x, key, voters=settings.pilot)
    return components(np.asarray(probs), settings.pilot)


def _planned(
    subject: Subject, settings: DMBNNSettings, variances: Sequence[float]
) -> tuple[VoterPlan, str]:
    """The cheaper plan of two modes, for what independent hybrid voters cost."""
    costs = {
        mode: tree_cost(
            digits_mlp.apply,
            subject.posterior,
            subject.inputs[0, :1],
            levels=len(settings.tree),
            mode=mode,
        )
        for mode in ("hybrid", "dm")
    }
    budget = costs["hybrid"].of((settings.voters, *[1] * (len(settings.tree) - 1)))
    plans = {m: plan_voters(cost, variances, budget) for m, cost in costs.items()}
    best = min(plans, key=lambda m: plans[m].cost_per_effective_voter)
    return plans[best], best


def _count(subject: Subject, voters: tuple[int, ...], mode: str) -> Count:
    x = subject.inputs[0, :1]
    return voter_count(digits_mlp.apply, subject.posterior, x, voters=voters, mode=mode)


def _others(
    settings: DMBNNSettings, independent: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Trees of as many voters that branch once, twice and thrice, where they divide."""
    total = settings.voters
    trees = [independent]
    for below in ((5, 1), (2, 2), (5, 4)):
        if total % (below[0] * below[1]) == 0:
            trees.append((total // (below[0] * below[1]), *below))
    return [t for t in trees if t != settings.tree]


def _branches(voters: Sequence[int]) -> str:
    return "x".join(map(str, voters))
