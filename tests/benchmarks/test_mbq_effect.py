"""The effect study's tables, tests and report, without running a method."""

import dataclasses
import importlib
import json
import math
import runpy

import numpy as np
import pytest
from scipy import stats
from support import pages

from jeff import io

pytestmark = pages.in_checkout


@pytest.fixture(scope="module")
def study():
    """A function that gives a script of ``benchmarks`` as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(pages.ROOT / "benchmarks"))
        yield importlib.import_module


def test_every_cell_of_the_plans_is_a_valid_call(study):
    methods = study("mbq_effect_methods")
    known = methods.METHODS | methods.ABLATIONS
    for plan in methods.PLANS.values():
        for setting, names in plan.items():
            for name in names:
                config = methods.config(methods.SETTINGS[setting], known[name])
                assert config.weights.bits == int(setting[1])


def test_the_family_has_the_size_of_the_protocol(study):
    methods = study("mbq_effect_methods")
    sizes = {
        model: sum(len(methods.comparisons(names)) for names in plan.values())
        for model, plan in methods.PLANS.items()
    }
    assert sizes == {"embedded": 26, "smollm2": 10}
    page = (pages.ROOT / "docs" / "mbq_effect.md").read_text()
    assert "26 for *embedded* and 10 for *smollm2*" in page


def test_holm_by_hand(study):
    holm = study("mbq_effect_statistics").holm
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.5 x 1; made monotone.
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.9, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_a_comparison_is_the_paired_t_test(study):
    statistics = study("mbq_effect_statistics")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6, 12))
    images = np.repeat([0, 1, 2, 3], 3)
    found = statistics.compare(a, b, images)
    by_seed = stats.ttest_rel(a.mean(1), b.mean(1))
    assert found.p_seeds == pytest.approx(by_seed.pvalue)
    assert found.seeds.value == pytest.approx((a - b).mean())
    by_image = (a - b).mean(0).reshape(4, 3).mean(1)
    assert found.p_images == pytest.approx(stats.ttest_1samp(by_image, 0.0).pvalue)
    assert found.images.trials == 4
    wilcoxon = stats.wilcoxon(a.mean(1), b.mean(1)).pvalue
    assert found.p_wilcoxon == pytest.approx(wilcoxon)


def test_a_method_without_seeds_stands_for_all(study):
    compare = study("mbq_effect_statistics").compare
    a = np.array([[1.0, 3.0], [2.0, 5.0]])
    found = compare(a, np.ones((1, 2)), np.array([0, 1]))
    assert found.seeds.value == pytest.approx(1.75) and found.one_sign


@pytest.mark.parametrize(
    ("many", "p_seeds", "p_images", "image_low", "one_sign", "said"),
    [
        (True, 0.001, 0.9, 0.1, False, "more"),
        (True, 0.001, 0.001, -0.1, True, "not shown"),  # images disagree
        (True, 0.2, 0.001, 0.1, True, "not shown"),
        (False, 0.9, 0.001, 0.1, True, "more"),
        (False, 0.001, 0.001, 0.1, False, "not shown"),  # seeds disagree
        (False, 0.001, 0.2, 0.1, True, "not shown"),
    ],
)
def test_what_may_be_said(study, many, p_seeds, p_images, image_low, one_sign, said):
    statistics, interval = study("mbq_effect_statistics"), study("jeff.evaluate")
    found = statistics.Comparison(
        seeds=interval.Interval(1.0, 0.5, 1.5, 20),
        images=interval.Interval(1.0, image_low, 2.0, 100),
        p_seeds=p_seeds,
        p_images=p_images,
        p_wilcoxon=1.0,
        one_sign=one_sign,
    )
    assert statistics.verdicts([found], many_seeds=many)[0][0] == said


def _cells(folder, study, *, seeds, skip=()):
    """Made-up cells of the embedded model's W3: MBQ loses 0.1 less than the rest."""
    methods = study("mbq_effect_methods")
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(5), 4)

    def cell(rise):
        losses = np.full(20, 0.5) + rise + 1e-3 * rng.normal(size=20)
        return {
            "losses": losses.tolist(), "right": [1] * 19 + [0], "text": [],
            "images": images.tolist(), "bytes": 100, "seconds": 1.0,
            "notes": ["a note"], "sensitivities": {},
        }  # fmt: skip

    (folder / "embedded.full.json").write_text(json.dumps(cell(0.0)))
    for name in methods.PLANS["embedded"]["w3"]:
        if name in skip:
            continue
        for seed in range(1 if name == "rtn" else seeds):
            rise = 0.2 if name.startswith("mbq") else 0.3
            file = folder / f"embedded.w3.{name}.{seed}.json"
            file.write_text(json.dumps(cell(rise)))


def _reported(tmp_path, study):
    settings = study("mbq_effect").Settings(
        out=tmp_path, record=tmp_path / "record.json", figures=tmp_path
    )
    study("mbq_effect_report").write(settings)
    return io.read_result(tmp_path / "record.json")


