"""The statistics of campaigns: enumeration against simulation, the record, the page."""

import concurrent.futures
import doctest
import importlib
import inspect
import re
import runpy

import numpy as np
import pytest
from support import pages

from jeff import io
from jeff.evaluate import wilson
from jeff.sweep import Margin, allocate, best_proposal, stratified_variance

pytestmark = pages.in_checkout


@pytest.fixture(scope="module")
def benchmarks():
    """A function that gives a module of ``benchmarks``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(pages.ROOT / "benchmarks"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def cases(benchmarks):
    return lambda name: benchmarks(f"statistics_cases.{name}")


@pytest.fixture(scope="module")
def record():
    return io.read_result(
        pages.ROOT / "benchmarks" / "records" / "campaign_statistics.json"
    )


@pytest.fixture(scope="module")
def found(record):
    return {m["name"]: m for m in record["measures"]}


@pytest.mark.parametrize("name", ["measures", "stopping"])
def test_examples(cases, name):
    done = doctest.testmod(cases(name))
    assert done.attempted and not done.failed


@pytest.mark.parametrize("rate", [0.02, 0.5])
def test_looks_are_enumerated_as_they_would_be_simulated(cases, rate):
    """20 looks every 50 injections: 4 standard deviations of 20,000 campaigns."""
    unit, looks = 50, 20
    exact = cases("stopping").missed_at_some_look(
        rate, unit, looks, lambda k, look: wilson(k, unit * look)
    )
    counts = np.random.default_rng(0).binomial(unit, rate, (20_000, looks)).cumsum(1)
    missed = np.zeros(len(counts), bool)
    for look in range(1, looks + 1):
        every = [wilson(k, unit * look) for k in range(unit * look + 1)]
        low, high = np.array([i[1:3] for i in every]).T
        here = counts[:, look - 1]
        missed |= (rate < low[here]) | (rate > high[here])
    assert abs(missed.mean() - exact) < 4 * np.sqrt(exact * (1 - exact) / len(counts))


def test_a_rule_stops_on_average_where_it_is_simulated_to(cases):
    """A margin of 0.1 at a rate of 0.1, looks every 20: 4 standard errors."""
    rate, unit = 0.1, 20
    rule = Margin(margin=0.1, count="changed")
    mean, missed = cases("stopping").when_it_stops(rate, unit, rule)
    rng, used, wrong = np.random.default_rng(1), [], []
    for _ in range(1000):
        values, look = np.empty((0, 2)), 0
        while not look or not rule.decide(values, look):
            look += 1
            values = np.append(values, [[rng.binomial(unit, rate), unit]], axis=0)
        _, low, high, trials = rule.interval(values, look)
        used.append(trials)
        wrong.append(not low <= rate <= high)
    assert abs(np.mean(used) - mean) < 4 * np.std(used) / np.sqrt(1000)
    assert len(set(used)) > 3  # so the line above says something
    assert 0 < missed < 0.05
    assert abs(np.mean(wrong) - missed) < 4 * np.sqrt(missed / 1000)


def test_devices_and_images_have_the_means_that_they_say(cases):
    rng = np.random.default_rng(2)
    for devices in cases("stopping").DEVICES.values():
        drawn = devices.draw(rng, 200_000)
        assert abs(drawn.mean() - devices.mean) < 4 * drawn.std() / np.sqrt(2e5)
    for mean, lost in cases("means").LOSSES.values():
        u = rng.random(200_000)
        assert abs(lost(u).mean() - mean) <= 4 * lost(u).std() / np.sqrt(2e5)
    for campaign in cases("means").IMAGES.values():
        drawn = [campaign.draw(rng) for _ in range(2000)]
        assert drawn[0].shape == (campaign.devices, campaign.images)
        means = np.mean(drawn, (1, 2))
        assert abs(means.mean() - campaign.mean) < 4 * means.std() / np.sqrt(2000)


def test_two_values_of_devices_by_hand(cases):
    """Student's interval of 4 devices misses where none fails; all fail in 0.01 %."""
    measures = cases("means").device_means("half", 4, (0.1,), seed=3, campaigns=2000)
    value = {m.name: m.value for m in measures}["means_missed.student_t.half.4.0.1"]
    # 0, 1 of 4: means 0.9 and 0.7875, mean of all devices 0.855. One that fails has a
    # standard error of 0.1125 and t = 3.18: it holds. Two and more do too.
    assert abs(value - 0.9**4) < 4 * np.sqrt(0.9**4 * (1 - 0.9**4) / 2000)


def test_the_net_is_the_one_of_the_page(cases):
    code, said = pages.example("docs/statistics.md")
    counts = cases("strata").net_kinds()
    assert counts[0].tolist() == [[512] * 8, [64] * 8]
    rate = counts[1].sum() / counts[0].sum()
    assert said.startswith(f"{counts[0].sum()} faults, event rate {rate:.4f}\n")
    own = inspect.getsource(cases("strata").net_kinds)
    for name in ("first", "last", "images"):  # is drawn alike
        draw = re.search(rf'"?{name}"?(?: =|:) (rng\..*)', code).group(1)
        assert draw in own


def test_what_known_rates_save(cases):
    counts = np.array([[[300] * 4, [100] * 4], [[0, 30, 150, 300], [10, 0, 50, 10]]])
    sizes, rates = counts[0].ravel(), counts[1].ravel() / counts[0].ravel()
    known = cases("strata").Kinds(counts, 400, 5).known()
    trials = allocate(sizes, 400, rates=rates.clip(0.02, 0.98))
    plain = (550 / 1600) * (1050 / 1600) / 400
    assert known["strata_known"] * plain == pytest.approx(
        stratified_variance(sizes, rates, trials)
    )
    by_bit = np.array([10, 30, 200, 310]) / 400
    q = best_proposal([0.25] * 4, by_bit)
    second = sum(0.25**2 / q[b] * by_bit[b] for b in range(4))
    assert known["importance_known"] * plain == pytest.approx(
        (second - (550 / 1600) ** 2) / 400
    )


