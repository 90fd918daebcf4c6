"""The benchmark of Bayesian networks: its cells, statistics, tables, and memory."""

import doctest
import importlib
import runpy
import sys

import jax.numpy as jnp
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


@pytest.mark.parametrize("name", ["contests", "generator_scores"])
def test_examples(cases, name):
    done = doctest.testmod(cases(name))
    assert done.attempted and not done.failed


class Missing:
    """No peer is there."""

    names = ()


def test_all_contenders_run_at_every_size(cases, monkeypatch):
    """All numbers of rows with all of voters; in each, all modes are timed."""
    contests = cases("contests")
    settings = contests.Settings((1, 2), (10, 20), 2, 0.0, 0)
    cells = contests.cells(settings)
    assert cells == [(1, 10), (2, 10), (1, 20), (2, 20)]
    asked = []

    def contender(mode, cell, x, posterior):
        asked.append((mode, cell, len(x)))
        return contests.Built(lambda: np.ones(9), 1.5, 72)

    monkeypatch.setattr(contests, "contender", contender)
    found = contests.measure(cells[-1], settings, None, Missing())
    assert asked == [(mode, (2, 20), 2) for mode in contests.MODES]
    assert tuple(found.seconds) == contests.MODES
    assert all(len(s) == 2 and min(s) > 0 for s in found.seconds.values())
    assert found.compiled_bytes == dict.fromkeys(contests.MODES, 72)
    assert found.compile_seconds == dict.fromkeys(contests.MODES, 1.5)


