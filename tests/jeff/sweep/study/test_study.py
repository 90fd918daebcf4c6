"""Fault studies: what they plan, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import fault_nets

from jeff.sweep import (
    StudySettings,
    accuracy_any_images,
    examples,
    prepare_study,
    right_answers,
    run_study,
)
from jeff.sweep.engine import execute, processes
from jeff.sweep.planning import unit_size
from jeff.sweep.planning.unit import compiled
from jeff.sweep.study.settings import begin_parts


@pytest.fixture(scope="module")
def net():
    return fault_nets.scanned()


def test_a_map_of_features_leaves_out_loops(net):
    settings = StudySettings(
        fault="mibb", trials=2, unit=2, batch=6, map_trials=2, rates=(0.1,)
    )
    study = prepare_study(*net, settings, jax.random.key(0))
    curve, mapped = study.parts
    assert study.left_out == ("layers",) and mapped.space.sites == ("into",)
    assert mapped.space.period == 6  # as many images as there are
    assert curve.faults == pytest.approx(
        2 * (24 * (1 - 0.9**5) + 72 * (1 - 0.9**4)), rel=1e-5
    )
    inside = StudySettings(fault="mibb", where="layers", map_trials=2, unit=2, batch=6)
    with pytest.raises(ValueError, match="all chosen ones lie in loops"):
        prepare_study(*net, inside, jax.random.key(0))


def test_a_part_is_compiled_once(net, tmp_path, monkeypatch):
    made = []

    def count(*args):
        made.append(args)
        return compiled(*args)

    for module in (unit_size, execute):
        monkeypatch.setattr(module, "compiled", count)
    settings = StudySettings(trials=2, unit=2, rates=(0.1,))
    arguments = (*net, settings, jax.random.key(0))
    study = prepare_study(*arguments, directory=tmp_path, byte_budget=10**9)
    assert (
        len(made) == 1 and "1,000 MB, as was asked for" in study.parts[0].plan.explain()
    )
    first = run_study(study)
    assert len(made) == 1
    again = prepare_study(*arguments, directory=tmp_path)
    assert again.parts[0].plan.batch == 6 and run_study(again).curve == first.curve
    assert len(made) == 1  # the folder has its sizes and all units


def test_if_the_folder_is_refused_in_one_process_all_raise(net, tmp_path, monkeypatch):
    begin_parts(tmp_path, {"curve": {"trials": 99}})
    settings = StudySettings(trials=2, unit=2, batch=6, rates=(0.1,))
    arguments = (*net, settings, jax.random.key(0))
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


def test_golden_outputs_are_those_of_the_planned_batch(net):
    settings = StudySettings(trials=2, unit=2, batch=4, rates=(0.1,), map_trials=2)
    apply, params, data = net
    wrong = data._replace(golden=-data.golden, labels=None)
    study = prepare_study(apply, params, wrong, settings, jax.random.key(0))
    rows = study.parts[1].space.names  # a layer of the scan is a row of its own
    assert rows == ("into", "layers[0]", "layers[1]", "layers[2]")
    close = np.testing.assert_allclose
    close(study.data.golden, data.golden, rtol=1e-6)
    assert study.golden_accuracy == 1.0
    for part in study.parts:
        close(part.ready.sweep.data.golden, data.golden, rtol=1e-6)
    given = prepare_study(
        apply, params, wrong, settings, jax.random.key(0), golden_batch=4
    )
    assert given.data.golden is wrong.golden


def test_a_study_says_what_holds_for_new_images():
    apply, params, data = fault_nets.mlp()
    settings = StudySettings(
        trials=12, unit=12, batch=10, rates=(3e-3,), over="map"
    )  # fmt: skip
    study = prepare_study(apply, params, data, settings, jax.random.key(0))
    found = run_study(study)
    (point,) = found.curve
    right = right_answers(found.results["curve"].rate_point(0, 0), 10)
    assert 0 < right.mean() < 1
    assert point.any_images == accuracy_any_images(right.sum(1), right.sum(0))
    assert point.accuracy.value == pytest.approx(right.mean())
    low, high = point.any_images[1:3]
    assert low < point.accuracy.low and high > point.accuracy.high


def test_ranges_are_those_of_layers_scanned_or_written_out():
    """Cells of 8 bits round each layer to its own step, at rate 0 as well."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((3, 4, 4)).astype(np.float32)
    w *= np.array([30, 5, 1], np.float32)[:, None, None]
    x = rng.standard_normal((6, 4)).astype(np.float32)

    def scanned(p, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])[0]

    def written_out(p, x):
        for w in p["w"]:
            x = jnp.tanh(x @ w)
        return x

    lost = []
    settings = StudySettings(
        fault="adsaf-cells", fault_settings={"bits": 6}, rates=(0.0, 0.1), trials=2,
        unit=2, batch=6, over="map",
    )  # fmt: skip
    for apply, params in ((scanned, {"w": w}), (written_out, {"w": [*w]})):
        data = examples(apply, params, x, batch=6)
        study = prepare_study(apply, params, data, settings, jax.random.key(0))
        found = run_study(study)
        lost.append(found.results["curve"].stats.total.confidence_drop[0, 0, 0])
    assert abs(lost[0]) > 1e-3
    assert lost[0] == pytest.approx(lost[1], rel=1e-4)