def test_campaigns_are_unbiased_and_count_their_pilots(cases):
    kinds = cases("strata").Kinds(cases("strata").net_kinds(), 300, 5)
    for campaign, total in (
        (kinds.plain, 380),
        (kinds.proportional, 380),
        (kinds.piloted, 380),
        (kinds.importance, 340),
    ):
        rng = np.random.default_rng(4)
        done = [campaign(rng) for _ in range(400)]
        assert {injections for _, injections in done} == {total}
        values = np.array([interval.value for interval, _ in done])
        assert abs(values.mean() - kinds.rate) < 4 * values.std() / np.sqrt(400)


def test_the_record_is_what_the_script_gives(cases, found):
    """What is enumerated, to the last digits; a few simulated cases, in little."""
    for m in cases("stopping").looked_at(0.003) + cases("stopping").stopped(0.003, 500):
        assert found[m.name]["value"] == pytest.approx(m.value, rel=1e-9)
        assert found[m.name]["trials"] is None
    how = {"seed": 5, "campaigns": 300}
    again = [
        *cases("stopping").stopped_by_devices(
            "student_t", "rare_among_different", **how
        ),
        *cases("means").images("few_images_wrong", **how),
        *cases("strata").forty_strata(200, **how),
    ]
    for m in again:
        kept = found[m.name]
        wide = m.value * (1 - m.value) if m.unit == "fraction" else m.value**2
        assert abs(m.value - kept["value"]) <= 4 * np.sqrt(max(wide, 0.01) / 300)


def test_the_measures_do_not_depend_on_cores(benchmarks, cases, tmp_path, monkeypatch):
    """Of a few cheap cases, through threads in place of processes."""
    script = benchmarks("campaign_statistics")
    assert len(script.cases(0, 10)) == 10 + 8 + 10 + 3 + 3 + 2 + 6

    def few(seed, campaigns):
        how = {"seed": seed, "campaigns": campaigns}
        means, strata = (
            benchmarks(f"statistics_cases.{n}") for n in ("means", "strata")
        )
        return [
            lambda: means.images("both_vary", **how),
            lambda: strata.forty_strata(200, **how),
            lambda: means.device_means("skewed", 8, (0.1, 0.3), **how),
        ]

    def threads(workers, *how):
        return concurrent.futures.ThreadPoolExecutor(workers)

    monkeypatch.setattr(script, "cases", few)
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", threads)
    texts = []
    for cores in (1, 2):
        file = tmp_path / f"{cores}.json"
        script.main(script.Arguments(campaigns=20, seed=7, cores=cores, out=file))
        texts.append(io.read_result(file))
    assert texts[0]["measures"] == texts[1]["measures"]
    assert len(texts[0]["measures"]) == 3 + 2 + 4
    assert texts[0]["seed"] == 7 and texts[0]["settings"]["campaigns"] == 20


def test_what_the_page_says_of_the_record(record, found):
    """Sentences that have no number, but a direction."""

    def value(name):
        return found[name]["value"]

    for rate in record["settings"]["looked_at"]:
        assert value(f"looks_held.margin.{rate:g}") >= 0.95
        assert value(f"looks_held.wilson.{rate:g}") < 0.8
    for unit in record["settings"]["units"]:
        mean = [
            value(f"stop_injections.{unit}.{r:g}")
            for r in record["settings"]["stopped_at"]
        ]
        assert mean == sorted(mean)
        assert mean[1] < 9604 / 3 and mean[-1] > 3 * 9604  # at 0.01, at one half
    assert value("stop_injections.500.0.01") < value("stop_injections.100.0.01")
    assert found["stop_missed.student_t.rare_among_different"]["low"] > 0.05
    for name, m in found.items():
        if name.startswith("stop_missed.empirical_bernstein."):
            assert m["high"] < 0.05
        if name.startswith("images_held.any_images."):
            assert m["high"] > 0.95
        if name.startswith("images_held.devices."):
            assert m["high"] < 0.95
    for case in ("few_devices_fail", "few_images_wrong"):
        assert found[f"images_held.variance.{case}"]["high"] < 0.95
    # Small campaigns: no pilot. Large ones: a pilot. Known rates: better than both.
    strata = {
        way: {b: found[f"net_variance.strata_{way}.{b}"] for b in (300, 3000)}
        for way in ("proportional", "pilot", "known")
    }
    assert strata["proportional"][300]["high"] < strata["pilot"][300]["low"]
    assert strata["pilot"][3000]["high"] < strata["proportional"][3000]["low"]
    assert strata["known"][3000]["value"] < strata["pilot"][3000]["low"]
    assert found["strata_held.wilson.200"]["low"] > 0.98
    assert found["strata_held.textbook.200"]["high"] < 0.95


def test_tables(record):
    tables = runpy.run_path(str(pages.ROOT / "docs" / "statistics_tables.py"))
    part = tables["campaign_statistics"]
    page = (pages.ROOT / "docs" / "statistics.md").read_text()
    names = re.findall(r"<!-- results:campaign_statistics/(\w+) -->", page)
    assert sorted(names) == sorted([*tables["_PARTS"], "made"])
    for name in names:
        lines = part(record, name).splitlines()
        widths = {line.count("|") for line in lines if line.startswith("|")}
        assert len(widths) <= 1, name
    many = part(record, "devices").splitlines()
    assert [line.count("**") for line in many] == [0, 0, 0, 0, 0, 2]
    with pytest.raises(KeyError, match="'lucks'"):
        part(record, "lucks")
