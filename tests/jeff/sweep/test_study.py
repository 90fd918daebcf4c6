"""What a fault study hits, how it draws, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.evaluate import clopper_pearson, empirical_bernstein, student_t
from jeff.faults import on_weights
from jeff.io.folder_lock import folder_lock
from jeff.sweep import (
    FAULTS,
    Margin,
    Outcome,
    StudySettings,
    SweepResult,
    accuracy_curve,
    examples,
    execute,
    fit,
    look_level,
    prepare_study,
    processes,
    run_study,
    stored_as,
)
from jeff.sweep.study_settings import begin_parts
from jeff.sweep.targets import (
    expected_faults,
    feature_targets,
    how_to_draw,
    model_of_rate,
    weight_targets,
)
from jeff.sweep.unit import compiled


def scanned(p, x):
    h = x @ p["into"]
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), h, p["layers"])[0]


PARAMS = {"into": jnp.ones((5, 4)) / 9, "layers": jnp.ones((3, 4, 4)) / 7}
X = np.ones((6, 5), np.float32)


@pytest.fixture(scope="module")
def data():
    return examples(scanned, PARAMS, X, batch=6)


@pytest.mark.parametrize("name", ["bit-flip", "adsaf", "adsaf-cells"])
def test_named_faults_hit_as_often_as_they_say(name, key):
    """Faults that are drawn, within 4 standard errors of the expected number."""
    fault, params = FAULTS[name], {"w": jnp.zeros(4000)}
    targets = weight_targets(params)
    draw = how_to_draw(fault, [0.02], targets)
    model = model_of_rate(fault, draw, "weights", None)(0.02)
    drawn = jax.jit(model.sample)(key, params).leaves["w"]
    marks = [np.asarray(a) for a in jax.tree.leaves(drawn) if a.ndim]
    if name == "adsaf":  # a mark per cell, an array for each polarity
        hits = sum((m > 0).sum() for m in marks)
    else:  # a bit per cell, in the first array
        hits = np.bitwise_count(marks[0]).sum()
    expected = expected_faults(fault, 0.02, targets)
    assert abs(hits - expected) < 4 * expected**0.5


def test_sigmas_and_features_count_what_they_hit():
    targets = feature_targets(scanned, PARAMS, X)
    assert expected_faults(FAULTS["gaussian"], 0.1, targets) == 24 + 72
    assert expected_faults(FAULTS["gaussian"], 0.0, targets) == 0
    assert expected_faults(FAULTS["salt-and-pepper"], 0.5, targets) == 48
    how_to_draw(FAULTS["lognormal"], [0.1, 1e-12], weight_targets(PARAMS))  # no sampler


def test_targets_are_those_that_the_rules_hit():
    names = [t.name for t in weight_targets(PARAMS, "la")]
    hit = on_weights(FAULTS["bit-flip"].make(0.5, _draw(), 1), where="la")
    assert list(hit.sample(jax.random.key(0), PARAMS).leaves) == names == ["layers"]
    targets = feature_targets(scanned, PARAMS, X)
    assert [(t.name, t.elements, t.macs, t.times) for t in targets] == [
        ("into", 4, 5, 6), ("layers", 4, 4, 18),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="'inot' chooses no site; nearest: into"):
        feature_targets(scanned, PARAMS, X, "inot")


def _draw():
    return how_to_draw(FAULTS["bit-flip"], [0.5], weight_targets(PARAMS))


def test_a_map_of_features_leaves_out_loops(data):
    settings = StudySettings(
        fault="mibb", trials=2, unit=2, batch=6, map_trials=2, rates=(0.1,)
    )
    study = prepare_study(scanned, PARAMS, data, settings, jax.random.key(0))
    curve, mapped = study.parts
    assert study.left_out == ("layers",) and mapped.space.sites == ("into",)
    assert mapped.space.period == 6  # as many images as there are
    assert curve.faults == pytest.approx(
        2 * (24 * (1 - 0.9**5) + 72 * (1 - 0.9**4)), rel=1e-5
    )
    inside = StudySettings(fault="mibb", where="layers", map_trials=2, unit=2, batch=6)
    with pytest.raises(ValueError, match="all chosen ones lie in loops"):
        prepare_study(scanned, PARAMS, data, inside, jax.random.key(0))


@pytest.mark.parametrize("stored", ["dense", "float16", "int4"])
def test_stored_weights_give_nearly_the_same_answers(stored, data):
    params = {**PARAMS, "into": jnp.asarray(np.random.default_rng(0).random((5, 4)))}
    params = jax.tree.map(lambda a: a.astype(jnp.float32), params)
    held = stored_as(scanned, params, X, stored)
    bits = {t.name: t.bits for t in weight_targets(held)}
    assert set(bits.values()) == {{"dense": 32, "float16": 16, "int4": 4}[stored]}
    close = 0.1 if stored == "int4" else 0.01
    for name in params:
        dense = held[name] if stored == "dense" else held[name].decode()
        assert float(jnp.abs(dense - params[name]).max()) <= close
    if stored != "dense":
        again = held["into"].with_codes(held["into"].codes()).decode()
        assert bool((again == held["into"].decode()).all())


def test_what_cannot_be_stored_or_was_begun_otherwise(tmp_path):
    with pytest.raises(ValueError, match="no floating weight of a product"):
        stored_as(
            lambda p, x: x + p["b"], {"b": jnp.zeros(3)}, jnp.ones((2, 3)), "int8"
        )
    file = tmp_path / "curve.json"
    file.write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        begin_parts(tmp_path, {"curve": {}})


def test_a_part_is_compiled_once(data, tmp_path, monkeypatch):
    made = []

    def count(*args):
        made.append(args)
        return compiled(*args)

    for module in (fit, execute):
        monkeypatch.setattr(module, "compiled", count)
    settings = StudySettings(trials=2, unit=2, rates=(0.1,))
    arguments = (scanned, PARAMS, data, settings, jax.random.key(0))
    study = prepare_study(*arguments, directory=tmp_path, byte_budget=10**9)
    assert (
        len(made) == 1 and "1,000 MB, as was asked for" in study.parts[0].plan.explain()
    )
    first = run_study(study)
    assert len(made) == 1
    again = prepare_study(*arguments, directory=tmp_path)
    assert again.parts[0].plan.batch == 6 and run_study(again).curve == first.curve
    assert len(made) == 1  # the folder has its sizes and all units


def test_all_is_checked_before_anything_is_written(tmp_path):
    begin_parts(tmp_path, {"map": {"trials": 2}})
    with pytest.raises(ValueError, match="trials: the sweep in .* trials=2, now it is"):
        begin_parts(tmp_path, {"curve": {"trials": 4}, "map": {"trials": 3}})
    assert not (tmp_path / "curve.json").exists()
    with folder_lock(tmp_path), pytest.raises(OSError, match="another call is writing"):
        begin_parts(tmp_path, {"curve": {"trials": 4}})
    begin_parts(tmp_path, {"curve": {"trials": 4}, "map": {"trials": 2}})
    assert (tmp_path / "curve.json").exists()


def test_if_the_folder_is_refused_in_one_process_all_raise(data, tmp_path, monkeypatch):
    begin_parts(tmp_path, {"curve": {"trials": 99}})
    settings = StudySettings(trials=2, unit=2, batch=6, rates=(0.1,))
    arguments = (scanned, PARAMS, data, settings, jax.random.key(0))
    heard = []

    def exchange(said):  # what the other process hears
        heard.append(said)
        return [said]

    monkeypatch.setattr(processes, "exchange", exchange)
    with pytest.raises(ValueError, match="trials"):
        prepare_study(*arguments, directory=tmp_path)
    assert set(heard[:-1]) == {b"+"} and heard[-1].startswith(b"-ValueError: ")
    monkeypatch.setattr(processes, "exchange", lambda said: [heard.pop(0), said])
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(RuntimeError, match="process 0 failed: ValueError: .*trials"):
        prepare_study(*arguments, directory=tmp_path)


def test_golden_outputs_are_those_of_the_planned_batch(data):
    settings = StudySettings(trials=2, unit=2, batch=4, rates=(0.1,), map_trials=2)
    wrong = data._replace(golden=-data.golden, labels=None)
    study = prepare_study(scanned, PARAMS, wrong, settings, jax.random.key(0))
    close = np.testing.assert_allclose
    close(study.data.golden, data.golden, rtol=1e-6)
    assert study.golden_accuracy == 1.0
    for part in study.parts:
        close(part.ready.sweep.data.golden, data.golden, rtol=1e-6)
    given = prepare_study(
        scanned, PARAMS, wrong, settings, jax.random.key(0), golden_batch=4
    )
    assert given.data.golden is wrong.golden


def test_after_stopping_all_intervals_are_of_the_last_look():
    counts = np.random.default_rng(0).binomial(20, 0.3, (1, 1, 80))
    images = np.full_like(counts, 20)
    stats = Outcome(images, 20 - counts, counts, counts, 0 * counts, 0.0 * counts,
                    0 * counts)  # fmt: skip
    result = SweepResult(
        stats, np.array([0.5]), np.array([[80]]), None, {"unit": 16}, 0.0
    )
    level = look_level(5)
    for method, mean in (("student_t", student_t),
                         ("empirical_bernstein", empirical_bernstein)):  # fmt: skip
        stop = Margin(margin=0.1, count="changed", out_of="images", method=method)
        (point,) = accuracy_curve(result, stop=stop)
        shares = counts.ravel() / 20
        assert point.sdc == point.critical == mean(shares, level=level)
        assert point.accuracy == mean((20 - counts.ravel()) / 20, level=level)
    (point,) = accuracy_curve(result, stop=stop, independent=True)
    assert point.sdc == clopper_pearson(counts.sum(), 1600, level=level)


def test_accuracy_without_an_event_is_no_certainty():
    count = np.full((1, 1, 50), 10)
    stats = Outcome(count, count, *[0 * count] * 5)
    result = SweepResult(stats, np.array([0.0]), np.array([[50]]), None, {}, 0.0)
    (point,) = accuracy_curve(result)
    assert point.accuracy[:3] == pytest.approx((1.0, 1 - point.sdc.high, 1.0))
    assert point.sdc.high == pytest.approx(0.071, abs=1e-3)
