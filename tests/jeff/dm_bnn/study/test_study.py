"""`jeff run dm-bnn` at tiny size: agreed names, sentences that follow the numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import prng
from jeff.dm_bnn.study import STUDY, answers, faults, sentences, study, subject
from jeff.dm_bnn.study.answers import ece_if_calibrated
from jeff.dm_bnn.study.settings import IMAGES, DMBNNSettings
from jeff.evaluate import Measure, NoProgress, brier, ece
from jeff.models import digits_mlp

TINY = DMBNNSettings(
    tree=(3, 2, 1),
    pilot=(3, 2, 2),
    pilots=2,
    pilot_images=40,
    repeats=6,
    rates=(1e-5, 1e-3),
    devices=2,
    device_images=100,
    device_voters=2,
)

# Followed over time under exactly these names.
AGREED = [
    *(f"multiplications.{scheme}" for scheme in ("standard", "hybrid", "dm")),
    *(f"effective_voters.{scheme}" for scheme in ("standard", "dm")),
    "max_difference.naive_dm",
    "accuracy",
    "ece",
    *(f"milliseconds.{mode}" for mode in ("naive", "hybrid", "lrt")),
]


class _Counts(NoProgress):
    def __init__(self):
        self.stages = []

    def stage(self, name, total):
        self.stages.append([name, total, 0])

    def advance(self, steps=1):
        self.stages[-1][2] += steps


@pytest.fixture(scope="module")
def ran():
    progress = _Counts()
    return study.run(TINY, key_seed=3, progress=progress), progress.stages


@pytest.fixture(scope="module")
def values(ran):
    return {m.name: m for m in ran[0].measures}


def test_the_agreed_measures_are_there(values):
    assert set(AGREED) <= set(values)


def test_all_steps_that_are_announced_are_done(ran):
    names = [name for name, *_ in ran[1]]
    assert names == [
        "grow pilot trees", "compile", "draw voters", "ask the voters", "flip bits",
    ]  # fmt: skip
    assert all(total == done for _, total, done in ran[1])


def test_the_same_seed_gives_the_same_but_for_times(ran):
    def numbers(outcome):
        return [m for m in outcome.measures if not m.name.startswith("milliseconds")]

    again = study.run(TINY, key_seed=3, progress=NoProgress())
    assert numbers(again) == numbers(ran[0])
    assert again.tables == ran[0].tables


def test_products_are_those_of_the_formulas(values):
    sizes = [
        n * m for n, m in zip(digits_mlp.SIZES, digits_mlp.SIZES[1:], strict=False)
    ]
    first, second, third = sizes
    voters = 6
    assert values["multiplications.standard"].value == 2 * voters * sum(sizes)
    assert values["multiplications.hybrid"].value == (
        (voters + 2) * first + 2 * voters * (second + third)
    )
    # Tree (3, 2, 1): R (t + 2) M N on every level.
    assert values["multiplications.dm"].value == (
        5 * first + 3 * 4 * second + 6 * 3 * third
    )


def test_a_tree_is_worth_less_than_independent_voters(values):
    assert values["effective_voters.standard"].value == 6
    assert 1 < values["effective_voters.dm"].value < 6
    assert values["effective_voters.dm"].trials == TINY.pilots


def test_the_notes_say_how_it_was_compiled(ran):
    notes = " ".join(ran[0].notes)
    assert "optimization level 1" in notes and "Compiled as usual" not in notes


def test_naive_and_dm_are_the_same_voters(values):
    assert 0 < values["max_difference.naive_dm"].value < 1e-5


def test_six_voters_read_digits_and_doubt_noise(values):
    assert values["accuracy"].value > 0.95 and values["ece"].value < 0.06
    for kind in ("rotated", "uniform"):
        for name in ("mutual_information", "entropy"):
            area = values[f"auroc.{kind}.{name}"]
            assert area.low <= area.value <= area.high
            assert area.value > area.baseline  # of the twin


def test_proper_scores_are_those_of_the_predictions(values):
    """The same digits and key again: equal mass and Brier score of both networks."""
    found = subject.load(np.random.default_rng(3))
    key = prng.named_key(jax.random.key(3), "answers")
    said = answers.ask(found, TINY, key)
    labels = jnp.asarray(found.labels)
    for name, probs in (
        ("", said.bayesian.probs[0]),
        (".deterministic", said.deterministic.probs[0]),
    ):
        score, error = values[f"brier{name}"], values[f"ece_equal_mass{name}"]
        assert score.value == pytest.approx(float(brier(probs, labels)), rel=1e-5)
        assert score.low < score.value < score.high and score.trials == IMAGES
        expected = float(ece(probs, labels, mass="equal"))
        assert error.value == pytest.approx(expected, rel=1e-5)
        assert error.value != values[f"ece{name}"].value
    twin = values["brier.deterministic"].value
    assert values["brier"].baseline == twin


def test_the_harm_of_each_kind_of_word_is_in_the_record(ran, values):
    """All five lines of the table, of the same devices, at every rate."""
    table = ran[0].tables[1]
    for row in table.rows[1:]:
        for name, cell in zip(faults.NETWORKS, row[1:], strict=True):
            m = values[f"faulty_accuracy.{name}.{row[0]}"]
            assert cell.startswith(f"{m.value:.1%} ") and m.trials == TINY.devices
    # A device whose means are not hit is the better one.
    assert (
        values["faulty_accuracy.only_stds.1e-3"].value
        > values["faulty_accuracy.bayesian.1e-3"].value
    )


def test_flips_do_harm(values):
    for network in ("bayesian", "deterministic"):
        few = values[f"faulty_accuracy.{network}.1e-5"]
        many = values[f"faulty_accuracy.{network}.1e-3"]
        assert many.value < 0.6 < few.value and few.trials == TINY.devices
    gain = values["faulty_accuracy_gain.1e-3"]
    assert gain.value == pytest.approx(
        values["faulty_accuracy.bayesian.1e-3"].value
        - values["faulty_accuracy.deterministic.1e-3"].value
    )


def test_what_is_drawn(ran):
    outcome = ran[0]
    assert set(outcome.figures) == {
        "cost_per_effective_voter", "accuracy_under_bit_flips", "reliability",
        "mutual_information", "milliseconds",
    }  # fmt: skip
    drawn = outcome.figures["mutual_information"].series
    assert [sum(s.y) for s in drawn] == [IMAGES] * 3
    assert [len(t.rows[0]) == len(t.columns) for t in outcome.tables] == [True, True]
    assert "tree 3x2x1" in " ".join(outcome.notes)


def test_the_presets():
    assert next(iter(STUDY.presets)) == "default"
    default, full = STUDY.presets["default"], STUDY.presets["full"]
    assert full.devices > default.devices and full.device_images == IMAGES
    assert len(digits_mlp.split()[1].labels) == IMAGES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tree": (10, 10)}, r"tree must have 3 levels: \(10, 10\)"),
        ({"tree": (1, 1, 1)}, "tree must have two voters or more"),
        ({"pilot": (8, 1, 4)}, "pilot must be at least 2: 1"),
        ({"pilots": 1}, "pilots must be at least 2: 1"),
        ({"repeats": 5}, "repeats must be at least 6: 5"),
        ({"repeats": 601}, "repeats must be at most 600: 601"),
        ({"pilot_images": 601}, "pilot_images must be at most 600: 601"),
        ({"device_images": 150}, "device_images must be a multiple of 100: 150"),
        ({"rates": (1e-3, 1e-4)}, r"rates must rise within \(0, 1\]"),
        ({"rates": (0.0, 1e-4)}, r"rates must rise within \(0, 1\]"),
        ({"rates": ()}, r"rates must rise within \(0, 1\]"),
        ({"words": "int8"}, "words must be one of .*: 'int8'"),
    ],
)
def test_settings_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


@pytest.mark.parametrize("value", [2.0, True, "8"])
def test_settings_are_whole(value):
    with pytest.raises(TypeError, match=f"devices must be whole: {value!r}"):
        dataclasses.replace(TINY, devices=value)


def test_the_calibration_error_of_chance_is_that_of_drawn_labels():
    probs = jax.nn.softmax(3 * jax.random.normal(jax.random.key(0), (200, 4)))
    found = ece_if_calibrated(np.asarray(probs), np.random.default_rng(0), draws=400)
    keys = jax.random.split(jax.random.key(1), 400)
    labels = jax.vmap(lambda key: jax.random.categorical(key, jnp.log(probs), axis=-1))(
        keys
    )
    drawn = jax.vmap(lambda y: ece(probs, y))(labels)
    error = 4 * float(drawn.std()) / 20
    assert abs(found.mean() - float(drawn.mean())) < error
    assert abs(found.std() / float(drawn.std()) - 1) < 0.2


def _detected(value):
    return [Measure("auroc.uniform.entropy", value, "fraction", baseline=0.8)]


def test_the_sentences_say_when_the_twin_detects_better():
    assert "none is below" in sentences.about_detection(_detected(0.9))
    said = sentences.about_detection(_detected(0.7))
    assert "below the twin's entropy: auroc.uniform.entropy" in said


@pytest.mark.parametrize(
    ("milliseconds", "verdict"),
    [(1.0, "faster"), (50.0, "slower"), (10.0, "no gain shown")],
)
def test_the_sentences_say_what_was_faster(milliseconds, verdict):
    base = np.linspace(0.009, 0.011, 9)
    seconds = {name: base for name in ("naive", "hybrid", "naive_tree", "dm")}
    seconds["lrt"] = base / 10 * milliseconds
    said = sentences.about_speed(study.speed.Speed(seconds, 0.0), True)[-1]
    ratio = f"{10 / milliseconds:.2f}"
    assert said.endswith(
        f"against 10 ms, {ratio} times [{ratio}, {ratio}] as fast, {verdict}."
    )
    assert said.count("no gain shown") >= 2  # of what does not differ


@pytest.mark.parametrize(
    ("gap", "verdict"), [(20, "better"), (-20, "worse"), (0, "no difference shown")]
)
def test_the_sentences_say_who_survives(gap, verdict):
    twin = np.array([[95, 50], [95, 60], [95, 55]])
    noise = np.array([[0, 1], [0, -1], [0, 0]])
    counts = {
        "bayesian": twin + noise + [0, gap],
        "only_means": twin + noise,
        "only_stds": twin + [0, gap],
        "one_pass": twin,
        "deterministic": twin,
    }
    damage = study.faults.Damage((0.0, 1e-4), counts, 100)
    network, voting, training, words, rest = sentences.about_faults(damage)
    assert f"at 1e-4: {gap / 100:+.3f} " in network and network.endswith(f"{verdict}.")
    assert voting.endswith("no difference shown.")
    assert training.endswith("[+0.000, +0.000], the same on every device.")
    assert words.startswith("Accuracy under flips, flips of the standard deviations")
    assert f"at 1e-4: {gap / 100:+.3f} " in words and words.endswith(f"{verdict}.")
    assert rest.endswith("0.950 Bayesian, 0.950 twin.")


def test_verdicts_are_of_all_rates_together():
    """Better at either rate alone, not if both are looked at."""
    gaps = np.array([3, 5, 9, 3])[:, None]  # t = 3.5, p = 0.04
    twin = np.full((4, 3), 50)
    counts = dict.fromkeys(study.faults.NETWORKS, twin)
    counts["bayesian"] = twin + np.concatenate([0 * gaps, gaps, gaps], axis=1)
    damage = study.faults.Damage((0.0, 1e-4, 1e-3), counts, 100)
    assert "better" not in sentences.about_faults(damage)[0]
    one = study.faults.Damage(
        (0.0, 1e-4), {k: v[:, :2] for k, v in counts.items()}, 100
    )
    assert "better" in sentences.about_faults(one)[0]
