import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jeff import program
from jeff.data import embedded
from jeff.evaluate import NoProgress
from jeff.mbq.report import GroupReport, Report
from jeff.mbq.study import data as study_data
from jeff.mbq.study import report as study_report
from jeff.mbq.study import study
from jeff.mbq.study.report import FULL, Answers
from jeff.mbq.study.study import STUDY, MBQSettings, answer_loss
from jeff.models import pretrained

TINY = MBQSettings(trials=2, grid=2, calibration_questions=4, held_out_questions=16)

# Followed over time under exactly these names.
NAMES = [
    *(f"w3_loss_increase.{m}" for m in ("rtn", "awq", "mbq")),
    *(f"w4a8_loss_increase.{m}" for m in ("rtn", "smoothquant", "mbq")),
    *(f"w3_accuracy.{m}" for m in ("full", "rtn", "awq", "mbq")),
    "block_bytes.full",
    "block_bytes.w3",
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_bits": 5}, "weight_bits must be 2, 3, 4 or 8: 5"),
        ({"group_size": 0}, "group_size must be at least 1: 0"),
        ({"grid": -1}, "grid must be at least 1: -1"),
        ({"trials": 1}, "trials must be at least 2 for intervals: 1"),
        ({"calibration_questions": 0}, r"calibration_questions must be in \[1, 1467\]"),
        ({"held_out_questions": 2949}, "as many as are embedded: 2949"),
    ],
)
def test_settings_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        MBQSettings(**change)


@pytest.mark.parametrize("value", [2.0, "3", True, None])
def test_settings_are_integers(value):
    with pytest.raises(TypeError, match=f"trials must be an integer: {value!r}"):
        MBQSettings(trials=value)


def test_the_settings_know_how_many_questions_there_are():
    data = embedded.load_vqa()
    assert study._EMBEDDED == {
        "calibration_questions": len(data.calibration.answers),
        "held_out_questions": len(data.test.answers),
    }


def test_the_default_preset_has_five_seeds_or_more():
    assert next(iter(STUDY.presets)) == "default"
    assert STUDY.presets["default"].trials >= 5


def test_a_group_size_that_does_not_divide_names_the_layer_before_the_slow_part():
    class Nothing(NoProgress):
        def stage(self, name, total):
            raise AssertionError(f"started to {name}")

    settings = dataclasses.replace(TINY, group_size=100)
    message = (
        r"layer 'layers\.attention\.query\.kernel': group_size 100 does not divide"
    )
    with pytest.raises(ValueError, match=message):
        study.run(settings, key_seed=0, progress=Nothing())


class _Counts(NoProgress):
    def __init__(self):
        self.stages = []

    def stage(self, name, total):
        self.stages.append([name, total, 0])

    def advance(self, steps=1):
        self.stages[-1][2] += steps


@pytest.mark.slow
def test_a_tiny_run_has_the_agreed_measures_and_the_same_seed_gives_the_same(
    monkeypatch,
):
    # One program for both runs, so that what the first compiles serves the second.
    pair = program.functional(pretrained.load_tiny_vlm())
    monkeypatch.setattr(study.program, "functional", lambda model: pair)
    progress = _Counts()
    outcome = study.run(TINY, key_seed=3, progress=progress)
    assert study.run(TINY, key_seed=3, progress=NoProgress()) == outcome
    names = [name for name, *_ in progress.stages]
    assert names == ["look at the images", "calibrate, quantize, ask"]
    assert all(total == done for _, total, done in progress.stages)

    assert [m.name for m in outcome.measures] == NAMES
    by_name = {m.name: m for m in outcome.measures}
    for name, m in by_name.items():
        if name.startswith("block_bytes"):
            continue
        assert m.low <= m.value <= m.high and m.trials == TINY.trials
        assert m.unit == ("fraction" if "accuracy" in name else "nats")
        assert (m.paper is not None) == ("accuracy" in name)
    # Four blocks of 4 x 128 x 128 and 3 x 128 x 256 weights; a group of 128 takes 48
    # bytes of codes, 2 of scale and 1 of zero point.
    weights = 4 * (4 * 128 * 128 + 3 * 128 * 256)
    assert by_name["block_bytes.full"].value == 2 * weights
    assert by_name["block_bytes.w3"].value == weights // 128 * 51
    assert set(outcome.figures) == {"loss_by_method", "sensitivity", "error_histogram"}
    assert len(outcome.notes) == 2 + 4 and len(outcome.tables[0].rows) == 4 * 4


