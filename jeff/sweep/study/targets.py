"""What a fault may hit: the stored words of leaves, or the outputs of sites."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jeff import base, tree
from jeff.faults.mac_count import MacCount, site_macs
from jeff.faults.model import Codes
from jeff.faults.on_weights import on_weights
from jeff.faults.stored_words import stored_bits
from jeff.faults.where import Where, chosen, is_product, is_weight
from jeff.program import Site, sites
from jeff.sweep.campaigns.batches import one_example
from jeff.sweep.study.named_faults import ONE, Draw, NamedFault

__all__ = [
    "Target",
    "expected_faults",
    "feature_targets",
    "how_to_draw",
    "model_of_rate",
    "weight_targets",
]


class Target(NamedTuple):
    """An array that is hit.

    Attributes:
      name: Name of the leaf or site.
      like: Its shape and dtype, as a fault model's `sample` is told; of a site, those
        for one example.
      bits: Bits of an element.
      count: Multiplications behind an element; `ONE` for a leaf.
      times: How often it is made in a trial: 1 for a leaf, runs of its loops times
        examples for a site.
    """

    name: str
    like: Any
    bits: int
    count: MacCount
    times: int

    @property
    def elements(self) -> int:
        """Elements of one array."""
        return math.prod(self.like.shape)


def weight_targets(params: Any, where: Where | None = None) -> tuple[Target, ...]:
    """The leaves that faults of weights hit, as `jeff.faults.on_weights` chooses them.

    Args:
      params: Params, dense or stored.
      where: Which leaves.

    Returns:
      One per leaf, in tree order.

    Raises:
      TypeError: If `where` is no choice.
      ValueError: If it chooses nothing, with near names.

    Examples:
      >>> import jax.numpy as jnp
      >>> params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3, jnp.int8)}
      >>> [(t.name, t.elements, t.bits) for t in weight_targets(params)]
      [('b', 3, 8), ('w', 6, 32)]
    """
    leaves, _ = tree.flatten(params)
    found = []
    for name in chosen(where, leaves, is_weight, "leaf of params"):
        leaf = leaves[name]
        if base.is_stored(leaf):
            codes = jax.eval_shape(lambda w: w.codes(), leaf)
            bits = leaf.code_bits
            like = Codes(shape=codes.shape, dtype=codes.dtype, bits=bits)
        else:
            like = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            bits = stored_bits(leaf)
        found.append(Target(name, like, bits, ONE, 1))
    return tuple(found)


def feature_targets(
    apply: Callable[..., Any],
    params: Any,
    inputs: Any,
    where: Where | None = None,
    *,
    count: Callable[[Site], MacCount] = site_macs,
) -> tuple[Target, ...]:
    """The sites whose outputs are hit, as `jeff.faults.on_features` chooses them.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Params, dense or stored.
      inputs: An array ``[examples, ...]``, or a tuple of them.
      where: Which sites.
      count: Multiplications behind an output of a site, `NamedFault.count`.

    Returns:
      One per site, in program order; look-ups compute nothing and are left out.

    Raises:
      TypeError: If `where` is no choice.
      ValueError: If it chooses nothing, with near names, or nothing but look-ups.

    Examples:
      >>> import jax.numpy as jnp
      >>> apply, params = lambda p, x: x @ p["w"], {"w": jnp.ones((4, 2))}
      >>> (t,) = feature_targets(apply, params, jnp.ones((5, 4)))
      >>> t.elements, t.count.macs, t.times
      (2, 4, 5)
    """
    examples = len(jax.tree.leaves(inputs)[0])
    found = {site.name: site for site in sites(apply, params, *one_example(inputs))}
    names = chosen(where, found, is_product, "site")
    hit = [found[name] for name in names if found[name].kind != "lookup"]
    if not hit:
        raise ValueError(
            f"where={where!r} chooses look-ups only, which compute nothing"
        )
    return tuple(_of_site(site, count(site), examples) for site in hit)


def model_of_rate(
    fault: NamedFault,
    draw: Draw,
    on: str,
    where: Where | None,
    stacked: Mapping[str, tuple[int, ...]] | None = None,
) -> Callable[[Any], Any]:
    """What `weight_faults` and `feature_faults` take as `model_of_rate`.

    Args:
      fault: The fault model.
      draw: How faults are drawn, from `how_to_draw`.
      on: ``"weights"`` or ``"features"``.
      where: Which leaves; sites are chosen by the campaign.
      stacked: Stack axes of leaves, from `stacks`, so that a model that takes a range
        from an array takes that of a layer.

    Returns:
      A function of the rate.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff.sweep.study.named_faults import FAULTS
      >>> model = model_of_rate(FAULTS["bit-flip"], Draw(1.0), "weights", None)(1.0)
      >>> hit = model.sample(jax.random.key(0), {"w": jnp.zeros(2, jnp.int8)})
      >>> print(model.inject(hit, {"w": jnp.zeros(2, jnp.int8)})["w"])
      [-1 -1]
    """
    if on == "weights":
        return lambda rate: on_weights(
            fault.make(rate, draw, ONE),
            where=where,
            stacked=stacked if fault.by_range else None,
        )

    def of_site(rate):
        return lambda site: (
            None if site.kind == "lookup" else fault.make(rate, draw, fault.count(site))
        )

    return of_site


def how_to_draw(
    fault: NamedFault, rates: Sequence[float], targets: Sequence[Target]
) -> Draw:
    """How the faults of a sweep are drawn; refuses rates that cannot be.

    Args:
      fault: The fault model.
      rates: The rates.
      targets: What is hit; the smallest and the largest array are tried.

    Returns:
      The sampler that is best for each array, or the sparse one for all, which draws
      the lowest rates, if the others cannot.

    Raises:
      TypeError: If the model cannot act on an array; it is named.
      ValueError: If a rate is too small beside the largest, or an array has not as many
        bits as there are shares of a rate.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff.sweep.study.named_faults import FAULTS
      >>> targets = weight_targets({"w": jnp.ones((4, 4))})
      >>> how_to_draw(FAULTS["bit-flip"], [0.1, 1e-3], targets)
      Draw(max_rate=0.1, method=None)
      >>> how_to_draw(FAULTS["bit-flip"], [0.1, 5e-8], targets)
      Draw(max_rate=0.1, method='sparse')
      >>> how_to_draw(FAULTS["bit-flip"], [0.1, 1e-12], targets)
      Traceback (most recent call last):
        ...
      ValueError: rate 1e-12 cannot be drawn in one sweep with 0.1: it cannot be reached
      by method 'sparse' with max_rate=0.1, whose rates are multiples of 2.33e-11
    """
    ordered = sorted(targets, key=lambda t: (t.elements * t.bits, t.count))
    largest = max(rates)
    _check_shares(fault, targets)
    try:
        _try(fault, Draw(largest), rates, ordered)
    except ValueError:
        sparse = Draw(largest, "sparse")
        _try(fault, sparse, rates, ordered)
        return sparse
    return Draw(largest)


def _check_shares(fault: NamedFault, targets: Sequence[Target]) -> None:
    if "bit_shares" not in fault.given:
        return
    shares = fault.given["bit_shares"]
    for target in targets:
        used = fault.given.get("bits") or target.bits
        if len(shares) != used:
            raise ValueError(
                f"bit_shares has {len(shares)} shares, but {used} bits can be hit in a "
                f"word of {target.name!r}: choose leaves of one width (where)"
            )


def _try(fault, draw, rates, ordered) -> None:
    for target in {ordered[i].name: ordered[i] for i in (0, -1)}.values():
        for rate in rates:
            try:
                model = fault.make(rate, draw, target.count)
                jax.eval_shape(
                    lambda k, m=model, t=target: m.sample(k, t.like), jax.random.key(0)
                )
            except TypeError as error:
                raise TypeError(f"{target.name!r}: {error}") from None
            except ValueError as error:
                said = str(error).replace(f"rate {rate:.6g}", "it")
                raise ValueError(
                    f"rate {rate:.6g} cannot be drawn in one sweep with "
                    f"{draw.max_rate:.6g}: {said.removesuffix('; take another method')}"
                ) from None


def expected_faults(fault: NamedFault, rate: float, targets: Sequence[Target]) -> float:
    """How many faults a trial injects, on average.

    Args:
      fault: The fault model.
      rate: The rate.
      targets: What is hit.

    Returns:
      The number. A model that changes every element counts each of them.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff.sweep.study.named_faults import FAULTS
      >>> targets = weight_targets({"w": jnp.ones((4, 4))})
      >>> expected_faults(FAULTS["bit-flip"], 0.25, targets)
      128.0
    """
    return float(
        sum(t.elements * t.times * fault.hits(rate, t.bits, t.count) for t in targets)
    )


def _of_site(site: Site, count: MacCount, examples: int) -> Target:
    like = jax.ShapeDtypeStruct(site.y_shape[1:], site.dtype)
    runs = math.prod(n or 1 for n in site.trips)
    return Target(site.name, like, stored_bits(like), count, runs * examples)
