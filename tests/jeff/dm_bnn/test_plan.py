"""Recommended modes: by batch, hardware and what the program allows."""

import jax.numpy as jnp
import pytest

from jeff import dm_bnn

RANDOM = dm_bnn.posterior(jnp.ones((32, 16)), 0.1)


def layer(w, x):
    return x @ w


@pytest.mark.parametrize(
    ("rows", "hardware", "joint", "wanted"),
    [
        (1, "cpu", False, "lrt"),
        (64, "gpu", False, "lrt"),
        (1, "cpu", True, "best"),
        (1, "datapath", False, "best"),
        (64, "datapath", False, "naive"),
    ],
)
def test_the_recommendation_follows_batch_and_hardware(rows, hardware, joint, wanted):
    plan = dm_bnn.plan(
        layer, RANDOM, jnp.ones((rows, 32)), voters=50, hardware=hardware, joint=joint
    )
    assert plan.recommended == wanted
    assert plan.explain().startswith(f"recommended: {wanted}\n- ")
    for mode in ("lrt", "flipout"):
        assert (mode in plan.refused) == joint == (mode not in plan.counts)
    exact = {plan.counts[m].random_draws for m in ("naive", "hybrid", "dm", "best")}
    assert exact == {50 * 32 * 16}
    assert plan.counts["best"].multiplications == min(
        plan.counts[m].multiplications for m in ("naive", "hybrid", "dm")
    )


def test_batches_are_told_what_decomposition_would_cost():
    rows, voters = 8, 100
    plan = dm_bnn.plan(layer, RANDOM, jnp.ones((rows, 32)), voters=voters)
    ratio = rows * (voters + 2) / (voters * (rows + 1))
    assert plan.reasons[0] == (
        f"{rows} rows share their weights: decomposition would take {ratio:.2f} times "
        "the products"
    )


def test_a_refused_mode_says_why():
    plan = dm_bnn.plan(layer, RANDOM, jnp.ones((2, 5, 32)), voters=10)
    assert plan.recommended in ("best", "naive")
    assert "several rows per example" in plan.refused["lrt"]


def test_flipout_is_counted():
    """A matrix of noise per voter, and a sign per example and channel."""
    rows, voters, k, n = 3, 5, 32, 16
    plan = dm_bnn.plan(layer, RANDOM, jnp.ones((rows, k)), voters=voters)
    found = plan.counts["flipout"]
    assert found.random_draws == voters * (k * n + rows * (k + n))
    # The product with the mean once; per voter the noise scaled, the product with it,
    # and three for each sign: two make it (`jax.random.rademacher`), one applies it.
    signs = 3 * rows * (k + n)
    assert found.multiplications == rows * k * n + voters * (k * n * (1 + rows) + signs)
    assert "flipout" in plan.explain()


def test_flipout_is_refused_where_rows_are_not_examples():
    def tokens(w, x):
        return x.reshape(-1, 32) @ w

    plan = dm_bnn.plan(tokens, RANDOM, jnp.ones((2, 5, 32)), voters=10)
    assert set(plan.refused) == {"lrt", "flipout"}
    assert "does not have the examples of x on axis 0" in plan.refused["flipout"]
    # Several rows of one example share a matrix of noise, and its signs.
    plan = dm_bnn.plan(layer, RANDOM, jnp.ones((2, 5, 32)), voters=10)
    assert set(plan.refused) == {"lrt"} and "flipout" in plan.counts


def test_processors_differ_in_how_many_voters_they_take_at_a_time():
    x = jnp.ones((64, 32))
    plans = {
        hardware: dm_bnn.plan(layer, RANDOM, x, voters=1000, hardware=hardware)
        for hardware in ("cpu", "gpu", "tpu", "datapath")
    }
    assert plans["cpu"].at_a_time == {
        "naive": 1000, "hybrid": 1000, "dm": 1000, "best": 1000,
        "lrt": 125,  # 64 x 16 words of 2^17: 128, of which 125 divides 1,000
        "flipout": 25,  # beside them 32 x 16 of noise, and x with signs: 64 x 32
    }  # fmt: skip
    assert plans["gpu"].at_a_time["lrt"] == plans["gpu"].at_a_time["flipout"] == 1000
    assert plans["tpu"].at_a_time == plans["gpu"].at_a_time
    assert plans["datapath"].at_a_time == {}
    assert "125 voters at a time" in plans["cpu"].explain()
    assert "at a time" not in plans["datapath"].explain()


def test_an_unknown_hardware_is_an_error():
    with pytest.raises(ValueError, match="hardware must be one of"):
        dm_bnn.plan(layer, RANDOM, jnp.ones((1, 32)), voters=2, hardware="fpga")