def test_the_report_of_complete_cells(study, tmp_path):
    _cells(tmp_path, study, seeds=20, skip=["mbq_mse"])
    record = _reported(tmp_path, study)
    found = {m["name"]: m for m in record["measures"]}
    assert found["embedded.w3.loss_increase.rtn"]["low"] is None
    gain = found["embedded.w3.mbq_minus_awq"]
    assert gain["value"] == pytest.approx(-0.1, abs=2e-3) and gain["trials"] == 20
    assert gain["low"] < gain["value"] < gain["high"] < 0
    assert found["embedded.w3.mbq_minus_awq.shown"]["value"] == -1
    assert found["embedded.w3.mbq_gptq_minus_mbq.shown"]["value"] == 0
    assert "embedded.w3.loss_increase.mbq_mse" not in found
    assert (
        "embedded.w3.mbq_mse: not run for all seeds, not reported." in record["notes"]
    )
    assert "smollm2: not run." in record["notes"]
    figure = (tmp_path / "mbq_effect_embedded.svg").read_text()
    assert figure.count("MBQ + GPTQ") == 1 and "W3, groups of 128" in figure

    tables = runpy.run_path(str(pages.ROOT / "docs" / "effect_tables.py"))
    text = tables["effect"](record)
    assert "| embedded | w3 | `mbq` minus `awq` | -0.1" in text
    assert "| loses less |" in text and "`mbq_clip` |" in text
    short = tables["effect_summary"](record)
    assert "- embedded, w3: `mbq` loses less than `awq`, -0.1" in short
    assert "The other 1 comparisons" in short or "The other 2 comparisons" in short


def test_a_setting_with_a_missing_seed_is_not_reported(study, tmp_path):
    _cells(tmp_path, study, seeds=19)
    record = _reported(tmp_path, study)
    assert "embedded.w3: not run for all seeds, not reported." in record["notes"]
    assert not any(".w3." in m["name"] for m in record["measures"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ("tiny",)}, "models must be of embedded, smollm2: tiny"),
        ({"settings": ("w5",)}, "settings must be of w3, .*: w5"),
        ({"smollm2_seeds": 1}, "smollm2_seeds must be at least 2 for intervals: 1"),
    ],
)
def test_settings_that_cannot_be(study, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        study("mbq_effect").Settings(out=tmp_path, **change)


def test_cells_come_in_the_order_of_the_protocol(study, tmp_path):
    script = study("mbq_effect")
    settings = script.Settings(out=tmp_path, embedded_seeds=2)
    cells = list(script.cells(settings, "embedded"))
    assert len(cells) == len(set(cells))
    assert cells[0] == ("embedded.w3", "rtn", 0)
    ablations = [name in study("mbq_effect_methods").ABLATIONS for _, name, _ in cells]
    assert ablations == sorted(ablations) and any(ablations)
    rounded = [seed for _, name, seed in cells if name == "rtn"]
    assert rounded == [0] * 5


def test_a_run_goes_on_with_the_cells_that_are_missing(study, tmp_path, monkeypatch):
    script = study("mbq_effect")
    settings = script.Settings(
        out=tmp_path, models=("embedded",), embedded_seeds=2, settings=("w4a8",)
    )
    done: list[tuple[str, str, int]] = []

    def run(stop):
        def cell(subject, *which):
            if len(done) == stop:
                raise KeyboardInterrupt
            done.append(which)
            return {"losses": [0.5], "right": [1]}

        monkeypatch.setattr(script, "run_cell", cell)
        script.run_model(settings, "embedded")

    class Nothing:
        params, notes = None, ()

    monkeypatch.setattr(script, "load", lambda settings, model: Nothing)
    monkeypatch.setattr(script, "judged", lambda *_: {})
    with pytest.raises(KeyboardInterrupt):
        run(stop=5)
    run(stop=None)
    assert done == list(script.cells(settings, "embedded"))


def test_perplexity_is_of_the_mean_over_tokens(study):
    full = {"losses": [0.5], "right": [1], "text": [math.log(4.0), math.log(16.0)]}
    measures = study("mbq_effect_report").full_measures("smollm2", full)
    assert measures[-1].name == "smollm2.full.perplexity"
    assert measures[-1].value == pytest.approx(8.0)


def test_the_committed_projector_is_that_of_its_record(study):
    vlm = study("smollm2_vlm")
    if not vlm.PROJECTOR.exists():
        pytest.skip("the projector is not beside the scripts")
    projector = vlm.load_projector()
    assert {n: x.shape for n, x in projector.items()} == {
        "kernel": (112, 576),
        "bias": (576,),
    }
    record = io.read_result(vlm.PROJECTOR.with_suffix(".json"))
    settings = study("train_smollm2_projector").Settings()
    told = dataclasses.asdict(settings)
    assert record["settings"] == {k: told[k] for k in record["settings"]}
