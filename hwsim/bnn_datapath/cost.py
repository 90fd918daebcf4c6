"""Energy, cycles and area of Bayesian inference on a machine.

Per layer, the cycles are those of the busiest resource: multipliers, adders, draw
lanes, or a memory's ports, each with its operations over its width, rounded up. Layers
follow one another. The energy is the sum over operations, the area that over parts. No
leakage, control, clock tree or wires.

Three memories. *Parameters*: all means and deviations. *Beta*: for the decomposed layer
that needs most, ``ceil(alpha M) N`` words, with shared draws as many per branch.
*Activations*: with independent draws the tree is walked depth first, so a decomposed
layer keeps its t outputs of one branch and a sampled layer one; with shared draws all
branches go through a layer together, and all its inputs and outputs are kept.
"""

import math
from collections.abc import Sequence

from hwsim.bnn_datapath.machine import Machine
from hwsim.bnn_datapath.operations import Operations, count, total
from hwsim.report import Quantity, Report

__all__ = ["estimate"]


def estimate(
    layers: Sequence[tuple[int, int]],
    voters: Sequence[int],
    machine: Machine,
    *,
    scheme: str,
    draws: str = "independent",
) -> Report:
    """What one input costs, with all its voters.

    Args:
      layers: Pairs (M, N) of outputs and inputs, in order.
      voters: The tree ``t_1 ... t_L``, see `count`.
      machine: The datapath.
      scheme: One of `SCHEMES`.
      draws: One of `DRAWS`.

    Returns:
      ``energy_j`` by kind of operation, ``cycles`` by layer and busiest resource,
      ``latency_s``, ``area_m2`` by kind of part, and the counts of `Operations`.

    Raises:
      ValueError: As `count` does.

    Examples:
      >>> net, tree = [(200, 784), (200, 200), (10, 200)], (100, 1, 1)
      >>> standard = estimate(net, tree, Machine(draw_lanes=32), scheme="standard")
      >>> hybrid = estimate(net, tree, Machine(), scheme="hybrid")
      >>> round(standard["cycles"] / hybrid["cycles"], 3)
      1.63
      >>> standard.quantity("cycles").parts[0]
      ('layer 1: multipliers', 490000)
      >>> round(standard.share("energy_j", "draws"), 2)
      0.5
    """
    counts = count(layers, voters, scheme, draws)
    sums = total(counts)
    memories = _memories(layers, voters, counts, machine, draws)
    energy = (
        ("multiplications", sums.multiplications * machine.multiplier.energy_j),
        ("additions", sums.additions * machine.adder.energy_j),
        ("draws", sums.draws * machine.draw.energy_j),
        *(
            (name, moved * machine.memory(words).energy_j)
            for name, words, moved in memories
        ),
    )
    area = (
        ("multipliers", machine.multipliers * machine.multiplier.area_m2),
        ("adders", machine.adders * machine.adder.area_m2),
        ("draw lanes", machine.draw_lanes * machine.draw.area_m2),
        *((name, machine.memory(words).area_m2) for name, words, _ in memories),
    )
    busiest = [max(_cycles(o, machine), key=lambda pair: pair[1]) for o in counts]
    cycles = tuple(
        (f"layer {i}: {name}", number) for i, (name, number) in enumerate(busiest, 1)
    )
    clocks = sum(number for _, number in cycles)
    return Report(
        f"{scheme}, voters {tuple(voters)}, {draws} draws",
        (
            Quantity("energy_j", sum(value for _, value in energy), energy),
            Quantity("cycles", clocks, cycles),
            Quantity("latency_s", clocks * machine.clock_s),
            Quantity("area_m2", sum(value for _, value in area), area),
            *(
                Quantity(name, value)
                for name, value in zip(Operations._fields, sums, strict=True)
            ),
        ),
        notes=(f"{machine.technology.name}; no leakage, control or wires",),
    )


def _memories(layers, voters, counts, machine, draws):
    """Name, size in words and words moved of each memory."""
    branches = [math.prod(voters[:i]) for i in range(len(voters))]
    betas = [1] * len(layers) if draws == "independent" else branches
    kept = [i for i, o in enumerate(counts) if o.buffer_words]
    buffer = machine.buffer_words([layers[i] for i in kept], [betas[i] for i in kept])
    if draws == "independent":
        activations = layers[0][1] + sum(
            m * (t if o.buffer_words else 1)
            for (m, _), t, o in zip(layers, voters, counts, strict=True)
        )
    else:
        activations = max(
            b * (n + m * t)
            for (m, n), b, t in zip(layers, branches, voters, strict=True)
        )
    sums = total(counts)
    return (
        ("parameters", 2 * sum(m * n for m, n in layers), sums.parameter_words),
        ("beta", buffer, sums.buffer_words),
        ("activations", activations, sums.activation_words),
    )


def _cycles(operations, machine):
    """Clocks of each resource."""
    return [
        ("multipliers", -(-operations.multiplications // machine.multipliers)),
        ("adders", -(-operations.additions // machine.adders)),
        ("draw lanes", -(-operations.draws // machine.draw_lanes)),
        ("parameter ports", -(-operations.parameter_words // machine.parameter_ports)),
        ("buffer ports", -(-operations.buffer_words // machine.buffer_ports)),
    ]