def test_answer_loss_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]]))
    loss = answer_loss(logits, jnp.array([1, 2]))
    np.testing.assert_allclose(loss, [np.log(4), np.log(4 / 3)], rtol=1e-6)


def test_draws_are_different_questions_with_their_own_answers():
    rows = np.arange(20)
    part = study_data.Questions(rows[:, None, None], rows[:, None], rows)
    drawn = part.draw(np.random.default_rng(0), 12)
    assert len(set(drawn.answers)) == 12
    assert (drawn.vision[:, 0, 0] == drawn.answers).all()
    assert (drawn.tokens[:, 0] == drawn.answers).all()


# The report, from made-up answers.


def _report(**changes):
    group = GroupReport(
        block=0,
        sites=("layers.mlp.up.kernel",),
        inspect="",
        fold=("layers.mlp_norm.scale",),
        exponent=0.25,
        ratios={"vision": 0.5, "language": 1.0},
        losses=np.zeros(2),
        scale=np.ones(2),
        change=1e-7,
        note="",
    )
    values = {
        "groups": (
            group,
            group._replace(fold=(), exponent=np.nan, ratios={}, note="n"),
        ),
        "sensitivities": {"layers.mlp.down.kernel": {"vision": np.array([1.0, 0.0])}},
        "notes": (),
        "dense_bytes": 200,
        "stored_bytes": 50,
    }
    return Report(**{**values, **changes})


def _outcome(increase, **changes):
    """Two trials of four questions; `increase` per method, the same in both."""
    full = Answers(np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, True, True, False]))
    trials = []
    for noise in (0.0, 0.01):
        trial = {FULL: full}
        for method, worse in increase.items():
            losses = full.losses + worse + noise
            trial["w3", method] = Answers(losses, full.correct & (losses < 3))
        trials.append(trial)
    runs = {"w3": tuple(increase)}
    return study_report.outcome(
        trials, runs, _report(**changes), claims={"rtn": "x"}, about="About."
    )


def test_increases_are_paired_with_full_precision():
    outcome = _outcome({"rtn": 0.5, "mbq": 0.25})
    values = {m.name: m.value for m in outcome.measures}
    assert values["w3_loss_increase.rtn"] == pytest.approx(0.505)
    assert values["w3_loss_increase.mbq"] == pytest.approx(0.255)
    assert values["w3_accuracy.full"] == 0.75 and values["w3_accuracy.mbq"] == 0.5
    papers = {m.name: m.paper for m in outcome.measures}
    assert papers["w3_accuracy.rtn"] == "x" and papers["w3_accuracy.mbq"] is None
    assert values["block_bytes.full"] == 200 and values["block_bytes.w3"] == 50


@pytest.mark.parametrize(
    ("mbq", "verdict"),
    [(0.25, "MBQ loses less"), (0.75, "MBQ loses more"), (0.5, "no difference shown")],
)
def test_the_notes_say_who_loses_less(mbq, verdict):
    notes = _outcome({"rtn": 0.5, "mbq": mbq}).notes
    assert notes[0] == "About." and notes[-1].endswith(f"{verdict}.")


def test_what_the_method_notes_is_passed_on():
    notes = _outcome({"mbq": 0.1}, notes=("2 groups are clipped",)).notes
    assert notes[-1] == "w3: 2 groups are clipped"


def test_groups_that_were_not_scaled_say_why():
    scaled, not_scaled = _outcome({"mbq": 0.0}).tables[0].rows
    assert scaled == ("0", "up", "mlp_norm.scale", 0.25, 0.5, 1e-7)
    assert not_scaled == ("0", "up", "n", None, None, 1e-7)


def test_zero_sensitivities_are_not_drawn():
    figure = _outcome({"mbq": 0.1}).figures["sensitivity"]
    assert figure.series[0].name == "vision, down" and figure.series[0].x == (0,)
    assert "sensitivity" not in _outcome({"mbq": 0.1}, sensitivities={}).figures


def test_every_question_is_in_the_histogram_also_of_an_exact_method():
    for increase in ({"rtn": 0.3, "mbq": 0.0}, {"rtn": 0.0, "mbq": 0.0}):
        figure = _outcome(increase).figures["error_histogram"]
        assert [sum(s.y) for s in figure.series] == [4, 4]
