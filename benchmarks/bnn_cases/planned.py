"""What an effective voter costs: planned trees beside independent voters.

For each list of prices a tree is planned for the budget of some independent hybrid
voters. Its cost per effective voter over theirs is what is reported: as planned, from
the variance components of a pilot, and as found, from the variance of the mean over
many repetitions of both.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from bnn_cases import contests, subject
from hwsim.bnn_datapath import Machine
from hwsim.rng import lane_cost
from jeff import dm_bnn
from jeff.models import digits_mlp
from pallas_kernels import timing

__all__ = [
    "PRICES",
    "Found",
    "Network",
    "Settings",
    "Tree",
    "digits",
    "measure",
    "random",
]


class Settings(NamedTuple):
    """What is planned and repeated.

    Attributes:
      voters: Independent hybrid voters that make up the budget.
      pilot: Tree of the pilot.
      examples: Inputs over which variances are averaged.
      repetitions: Of the voters, to find the variance of their mean; 0 for none.
      seed: Of the draws.
    """

    voters: int
    pilot: tuple[int, int, int]
    examples: int
    repetitions: int
    seed: int


class Network(NamedTuple):
    """A network whose voters are planned.

    Attributes:
      apply: ``apply(params, x)``.
      posterior: Its params.
      x: Inputs, ``[examples, ...]``.
      pilot: Inputs of the pilot, which the plan comes from; ``None``: `x`.
      mode: How voters are drawn where variances are found. ``"naive"`` draws weights,
        the same for all inputs; ``"lrt"`` outputs, by themselves for every input: the
        same variances, and their averages over inputs are surer.
    """

    apply: Callable[..., Any]
    posterior: Any
    x: np.ndarray
    pilot: np.ndarray | None = None
    mode: str = "naive"


class Tree(NamedTuple):
    """A planned tree.

    Attributes:
      voters: Branches at each level.
      mode: In which its products were counted for the plan.
      ratio: Cost per effective voter over that of independent voters, as planned.
      found: The same from repetitions, ``(value, low, high)``; ``None`` if nothing was
        repeated or the tree is that of independent voters.
      seconds: The same in time on this core, one input, ``[repeats]``, or ``None``.
    """

    voters: tuple[int, ...]
    mode: str
    ratio: float
    found: tuple[float, float, float] | None
    seconds: np.ndarray | None


class Found(NamedTuple):
    """What was found of a network.

    Attributes:
      components: Variance that each level adds to the softmax of a voter.
      trees: By list of prices.
    """

    components: tuple[float, ...]
    trees: dict[str, Tree]


def _energies() -> dm_bnn.Prices:
    machine = Machine()
    technology, bits = machine.technology, machine.word_bits
    return dm_bnn.Prices(
        multiplication=technology.multiplier(bits, bits).energy_j,
        addition=technology.adder(machine.accumulator_bits).energy_j,
        draw=lane_cost(machine.generator.structure(), technology).energy_j,
    )


PRICES: Mapping[str, dm_bnn.Prices] = {
    "products": dm_bnn.Prices(),
    "draws": dm_bnn.Prices(multiplication=0.0, draw=1.0),
    "datapath": _energies(),
}
"""Products alone; draws alone, as on a processor; joules of `hwsim`'s default machine,
memories left out."""


def digits(settings: Settings) -> Network:
    """The embedded network for digits, on test digits.

    Args:
      settings: What is planned.

    Returns:
      The network.
    """
    posterior = subject.digits_posterior()
    _, test = digits_mlp.split()
    return Network(digits_mlp.apply, posterior, test.images[: settings.examples])


def random(settings: Settings) -> Network:
    """The benchmark's untrained network.

    Args:
      settings: What is planned.

    Returns:
      The network.
    """
    posterior = subject.random_posterior(settings.seed)
    return Network(
        subject.apply, posterior, subject.inputs(settings.seed, settings.examples)
    )


def measure(
    network: Network, settings: Settings, timed: contests.Settings | None = None
) -> Found:
    """Plans a tree for every list of prices and holds it against independent voters.

    Args:
      network: Whose voters.
      settings: What is planned.
      timed: How calls are timed; ``None``: they are not.

    Returns:
      What was found.
    """
    key, levels = jax.random.key(settings.seed), len(settings.pilot)
    x = network.x if network.pilot is None else network.pilot
    pilot = _voters(network._replace(x=x), settings.pilot)(key)
    components = dm_bnn.components(np.asarray(pilot), settings.pilot)
    alone = (settings.voters,) + (1,) * (levels - 1)
    planned = {}
    for name, prices in PRICES.items():
        of_alone = _price(network, alone, prices, "hybrid")
        found = []
        for mode in ("dm", "hybrid"):
            cost = dm_bnn.tree_cost(
                network.apply, network.posterior, network.x[:1],
                levels=levels, prices=prices, mode=mode,
            )  # fmt: skip
            tree = dm_bnn.plan_voters(cost, components, of_alone).voters
            # Each layer's way is chosen for the tree: at most what the plan paid.
            paid = min(_price(network, tree, prices, m) for m in ("best", mode))
            effective = dm_bnn.effective_voters(components, tree)
            ratio = (paid / effective) / (of_alone / settings.voters)
            found.append((ratio, paid / of_alone, tree, mode))
        planned[name] = min(found)
    other = dict.fromkeys(p[2] for p in planned.values() if p[2] != alone)
    spreads, seconds = {}, {}
    if settings.repetitions and other:
        both = [alone, *other]
        spreads = {tree: _means(network, tree, settings) for tree in both}
        seconds = {} if timed is None else _seconds(network, both, timed)
    trees = {}
    for name, (ratio, cost, tree, mode) in planned.items():
        found = own = None
        if settings.repetitions and tree != alone:
            found = _ratio(spreads[tree], spreads[alone], cost, settings.seed)
            if seconds:
                own = seconds[tree] / seconds[alone] * found[0] / cost
        trees[name] = Tree(tree, mode, ratio, found, own)
    return Found(components, trees)


def _price(network: Network, voters, prices: dm_bnn.Prices, mode: str) -> float:
    counted = dm_bnn.voter_count(
        network.apply, network.posterior, network.x[:1], voters=voters, mode=mode
    )
    return prices.of(counted)


def _voters(network: Network, voters) -> Callable[[jax.Array], jax.Array]:
    """Softmax of a tree's voters for all inputs: each input's own are as for it alone.

    The standard way draws the same voters as the other exact ones and is the fastest of
    them for a batch.
    """

    @jax.jit
    def run(key):
        outputs = dm_bnn.predict(
            network.apply, network.posterior, network.x, key, voters=voters,
            mode=network.mode,
        )  # fmt: skip
        return jax.nn.softmax(outputs)

    return run


def _means(network: Network, voters, settings: Settings) -> np.ndarray:
    """The voters' mean for many keys, ``[repetitions, quantities]``."""
    run = _voters(network, voters)
    keys = jax.random.split(jax.random.key(settings.seed + 1), settings.repetitions)
    return np.stack([np.asarray(run(key).mean(0)).ravel() for key in keys])


