"""Fault studies: what they plan, and what they refuse."""

import jax
import numpy as np
import pytest
from support import fault_nets

from jeff.sweep import StudySettings, prepare_study, run_study
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
    close = np.testing.assert_allclose
    close(study.data.golden, data.golden, rtol=1e-6)
    assert study.golden_accuracy == 1.0
    for part in study.parts:
        close(part.ready.sweep.data.golden, data.golden, rtol=1e-6)
    given = prepare_study(
        apply, params, wrong, settings, jax.random.key(0), golden_batch=4
    )
    assert given.data.golden is wrong.golden
