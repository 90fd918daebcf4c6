"""Which mode to draw voters in, for a program, its batch and the hardware, and why."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jeff.dm_bnn.arrange import arrange
from jeff.dm_bnn.chunks import WORDS, at_a_time
from jeff.dm_bnn.cost import voter_count
from jeff.program import Count

__all__ = ["HARDWARE", "ModePlan", "plan"]

HARDWARE = (*WORDS, "datapath")
_EXACT = ("naive", "hybrid", "dm", "best")
_PER_INPUT = ("lrt", "flipout")


class ModePlan(NamedTuple):
    """A recommended mode.

    Attributes:
      recommended: The mode for `predict`.
      reasons: Why, a sentence each.
      counts: By mode what `predict` would do, draws counted apart.
      refused: By mode that would change the distribution, where and why.
      whole: By leaf that every exact mode draws whole, why.
      at_a_time: By mode that is not refused, how many voters `predict` computes at a
        time on the hardware; empty for a datapath.
    """

    recommended: str
    reasons: tuple[str, ...]
    counts: Mapping[str, Count]
    refused: Mapping[str, str]
    whole: Mapping[str, str]
    at_a_time: Mapping[str, int]

    def explain(self) -> str:
        """The plan as text, a line per reason and per mode."""
        lines = [f"recommended: {self.recommended}", *(f"- {r}" for r in self.reasons)]
        for mode, c in self.counts.items():
            together = self.at_a_time.get(mode)
            lines.append(
                f"{mode:<8}{c.multiplications:>16,} products {c.additions:>16,} sums "
                f"{c.random_draws:>14,} draws"
                + (f" {together:>8,} voters at a time" if together else "")
            )
        return "\n".join(lines)


def plan(
    apply: Callable[..., Any],
    posterior: Any,
    x: Any,
    *,
    voters: int | Sequence[int],
    hardware: str = "cpu",
    joint: bool = False,
    shared: bool = False,
) -> ModePlan:
    """Recommends a mode by counting what each would do.

    Processors spend their time on random numbers and memory, hardware with a generator
    beside every multiplier on products. So a processor takes the fewest draws that keep
    the distribution, a ``"datapath"`` the fewest products. Flipout is counted, never
    recommended: it draws what naive voters draw and signs, to make the outputs of a
    batch less alike, for training.

    The processors ``"cpu"``, ``"gpu"`` and ``"tpu"`` get one recommendation. What
    differs is how many voters `predict` computes at a time in ``"lrt"`` and
    ``"flipout"``: see its argument `chunk`.

    Args:
      apply: ``apply(params, x)``.
      posterior: Its params, or their shapes.
      x: Its input, or shapes, with the batch that will be used.
      voters: As in `predict`.
      hardware: ``"cpu"``, ``"gpu"`` or ``"tpu"``, as `jax.default_backend` says, or
        ``"datapath"``.
      joint: Whether outputs of several inputs must come from the same weights (draws
        of functions, covariances between inputs), be they in one batch or given one by
        one with the same key: then ``"lrt"`` and ``"flipout"`` are out.
      shared: As in `predict`.

    Returns:
      The plan; nothing runs.

    Raises:
      ValueError: If `hardware` is unknown, or as `predict`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff import dm_bnn
      >>> random = dm_bnn.posterior(jnp.ones((784, 200)), 0.1)
      >>> layer = lambda w, x: x @ w
      >>> found = plan(layer, random, jnp.ones((1, 784)), voters=100)
      >>> found.recommended, found.counts["lrt"].random_draws
      ('lrt', 20000)
      >>> found.at_a_time["lrt"], found.at_a_time["flipout"]
      (100, 1)
      >>> batch = jnp.ones((64, 784))
      >>> plan(layer, random, batch, voters=100, hardware="datapath").reasons[0]
      '64 rows share their weights: decomposition would take 1.00 times the products'

    References:
      arXiv 2005.03857 for decomposition. Batches: derivation, ``B (T + 2)`` against
      ``T (B + 1)`` products per weight. Kingma et al., NeurIPS 2015.
    """
    if hardware not in HARDWARE:
        raise ValueError(f"hardware must be one of {HARDWARE}, got {hardware!r}")
    settings = {"voters": voters, "shared": shared}
    counts = {
        mode: voter_count(apply, posterior, x, mode=mode, **settings) for mode in _EXACT
    }
    found = arrange(apply, posterior, x, voters=voters, mode="best")
    together: dict[str, int] = dict.fromkeys(_EXACT, math.prod(found.voters))
    refused = {}
    for mode in _PER_INPUT:
        if joint:
            refused[mode] = "outputs of several inputs must come from the same weights"
            continue
        try:
            own = arrange(apply, posterior, x, voters=voters, mode=mode)
        except ValueError as error:
            refused[mode] = str(error)
            continue
        counts[mode] = voter_count(apply, posterior, x, mode=mode, **settings)
        sizes = at_a_time(own.voters, mode, None, own.words, hardware)
        together[mode] = math.prod(sizes)
    recommended, reasons = _recommended(hardware, counts, refused)
    return ModePlan(
        recommended=recommended,
        reasons=(_about_rows(found, counts), *reasons),
        counts=counts,
        refused=refused,
        whole=found.ways.whole,
        at_a_time={} if hardware == "datapath" else together,
    )


def _recommended(hardware, counts, refused) -> tuple[str, list[str]]:
    """The mode, and why."""
    best, standard = counts["best"], counts["naive"]
    reasons = []
    if "lrt" in refused:
        reasons.append(f"local reparameterisation is out: {refused['lrt']}")
    if hardware != "datapath" and "lrt" in counts:
        fewer = best.random_draws / max(counts["lrt"].random_draws, 1)
        reasons.append(
            f"random numbers dominate on a {hardware}: drawing outputs takes "
            f"{fewer:,.0f} times fewer draws than drawing weights"
        )
        return "lrt", reasons
    if best.multiplications < standard.multiplications:
        ratio = best.multiplications / standard.multiplications
        reasons.append(f"decomposition where it pays takes {ratio:.2f} of the products")
        return "best", reasons
    return "naive", [*reasons, "decomposition saves no products here"]


def _about_rows(found, counts) -> str:
    first = [s for s in found.sites if found.levels.depth.get(s.name) == 1]
    rows = max([math.prod(s.x_shape[:-1]) for s in first if s.kind == "dot"], default=1)
    ratio = counts["dm"].multiplications / max(counts["naive"].multiplications, 1)
    times = f"decomposition would take {ratio:.2f} times the products"
    if rows == 1:
        return f"one row has its weights for itself: {times}"
    return f"{rows} rows share their weights: {times}"
