"""How many operations Bayesian inference of one input takes, layer by layer.

A layer has N inputs, M outputs and a Gaussian for each of its ``M N`` weights; biases
are not counted. `branches` activations come in, each gives `voters` outputs. The
weights of a voter are ``mu + sigma h``.

*Sampled* layer (the standard way): the weights are made, then multiplied with x.

    multiplications   2 b t M N          (sigma h, and w x)
    additions         b t M N + b t M (N - 1)
    draws             b t M N

*Decomposed* layer (DM): ``eta = mu x`` and ``beta = sigma x`` are made once per branch
and kept, and a voter is ``eta + sum_j h beta``.

    multiplications   b (t + 2) M N
    additions         b (M (N - 1) + t M N)
    draws             b t M N

With *shared* draws all branches of a layer use the same t matrices of draws: ``t M N``
draws; a sampled layer then makes its weights t times only, and has
``(t + b t) M N`` multiplications and ``t M N + b t M (N - 1)`` additions.

Words moved: a parameter is a mean and a deviation. A sampled layer fetches both for
every matrix of weights it makes. A decomposed layer fetches them once per branch, or
once in all if draws are shared (the branches then go through the rows together), and
writes beta once and reads it once per voter. Activations are read once per matrix they
are multiplied with (a decomposed layer: once per branch) and written once.

References:
  X. Jia et al., "Efficient Computation Reduction in Bayesian Neural Networks Through
  Feature Decomposition and Memorization", arXiv 2005.03857: idea and names, from the
  abstract. Counts: derivation above.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["DRAWS", "SCHEMES", "Operations", "count", "decomposed", "sampled", "total"]

SCHEMES = ("standard", "hybrid", "dm", "planned")
"""Which layers are decomposed: none, the first, all, or where that multiplies less."""

DRAWS = ("independent", "shared")
"""Whether every branch draws for itself, or all branches of a layer the same."""


class Operations(NamedTuple):
    """Operations of a layer, or of several.

    Attributes:
      multiplications: Products of two numbers.
      additions: Sums of two numbers.
      draws: Standard normals.
      parameter_words: Means and deviations fetched.
      buffer_words: Elements of beta written and read.
      activation_words: Activations read and written.
    """

    multiplications: int = 0
    additions: int = 0
    draws: int = 0
    parameter_words: int = 0
    buffer_words: int = 0
    activation_words: int = 0


def sampled(
    outputs: int, inputs: int, branches: int, voters: int, *, shared: bool = False
) -> Operations:
    """A layer whose weights are made and then multiplied.

    Args:
      outputs: M.
      inputs: N.
      branches: b, activations that come in.
      voters: t, outputs of each.
      shared: Whether all branches use the same draws.

    Returns:
      The counts.

    Examples:
      >>> sampled(2, 3, branches=1, voters=10)[:3]
      (120, 100, 60)
    """
    weights, leaves = outputs * inputs, branches * voters
    made = (voters if shared else leaves) * weights
    return Operations(
        multiplications=made + leaves * weights,
        additions=made + leaves * outputs * (inputs - 1),
        draws=made,
        parameter_words=2 * made,
        activation_words=leaves * (inputs + outputs),
    )


def decomposed(
    outputs: int, inputs: int, branches: int, voters: int, *, shared: bool = False
) -> Operations:
    """A layer with eta and beta kept per branch.

    Args:
      outputs: M.
      inputs: N.
      branches: b, activations that come in.
      voters: t, outputs of each.
      shared: Whether all branches use the same draws.

    Returns:
      The counts.

    Examples:
      >>> decomposed(2, 3, branches=1, voters=10)[:3]
      (72, 64, 60)
    """
    weights, leaves = outputs * inputs, branches * voters
    return Operations(
        multiplications=branches * (voters + 2) * weights,
        additions=branches * outputs * (inputs - 1) + leaves * weights,
        draws=(voters if shared else leaves) * weights,
        parameter_words=2 * weights * (1 if shared else branches),
        buffer_words=(branches + leaves) * weights,
        activation_words=branches * inputs + leaves * outputs,
    )


def count(
    layers: Sequence[tuple[int, int]],
    voters: Sequence[int],
    scheme: str,
    draws: str = "independent",
) -> tuple[Operations, ...]:
    """The operations of each layer of a network.

    Args:
      layers: Pairs (M, N) of outputs and inputs, in order.
      voters: The tree ``t_1 ... t_L``: layer l makes t_l outputs of each activation
        that comes in, so that their product is the number of voters in the end.
      scheme: One of `SCHEMES`.
      draws: One of `DRAWS`.

    Returns:
      A count per layer.

    Raises:
      ValueError: If there are no layers, a number is less than 1, the lengths differ,
        or a word is not one of those above.

    Examples:
      >>> net = [(200, 784), (200, 200), (10, 200)]
      >>> for scheme, tree in [("standard", (100, 1, 1)), ("hybrid", (100, 1, 1)),
      ...                      ("dm", (10, 10, 1))]:
      ...     print(scheme, total(count(net, tree, scheme))[:3])
      standard (39760000, 39719000, 19880000)
      hybrid (24393600, 24215600, 19880000)
      dm (7281600, 6521600, 5768000)
    """
    if not layers or len(layers) != len(voters):
        raise ValueError(
            f"need a layer and a number of voters each: {len(layers)}, {len(voters)}"
        )
    if min(min(pair) for pair in layers) < 1 or min(voters) < 1:
        raise ValueError(f"sizes and voters must be at least 1: {layers}, {voters}")
    if scheme not in SCHEMES or draws not in DRAWS:
        raise ValueError(
            f"scheme must be one of {SCHEMES} and draws one of {DRAWS}, got "
            f"{scheme!r} and {draws!r}"
        )
    shared, counts = draws == "shared", []
    for i, ((outputs, inputs), t) in enumerate(zip(layers, voters, strict=True)):
        branches = math.prod(voters[:i])
        both = [f(outputs, inputs, branches, t, shared=shared) for f in _WAYS]
        if scheme == "planned":
            counts.append(min(both, key=lambda way: way.multiplications))
        else:
            counts.append(both[scheme == "dm" or (scheme == "hybrid" and i == 0)])
    return tuple(counts)


def total(counts: Sequence[Operations]) -> Operations:
    """The sum of several counts.

    Args:
      counts: The counts.

    Returns:
      Their sum.

    Examples:
      >>> total([Operations(1, 2), Operations(3, 4)])[:2]
      (4, 6)
    """
    return Operations(*(sum(column) for column in zip(*counts, strict=True)))


_WAYS = (sampled, decomposed)
