"""The oracle: all 8,288 single faults of a tiny net, and every estimator on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracle_net
from support.oracle_net import HIDDEN, INPUTS, brackets

from jeff.evaluate import proportion
from jeff.sweep import (
    allocate,
    best_proposal,
    draw_kinds,
    enumerate_faults,
    exhaustive,
    flip_one,
    pilot_rates,
    stratified_estimate,
    stratified_variance,
    weighted_estimate,
)


@pytest.fixture(scope="module")
def net():
    """Params and the numbering of their faults."""
    found = oracle_net.oracle()
    return found.params, found.space


@pytest.fixture(scope="module")
def truth():
    """Whether each fault changes the top class of some image; bool [faults]."""
    return oracle_net.truth()


def test_every_fault_flips_its_own_bit_and_back(net):
    params, space = net
    assert len(space) == 8 * (INPUTS * HIDDEN + HIDDEN * oracle_net.CLASSES) == 8288

    @jax.jit
    def words(number):
        once = flip_one(params, number, space)
        twice = flip_one(once, number, space)
        return [(p["first"], p["second"].codes()) for p in (once, twice)]

    clean = [np.asarray(params["first"]), np.asarray(params["second"].codes())]
    for number in (0, 7, 4242, 7167, 7168, 8287):
        leaf, position, bit = space.locate(number)
        once, twice = words(number)
        expected = [a.view(np.uint8).copy() for a in clean]
        expected[leaf].reshape(-1)[position] ^= 1 << bit
        for a, b, c, d in zip(once, expected, twice, clean, strict=True):
            assert (np.asarray(a).view(np.uint8) == b).all()
            assert (np.asarray(c) == d).all()
    for outside in (-1, 8288):  # traced: nothing to flip
        assert (np.asarray(words(outside)[0][0]) == clean[0]).all()


def test_words_of_any_width_flip_every_bit():
    params = {
        "bf16": jnp.array([1.0, -2.0], jnp.bfloat16),
        "f32": jnp.array([[1.5]]),
        "int4": jnp.array([3, -8], jnp.int4),
    }
    space = enumerate_faults(params)
    assert len(space) == 2 * 16 + 32 + 2 * 4
    views = {"bf16": jnp.uint16, "f32": jnp.uint32, "int4": jnp.uint4}

    def bits(p):
        stored = {n: jax.lax.bitcast_convert_type(x, views[n]) for n, x in p.items()}
        return {n: x.astype(jnp.uint32).reshape(-1) for n, x in stored.items()}

    flipped = exhaustive(bits, params, space=space, batch_size=len(space))
    clean = {n: np.asarray(x) for n, x in bits(params).items()}
    for number in range(len(space)):
        leaf, position, bit = space.locate(number)
        for i, name in enumerate(space.names):
            expected = clean[name].copy()
            if i == leaf:
                expected[position] ^= np.uint32(1 << bit)
            assert (flipped[name][number] == expected).all(), (number, name)


def test_outcomes_do_not_depend_on_chunks(net, truth):
    params, space = net
    numbers = [8287, 0, 0, 5000, 7]

    def outcome(p):
        first = p["first"].astype(jnp.int32)
        return {"sum": first.sum(), "row": first[0]}

    few = exhaustive(outcome, params, space=space, numbers=numbers, chunk=2)
    once = exhaustive(outcome, params, space=space, numbers=numbers)
    assert few["row"].shape == (5, HIDDEN)
    for name in few:
        assert (few[name] == once[name]).all()
    total = np.asarray(params["first"]).astype(int).sum()
    # Number 0 flips bit 0 of the first weight, 7 its sign; 8287 is in another leaf.
    assert few["sum"][0] == total and abs(few["sum"][1] - total) == 1
    assert abs(few["sum"][4] - total) == 128
    assert truth.shape == (8288,) and 0.02 < truth.mean() < 0.5


def test_a_random_campaign_brackets_the_truth(truth):
    rng, trials, rate = np.random.default_rng(2), 400, truth.mean()
    found = [
        proportion(int(truth[rng.integers(len(truth), size=trials)].sum()), trials)
        for _ in range(200)
    ]
    values = [f.value for f in found]
    variance = rate * (1 - rate) / trials
    brackets(values, rate, variance, [f.low <= rate <= f.high for f in found])


@pytest.mark.parametrize("replacement", [True, False])
def test_a_stratified_campaign_brackets_the_truth(net, truth, replacement):
    _, space = net
    names, sizes = zip(*space.strata(), strict=True)
    rng, strata = np.random.default_rng(3), space.stratum(np.arange(len(space)))
    members = [np.flatnonzero(strata == h) for h in range(len(sizes))]
    rates = np.array([truth[m].mean() for m in members])
    pilot = [int(truth[rng.choice(m, 10)].sum()) for m in members]
    trials = allocate(sizes, 400, rates=pilot_rates(pilot, [10] * 16))

    def campaign():
        events = [
            int(truth[rng.choice(m, n, replace=replacement)].sum())
            for m, n in zip(members, trials, strict=True)
        ]
        return stratified_estimate(
            sizes, events, trials, names=names, replacement=replacement
        )

    found = [campaign() for _ in range(200)]
    rate = truth.mean()
    variance = stratified_variance(sizes, rates, trials, replacement=replacement)
    # The point of it: less than a random campaign of as many injections.
    assert variance < 0.8 * rate * (1 - rate) / 400
    covered = [f.rate.low <= rate <= f.rate.high for f in found]
    brackets([f.rate.value for f in found], rate, variance, covered)
    assert found[0].strata[7].name == "first bit 7"


def test_a_campaign_by_importance_of_the_bits_brackets_the_truth(net, truth):
    _, space = net
    bit = np.asarray(space.locate(np.arange(len(space))).bit)
    members = np.stack([np.flatnonzero(bit == b) for b in range(8)])
    rates = truth[members].mean(1)
    target = np.full(8, 1 / 8)
    q = best_proposal(target, rates)
    kinds = np.asarray(draw_kinds(jax.random.key(4), q, 200 * 400)).reshape(200, 400)
    rng, rate = np.random.default_rng(4), truth.mean()

    def campaign(kinds):
        outcomes = truth[members[kinds, rng.integers(members.shape[1], size=400)]]
        return weighted_estimate(outcomes, kinds, target=target, proposal=q)

    found = [campaign(k) for k in kinds]
    variance = ((target**2 / q * rates).sum() - rate**2) / 400
    assert variance < 0.8 * rate * (1 - rate) / 400
    covered = [f.mean.low <= rate <= f.mean.high for f in found]
    brackets([f.mean.value for f in found], rate, variance, covered)
    estimated = np.mean([f.variance for f in found])
    assert estimated == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chunk": 0}, "chunk=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"numbers": [8]}, r"number must be in \[0, 8\): 8"),
        ({"numbers": []}, r"numbers must be \[n\]"),
    ],
)
def test_errors_name_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        exhaustive(lambda p: p["w"], {"w": jnp.zeros(1, jnp.int8)}, **arguments)