def _ratio(tree, alone, cost: float, seed: int) -> tuple[float, float, float]:
    """Variance of the mean times cost, over the same of others; bootstrap interval."""
    rng, many = np.random.default_rng(seed), 1000

    def spread(means):
        return means.var(0, ddof=1).sum()

    def again(means):
        return means[rng.integers(len(means), size=len(means))]

    drawn = [spread(again(tree)) / spread(again(alone)) for _ in range(many)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    value = spread(tree) / spread(alone)
    low, high = min(low, value), max(high, value)
    return float(value * cost), float(low * cost), float(high * cost)


def _seconds(network: Network, trees, timed) -> dict[tuple, np.ndarray]:
    """Seconds of a call for one input, by tree; the first is of independent voters."""
    key, one = jax.random.key(0), network.x[:1]
    programs = {}
    for tree in trees:
        mode = "hybrid" if tree == trees[0] else "best"

        @jax.jit
        def call(key, posterior, x, tree=tree, mode=mode):
            return dm_bnn.predict(
                network.apply, posterior, x, key, voters=tree, mode=mode
            )

        def run(call=call):
            return jax.block_until_ready(call(key, network.posterior, one))

        programs[tree] = contests.program(run, timed.seconds)
    return timing.times(programs, timed.repeats, warm_up=False)
