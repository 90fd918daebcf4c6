"""The benchmark of Bayesian networks: its cells, statistics, tables, and memory."""

import importlib
import runpy
import sys

import numpy as np
import pytest
from support import pages

pytestmark = pages.in_checkout


@pytest.fixture(scope="module")
def cases():
    """A function that gives a module of ``benchmarks/bnn_cases``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(pages.ROOT / "benchmarks"))
        yield lambda name: importlib.import_module(f"bnn_cases.{name}")


def timed(cases, **seconds):
    arrays = {name: np.array(s) for name, s in seconds.items()}
    return cases("contests").Timed(arrays, {"lrt": 5}, {"lrt": 4}, {"lrt": 1.0})


def test_slow_contenders_run_at_one_row_only(cases):
    contests = cases("contests")
    settings = contests.Settings((1, 8, 256), (100, 1000), 6, 0.1, 0)
    found = {(c.rows, c.voters): c for c in contests.cells(settings)}
    assert len(found) == 6
    for (_, voters), cell in found.items():
        assert "lrt" in cell.modes
        assert ("flipout" in cell.modes) is ("blitz" in cell.peers) is (voters == 100)
    assert found[1, 1000].peers == ("bayesian_torch", "torch_lrt")
    assert found[8, 1000].modes == ("tree", "tree_shared", "lrt")
    assert found[256, 1000][2:] == (("lrt",), ())


@pytest.mark.parametrize("voters", [10, 100, 1000])
def test_trees_have_all_voters(cases, voters):
    tree = cases("contests").trees(voters)
    assert np.prod(tree) == voters and tree[-1] == 1


def test_ratios_are_of_the_same_round(cases):
    found = {
        m.name: m
        for m in cases("report").contest_measures(
            {
                (1, 100): timed(
                    cases, lrt=[1.0, 2.0, 4.0], bayesian_torch=[300.0, 500.0, 2400.0]
                )
            }
        )
    }
    ratio = found["ratio.bayesian_torch.lrt_b1_t100"]
    assert (ratio.low, ratio.value, ratio.high) == (250.0, 300.0, 600.0)
    assert found["seconds.lrt_b1_t100"].value == 2.0
    assert found["peak_bytes.lrt_b1_t100"].value == 5
    assert not any("blitz" in name for name in found)


def test_cost_of_an_effective_voter_is_found(cases):
    """Half the variance for the same cost is half the cost; 20 of 400 by chance."""
    rng = np.random.default_rng(0)
    tree, alone = rng.normal(0, 0.5**0.5, (400, 3)), rng.normal(0, 1, (400, 3))
    value, low, high = cases("planned")._ratio(tree, alone, 1.0, seed=0)
    # Each variance has a relative error of sqrt(2 / 399 / 3); four of their ratio's.
    error = 0.5 * 4 * np.sqrt(2 * 2 / 399 / 3)
    assert abs(value - 0.5) < error
    assert low < value < high and high - low < 2 * error
    twice = cases("planned")._ratio(tree, alone, 2.0, seed=0)
    assert twice == (2 * value, 2 * low, 2 * high)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_of_a_call(cases):
    size = 2**25
    found = cases("peak").peak_growth(lambda: np.ones(size, np.uint8))
    if found is None:
        pytest.skip("the system does not reset peaks")
    assert 0.95 * size < found < 1.2 * size  # the kernel counts pages in batches
    assert cases("peak").peak_growth(lambda: None) < size / 8


def test_tables(cases):
    found = cases("report").contest_measures(
        {(1, 100): timed(cases, lrt=[1e-3] * 6, bayesian_torch=[0.3] * 6)}
    )
    ends = {"low": None, "high": None}
    others = [
        {"name": "draws_per_second.rows.normal8", "value": 2e8, "unit": "1/s"},
        {"name": "planned_cost.digits.draws", "value": 0.92, "unit": ""},
    ]
    record = {
        "preset": "smoke", "device": "cpu, 1 core", "versions": {"jax": "0.10.2"},
        "notes": ["a | b"],
        "measures": [*(vars(m) for m in found), *(m | ends for m in others)],
    }  # fmt: skip
    table = runpy.run_path(str(pages.ROOT / "docs" / "bnn_tables.py"))["bnn_benchmark"]
    lines = table(record).splitlines()
    assert "| time of bayesian-torch over it | at least 250 | 300 [300, 300] |" in lines
    assert "| 1 x 100 | 1 ms | 300 ms |" in lines
    assert "| 1 x 100 | 300 [300, 300] |" in lines
    assert "| `dm_bnn.normal8` | 200 |  |  |" in lines
    assert "| digits | draws | 0.92 |  |  |" in lines
    assert "- a \\| b" in lines and lines[-1].startswith("Made by `python benchmarks/b")


def test_noise_is_handed_to_the_peers_in_their_order(cases):
    """Both peers with the noise of jeff's voters, and both flipouts with the same."""
    for name in ("bayesian_torch", "blitz"):
        pytest.importorskip(name, reason=f"{name} is a peer, not installed")
    subject = cases("subject")
    posterior = subject.random_posterior(0, (5, 16, 12, 3))
    x = subject.inputs(0, 3, 5)
    with cases("peers").Peers(sys.executable, posterior, x, 0) as peers:
        found = cases("agreement").differences(posterior, peers, 0)
    assert sorted(found) == peers.names and max(found.values()) < 1e-5
