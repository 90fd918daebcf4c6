"""Counts: by a loop that does the arithmetic, by hand, and against the formulas."""

import itertools
import math

import numpy as np
import pytest

from hwsim.bnn_datapath import count, decomposed, sampled, total

NET = [(200, 784), (200, 200), (10, 200)]


class Tally:
    """Numbers that count what is done with them."""

    def __init__(self):
        self.multiplications = self.additions = self.draws = 0

    def dot(self, a, b):
        products = [self.times(x, y) for x, y in zip(a, b, strict=True)]
        result = products[0]
        for product in products[1:]:
            result = self.plus(result, product)
        return result

    def times(self, a, b):
        self.multiplications += 1
        return a * b

    def plus(self, a, b):
        self.additions += 1
        return a + b

    def draw_matrix(self, source, m, n):
        self.draws += m * n
        return source.normal(size=(m, n))


def walk(layers, voters, ways, draws, seed=0):
    """Runs a network with every operation written out; its outputs, and the tally."""
    tally, source = Tally(), np.random.default_rng(seed)
    values = np.random.default_rng(1)
    branches = [values.normal(size=layers[0][1])]
    for (m, n), t, way in zip(layers, voters, ways, strict=True):
        mu, sigma = values.normal(size=(2, m, n))
        noise = [
            [tally.draw_matrix(source, m, n) for _ in range(t)]
            for _ in range(len(branches) if draws == "independent" else 1)
        ]
        made = {}
        after = []
        for b, x in enumerate(branches):
            source_of = b if draws == "independent" else 0
            h = noise[source_of]
            if way == "dm":
                eta = [tally.dot(row, x) for row in mu]
                beta = [list(map(tally.times, row, x)) for row in sigma]
                for k in range(t):
                    rows = list(map(tally.dot, h[k], beta))
                    after.append(list(map(tally.plus, eta, rows)))
                continue
            for k in range(t):
                if (source_of, k) not in made:
                    noisy = [
                        list(map(tally.times, *rows))
                        for rows in zip(sigma, h[k], strict=True)
                    ]
                    made[source_of, k] = [
                        list(map(tally.plus, *rows))
                        for rows in zip(mu, noisy, strict=True)
                    ]
                after.append([tally.dot(row, x) for row in made[source_of, k]])
        branches = [np.maximum(y, 0) for y in after]
    return np.array(branches), tally


@pytest.mark.parametrize("draws", ["independent", "shared"])
@pytest.mark.parametrize(
    ("scheme", "ways"),
    [
        ("standard", ("sampled", "sampled")),
        ("hybrid", ("dm", "sampled")),
        ("dm", ("dm", "dm")),
    ],
)
def test_counts_are_those_of_the_arithmetic_written_out(scheme, ways, draws):
    layers, voters = [(3, 4), (2, 3)], (3, 2)
    outputs, tally = walk(layers, voters, ways, draws)
    expected, _ = walk(layers, voters, ("sampled", "sampled"), draws)
    np.testing.assert_allclose(outputs, expected, rtol=1e-12)  # the same voters
    assert len(outputs) == math.prod(voters)
    found = total(count(layers, voters, scheme, draws))
    assert found[:3] == (tally.multiplications, tally.additions, tally.draws)


@pytest.mark.parametrize(
    ("scheme", "tree", "multiplications", "independent", "shared"),
    [
        ("standard", (100, 1, 1), 39_760_000, 19_880_000, None),
        ("hybrid", (100, 1, 1), 24_393_600, 19_880_000, None),
        ("dm", (100, 1, 1), 28_593_600, 19_880_000, 15_722_000),
        ("dm", (25, 4, 1), 10_833_600, 8_120_000, 4_082_000),
        ("dm", (20, 5, 1), 9_649_600, 7_336_000, 3_338_000),
        ("dm", (10, 10, 1), 7_281_600, 5_768_000, 1_970_000),
        ("dm", (5, 5, 4), 2_797_600, 1_984_000, 992_000),
    ],
)
def test_the_network_of_the_documentation(
    scheme, tree, multiplications, independent, shared
):
    """784-200-200-10 with 100 voters, derived by hand."""
    alone = total(count(NET, tree, scheme))
    assert (alone.multiplications, alone.draws) == (multiplications, independent)
    if shared is not None:
        assert total(count(NET, tree, scheme, "shared")).draws == shared


def test_the_ratio_of_one_layer_is_that_of_the_formula():
    for t in (1, 2, 10, 100, 10_000):
        one, other = sampled(7, 5, 1, t), decomposed(7, 5, 1, t)
        ratio = other.multiplications / one.multiplications
        assert ratio == pytest.approx((t + 2) / (2 * t))  # break-even at 2, limit 1/2
        assert one.additions == 2 * t * 35 - 7 * t
        assert other.additions == (t + 1) * 35 - 7


@pytest.mark.parametrize("shared", [False, True])
def test_the_planned_scheme_multiplies_least_of_all_choices(shared):
    for tree in itertools.product((1, 2, 3, 8), repeat=3):
        layers = [
            [
                way(m, n, math.prod(tree[:i]), t, shared=shared).multiplications
                for way in (sampled, decomposed)
            ]
            for i, ((m, n), t) in enumerate(zip(NET, tree, strict=True))
        ]
        best = min(map(sum, itertools.product(*layers)))
        found = count(NET, tree, "planned", "shared" if shared else "independent")
        assert total(found).multiplications == best


def test_at_two_voters_the_planned_scheme_is_the_standard_one():
    assert count(NET, (2, 2, 2), "planned") == count(NET, (2, 2, 2), "standard")


def test_words_moved_by_hand():
    """A layer of 2 x 3, two branches, five voters each."""
    one = sampled(2, 3, 2, 5)
    assert one.parameter_words == 2 * 10 * 6 and one.buffer_words == 0
    assert one.activation_words == 10 * (3 + 2)
    assert sampled(2, 3, 2, 5, shared=True).parameter_words == 2 * 5 * 6
    other = decomposed(2, 3, 2, 5)
    assert other.parameter_words == 2 * 2 * 6
    assert other.buffer_words == 2 * 6 + 10 * 6  # written per branch, read per voter
    assert other.activation_words == 2 * 3 + 10 * 2
    assert decomposed(2, 3, 2, 5, shared=True).parameter_words == 2 * 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], (), "dm"), "need a layer"),
        ((NET, (10, 10), "dm"), "need a layer and a number of voters each: 3, 2"),
        ((NET, (10, 0, 1), "dm"), "must be at least 1"),
        (([(0, 3)], (1,), "dm"), "must be at least 1"),
        ((NET, (1, 1, 1), "fast"), "scheme must be one of"),
        ((NET, (1, 1, 1), "dm", "some"), "draws one of"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        count(*arguments)