@pytest.mark.parametrize(("seconds", "expected"), [(0, 2), (35, 3), (1e9, 6)])
def test_rounds_fit_the_time(cases, monkeypatch, seconds, expected):
    """Two programs that take 4 and 6 seconds by a clock of our own: 10 a round."""
    contests, turns, clock = cases("contests"), [], [0.0]
    monkeypatch.setattr(contests.timing.time, "perf_counter", lambda: clock[0])

    def made(name, takes, products):
        def run():
            turns.append(name)
            clock[0] += takes

        return contests.timing.Program(None, run, products, 1, 0)

    programs = {"a": made("a", 4.0, 1), "b": made("b", 6.0, 2)}
    found = contests.rounds(programs, 6, seconds)
    np.testing.assert_allclose(found["a"], [4.0] * expected)
    np.testing.assert_allclose(found["b"], [3.0] * expected)
    assert "".join(turns) == ("ab" + "ba") * (expected // 2) + "ab" * (expected % 2)


@pytest.mark.parametrize(("once", "calls"), [(None, 2), (4.0, 0)])
def test_a_call_is_made_to_see_how_long_it_takes_if_unknown(
    cases, monkeypatch, once, calls
):
    contests, made, clock = cases("contests"), [], [0.0]
    monkeypatch.setattr(contests.time, "perf_counter", lambda: clock[0])

    def run():
        made.append(1)
        clock[0] += 4.0

    program = contests.program(run, 10.0, once)
    assert len(made) == calls and program.products == 3  # 12 s
    program.run()
    assert len(made) == calls + 3


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
    found, seconds = cases("peak").peak_growth(lambda: np.ones(size, np.uint8))
    if found is None:
        pytest.skip("the system does not reset peaks")
    assert 0.95 * size < found < 1.2 * size  # the kernel counts pages in batches
    assert 0 < seconds < 60
    assert cases("peak").peak_growth(lambda: None).nbytes < size / 8


@pytest.mark.parametrize(("seconds", "calls"), [(0.5, 3), (2.0, 2)])
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peaks_of_slow_calls_are_of_one_call(cases, monkeypatch, seconds, calls):
    peak, made = cases("peak"), []
    clock = iter(np.arange(8) * seconds)
    monkeypatch.setattr(peak.time, "perf_counter", lambda: next(clock))
    found = peak.peak_growth(lambda: made.append(1))
    if found.nbytes is None:
        pytest.skip("the system does not reset peaks")
    assert len(made) == calls and found.seconds == seconds


def test_a_system_without_peaks_still_says_how_long_a_call_takes(cases, monkeypatch):
    peak, made = cases("peak"), []
    monkeypatch.setattr(peak, "_PROCESS", pages.ROOT / "nowhere")
    found = peak.peak_growth(lambda: made.append(1))
    assert found.nbytes is None and found.seconds >= 0 and made


@pytest.fixture(scope="module")
def by_generator(cases):
    """Scores by normal numbers, and by draws that are all 3."""
    scores = cases("generator_scores")

    def three(key, count):
        del key
        return jnp.full(count, 3.0)

    generators = {"normal32": cases("generators").GENERATORS["normal32"], "bad": three}
    return scores.measure(scores.Settings(2, 3, 4, 0), generators)


def test_a_bad_generator_is_told_from_a_good_one(cases, by_generator):
    scores = cases("generator_scores")
    assert list(by_generator) == ["normal32", "normal32_again", "bad"]
    good, again, bad = by_generator.values()
    assert good.accuracy.min() > 0.95 > 0.9 > bad.accuracy.max()
    assert len(set(bad.nll)) == 1 and bad.nll[0] > good.nll.max()  # one voter, always
    assert len(set(good.nll) | set(again.nll)) == 7  # sets of voters
    found = {m.name: m for m in scores.score_measures(by_generator)}
    worse = found["accuracy_difference.bad.normal32"]
    apart = bad.accuracy.mean() - good.accuracy.mean()
    assert worse.value == pytest.approx(float(apart))
    assert worse.high < 0 and worse.trials == 3
    level = found["accuracy_difference.normal32_again.normal32"]
    assert level.low < 0 < level.high
    assert "accuracy_difference.normal32.normal32" not in found
    about, verdict = scores.notes(scores.Settings(2, 3, 4, 0), by_generator)
    assert "2 independent voters" in about and "over 3 sets of voters, of" in about
    assert f"bad by its accuracy, {-worse.value:.2%} below" in verdict


@pytest.mark.parametrize("sizes", [(4, 12), (24, 96)])
def test_an_interval_of_a_difference_covers_it(cases, sizes):
    """4,000 intervals of 95 %: four standard errors; variances of 1 and 4."""
    welch, rng = cases("generator_scores").welch, np.random.default_rng(0)
    found = [
        welch(rng.normal(1, 1, sizes[0]), rng.normal(0, 2, sizes[1]), 0.95)
        for _ in range(4000)
    ]
    covered = np.mean([low <= 1 <= high for _, low, high, _ in found])
    assert abs(covered - 0.95) < 4 * (0.95 * 0.05 / 4000) ** 0.5


def test_generators_that_differ_by_chance_are_not_told_apart(cases, by_generator):
    scores = cases("generator_scores")
    good, again, _ = by_generator.values()
    said = scores.verdict({"normal32": good, "other": again})
    assert said.startswith("Of no generator do accuracy, ece or nll differ")


def test_tables(cases):
    found = cases("report").contest_measures(
        {(1, 100): timed(cases, lrt=[1e-3] * 6, bayesian_torch=[0.3] * 6)}
    )
    ends = {"low": None, "high": None}
    others = [
        {"name": "draws_per_second.rows.normal8", "value": 2e8, "unit": "1/s"},
        {"name": "planned_cost.digits.draws", "value": 0.92, "unit": ""},
        {"name": "output_difference.blitz", "value": 6.07e-7, "unit": ""},
        {"name": "accuracy.normal32", "value": 0.98, "unit": "fraction"},
        {"name": "ece.normal32", "value": 0.02, "unit": "fraction"},
        {"name": "nll.normal32", "value": 0.05, "unit": "nats"},
    ]
    record = {
        "preset": "smoke", "device": "cpu, 1 core", "versions": {"jax": "0.10.2"},
        "notes": ["a | b"],
        "measures": [*(vars(m) for m in found), *(m | ends for m in others)],
    }  # fmt: skip
    table = runpy.run_path(str(pages.ROOT / "docs" / "bnn_tables.py"))["bnn_benchmark"]
    lines = table(record).splitlines()
    assert "| time of bayesian-torch over it | at least 250 | 300 [300, 300] |" in lines
    assert "| 1 x 100 | 6 | 1 ms | 300 ms |" in lines  # of six rounds
    assert "| 1 x 100 | 6 | 300 [300, 300] |" in lines
    assert "| 1 x 100 | 4 B |" in lines  # as compiled
    assert "| LRT | 1.00 s to 1.00 s |" in lines
    assert "| blitz | 6.1e-07 |" in lines
    assert "| `dm_bnn.normal8` | 200 |  |  |" in lines
    own = "| `jax.random.normal`, float32 | 98 % |  | 2 % |  | 0.05 nats |  |"
    assert own in lines
    assert "| digits | draws | 0.92 |  |  |" in lines
    assert any(line.startswith("- Goals: LRT takes 1 ms [1, 1] for") for line in lines)
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
