"""Operations of voters: read from the program, by formula, and by the circuit's model.

`hwsim.bnn_datapath` counts from sizes and a tree alone and knows no program;
`jeff.dm_bnn.voter_count` reads the program that `predict` makes and knows no formula.
"""

import math

import jax
import numpy as np
import pytest

from hwsim import bnn_datapath
from jeff import dm_bnn


def matrices(p, x):
    """Layers without biases, as the formulas are."""
    for i, w in enumerate(p):
        x = x @ w
        x = jax.nn.relu(x) if i < len(p) - 1 else x
    return x


def spec(*shape):
    return jax.ShapeDtypeStruct(shape, "float32")


def counted(sizes, voters, mode, shared, rows=1):
    """Products, sums and draws of `predict`."""
    random = [
        dm_bnn.MeanField(spec(*pair), spec(*pair))
        for pair in zip(sizes, sizes[1:], strict=False)
    ]
    found = dm_bnn.voter_count(
        matrices, random, spec(rows, sizes[0]), voters=voters, mode=mode, shared=shared
    )
    assert not found.unknown
    return found.multiplications, found.additions, found.random_draws


@pytest.mark.parametrize(
    ("mode", "voters", "shared", "products", "draws"),
    [
        ("naive", 100, False, 39_760_000, 19_880_000),
        ("hybrid", 100, False, 24_393_600, 19_880_000),
        ("dm", 100, False, 28_593_600, 19_880_000),
        ("dm", 100, True, 28_593_600, 15_722_000),
        ("dm", (25, 4, 1), False, 10_833_600, 8_120_000),
        ("dm", (25, 4, 1), True, 10_833_600, 4_082_000),
        ("dm", (20, 5, 1), False, 9_649_600, 7_336_000),
        ("dm", (20, 5, 1), True, 9_649_600, 3_338_000),
        ("dm", (10, 10, 1), False, 7_281_600, 5_768_000),
        ("dm", (10, 10, 1), True, 7_281_600, 1_970_000),
        ("dm", (5, 5, 4), False, 2_797_600, 1_984_000),
        ("dm", (5, 5, 4), True, 2_797_600, 992_000),
        ("best", (10, 10, 1), False, 7_081_600, 5_768_000),
        # Matrix products 8,713,600; squares of std 198,800 and of inputs 40,784; noise
        # times spread 41,000.
        ("lrt", 100, False, 8_994_184, 41_000),
    ],
)
def test_counts_of_the_784_200_200_10_network(mode, voters, shared, products, draws):
    found = counted((784, 200, 200, 10), voters, mode, shared)
    assert (found[0], found[2]) == (products, draws)


def local(sizes, voters, shared, rows):
    """What local reparameterisation takes.

    A layer of N inputs and M outputs, for b rows (inputs times branches) that come in
    and t branches of each: two products with a matrix, squares of the standard
    deviations once and of the rows, and b t M numbers of noise, each multiplied with
    the spread of its output and added to its mean.
    """
    totals = np.zeros(3, int)
    for level, (n, m) in enumerate(zip(sizes, sizes[1:], strict=False)):
        b, t = rows * math.prod(voters[:level]), voters[level]
        drawn = t * m * (rows if shared else b)
        totals += (
            2 * b * m * n + m * n + b * n + b * t * m,
            2 * b * m * (n - 1) + b * t * m,
            drawn,
        )
    return tuple(totals.tolist())


def fewest(sizes, voters, shared, rows):
    """Products of the cheaper way in every layer, for rows that share their voters."""
    total = 0
    for level, (n, m) in enumerate(zip(sizes, sizes[1:], strict=False)):
        above, t = math.prod(voters[:level]), voters[level]
        made = t if shared else above * t
        standard = made + above * t * rows
        total += n * m * min(standard, above * rows * (t + 2))
    return total


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_random_networks_take_what_the_formulas_say(seed, shared):
    """Networks of three and four layers, one row, trees that branch at random."""
    rng = np.random.default_rng(seed)
    sizes = tuple(rng.integers(2, 30, 4 + seed).tolist())
    voters = tuple(rng.integers(1, 5, 3 + seed).tolist())
    layers = [(m, n) for n, m in zip(sizes, sizes[1:], strict=False)]
    draws = "shared" if shared else "independent"
    schemes = {"naive": "standard", "hybrid": "hybrid", "dm": "dm", "best": "planned"}
    for mode, scheme in schemes.items():
        count = bnn_datapath.count(layers, voters, scheme, draws)
        wanted = tuple(bnn_datapath.total(count)[:3])
        assert counted(sizes, voters, mode, shared) == wanted, mode
    for rows in (1, 3):
        found = counted(sizes, voters, "lrt", shared, rows)
        assert found == local(sizes, voters, shared, rows)
    products, _, _ = counted(sizes, voters, "best", shared, rows=3)
    assert products == fewest(sizes, voters, shared, rows=3)


def test_the_cost_of_a_tree_follows_from_small_ones():
    sizes, voters = (6, 5, 4, 3), (3, 2, 4)
    pairs = zip(sizes, sizes[1:], strict=False)
    random = [dm_bnn.MeanField(spec(*pair), spec(*pair)) for pair in pairs]
    cost = dm_bnn.tree_cost(matrices, random, spec(1, 6), levels=3, mode="dm")
    assert cost.of(voters) == counted(sizes, voters, "dm", False)[0]
