"""Which voter trees lie on either side of a given saving."""

from collections.abc import Sequence
from typing import NamedTuple

from hwsim.bnn_datapath.cost import estimate
from hwsim.bnn_datapath.machine import Machine
from hwsim.report import text_table

__all__ = ["Saving", "between", "savings", "savings_table"]


class Saving(NamedTuple):
    """One way to run a network, against the standard way.

    Attributes:
      voters: The tree.
      alpha: Share of beta that is kept at a time.
      energy: Energy over the standard one; 0.3 is 70 % less.
      speedup: Standard latency over this one.
      area: Area over the standard one.
      draw_share: Share of the draws in the energy.
    """

    voters: tuple[int, ...]
    alpha: float
    energy: float
    speedup: float
    area: float
    draw_share: float


def savings(
    layers: Sequence[tuple[int, int]],
    trees: Sequence[Sequence[int]],
    *,
    standard: Machine,
    machines: Sequence[Machine],
    scheme: str = "dm",
    draws: str = "independent",
) -> tuple[Saving, ...]:
    """Every tree on every machine, each against the standard way on its own machine.

    The standard way takes as many voters as the tree has in the end.

    Args:
      layers: Pairs (M, N) of outputs and inputs, in order.
      trees: Voters of each layer, one tuple per tree.
      standard: The datapath of the standard way.
      machines: Datapaths for the trees, such as one with each alpha.
      scheme: How trees run, one of `SCHEMES`.
      draws: One of `DRAWS`, for the trees; the standard way draws for every voter.

    Returns:
      A saving per tree and machine, trees outermost.

    Raises:
      ValueError: As `estimate` does.

    Examples:
      >>> net = [(20, 30), (10, 20)]
      >>> standard = Machine(draw_lanes=32)
      >>> rows = savings(net, [(8, 1), (4, 2)], standard=standard, machines=[Machine()])
      >>> [round(row.speedup, 2) for row in rows]
      [1.18, 1.87]
    """
    rows = []
    for tree in trees:
        leaves = 1
        for t in tree:
            leaves *= t
        flat = (leaves, *(1 for _ in tree[1:]))
        base = estimate(layers, flat, standard, scheme="standard")
        for machine in machines:
            report = estimate(layers, tree, machine, scheme=scheme, draws=draws)
            rows.append(
                Saving(
                    tuple(tree),
                    machine.alpha,
                    report["energy_j"] / base["energy_j"],
                    base["latency_s"] / report["latency_s"],
                    report["area_m2"] / base["area_m2"],
                    report.share("energy_j", "draws"),
                )
            )
    return tuple(rows)


def between(
    rows: Sequence[Saving], field: str, target: float
) -> tuple[Saving, Saving] | None:
    """The two neighbours in a field whose values enclose a target.

    Args:
      rows: Savings, in any order.
      field: Field of `Saving` to look at.
      target: The value to enclose.

    Returns:
      The row with the largest value up to the target, and that with the smallest from
      it on; ``None`` if all rows lie on one side.

    Examples:
      >>> row = Saving((1,), 1.0, 0.5, 2.0, 1.0, 0.1)
      >>> pair = between([row, row._replace(speedup=5.0)], "speedup", 4.0)
      >>> [found.speedup for found in pair]
      [2.0, 5.0]
    """
    below = [row for row in rows if getattr(row, field) <= target]
    above = [row for row in rows if getattr(row, field) >= target]
    if not below or not above:
        return None
    return (
        max(below, key=lambda row: getattr(row, field)),
        min(above, key=lambda row: getattr(row, field)),
    )


def savings_table(rows: Sequence[Saving]) -> str:
    """Savings as text.

    Args:
      rows: The savings.

    Returns:
      A line per saving.

    Examples:
      >>> print(savings_table([Saving((10, 10, 1), 0.5, 0.25, 4.0, 1.2, 0.6)]))
      voters      alpha  energy  speedup  area  draws
      (10,10,1)   0.5    0.250   4.00     1.20  60 %
    """
    lines = [
        (
            "({})".format(",".join(map(str, row.voters))),
            f"{row.alpha:g}",
            f"{row.energy:.3f}",
            f"{row.speedup:.2f}",
            f"{row.area:.2f}",
            f"{row.draw_share:.0%}".replace("%", " %"),
        )
        for row in rows
    ]
    return text_table(("voters", "alpha", "energy", "speedup", "area", "draws"), lines)
