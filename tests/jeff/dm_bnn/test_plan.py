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
    assert ("lrt" in plan.refused) == joint
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


def test_an_unknown_hardware_is_an_error():
    with pytest.raises(ValueError, match="hardware must be one of"):
        dm_bnn.plan(layer, RANDOM, jnp.ones((1, 32)), voters=2, hardware="fpga")
