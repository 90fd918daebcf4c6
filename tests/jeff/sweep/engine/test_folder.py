"""Folders of sweeps: go on after any end, refuse what is not theirs."""

import errno
import json
import os
import re

import jax
import numpy as np
import pytest
from support import sweep_case
from support.sweep_case import Counted, compiled_once, digest, files  # noqa: F401

from jeff import sweep
from jeff.io import provenance
from jeff.sweep.engine import execute
from jeff.sweep.engine import folder as sweep_folder

ARGUMENTS = {"rates": [0.5], "trials": 8}  # two units for each of two designs


def run(**changes):
    return sweep_case.run(**(ARGUMENTS | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return run(directory=folder), folder


@pytest.fixture
def copy(whole, tmp_path):
    """A folder of its own with the same sweep, and its last unit's file."""
    for name, data in files(whole[1]).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path, tmp_path / "units" / "unit-000000003.safetensors"


def test_what_is_there_is_read(whole, monkeypatch):
    result, folder = whole
    before = files(folder)
    assert set(before) == {"settings.json"} | {
        f"units/unit-{i:09d}.safetensors" for i in range(4)
    }
    monkeypatch.setattr(execute, "compiled", lambda *a: pytest.fail("computes"))
    shown = Counted()
    again = run(directory=folder, progress=shown)
    assert digest(again) == digest(result) and files(folder) == before
    assert shown.steps == 4
    read = sweep.read_sweep(folder, like={"sum": 0, "hits": 0})
    assert digest(read) == digest(result) and read.settings["trials"] == 8
    with pytest.raises(ValueError, match="like has leaves"):
        sweep.read_sweep(folder, like={"sum": 0})


def test_what_was_chosen_is_kept(whole, copy):
    """A plan made anew might choose otherwise, so the folder's is taken."""
    again = run(directory=copy[0], unit=None, batch=None, plan=None)
    assert digest(again) == digest(whole[0])
    assert "begun with group=4, unit=4, batch=4" in again.plan.explain()


def test_ctrl_c_leaves_a_folder_that_goes_on(whole, tmp_path):
    def ask():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(directory=tmp_path, progress=Counted(1, ask))
    assert len(files(tmp_path)) == 2
    partial = sweep.read_sweep(tmp_path)
    assert partial.trials_done.tolist() == [[4], [0]]
    assert digest(run(directory=tmp_path, chunk=1)) == digest(whole[0])
    assert files(tmp_path) == files(whole[1])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"rates": [0.25]}, r"rates: \[0.5\] there, \[0.25\] now"),
        (
            {"trials": 4, "unit": 2},
            "trials: 8 .*4 now; group: 4 .* 2 now; unit: 4 .* 2 now",
        ),
        ({"data": {"x": sweep_case.DATA["x"] + 1}}, r"; data.x: 'float32\[10, 6\] "),
        ({"designs": {"gain": np.ones(2, np.float32)}}, "; designs.gain: 'float32"),
    ],
)
def test_other_settings_are_refused(copy, changes, match):
    before = files(copy[0])
    with pytest.raises(ValueError, match=match):
        run(directory=copy[0], **changes)
    assert files(copy[0]) == before


def test_other_compilers_and_processors_are_refused(copy, monkeypatch, tmp_path):
    """All of them changed the last bits of sums, of the same program."""
    there = json.loads((copy[0] / "settings.json").read_text())
    assert there["cpu"] and isinstance(there["unoptimized"], bool)
    flags = os.environ.get("XLA_FLAGS", "")
    harmless = "--xla_force_host_platform_device_count=1 --xla_dump_to=/nowhere"
    monkeypatch.setenv("XLA_FLAGS", f"{flags} {harmless}")
    run(directory=copy[0])
    monkeypatch.setenv("XLA_FLAGS", f"{flags} --xla_cpu_enable_fast_math=true")
    processor = tmp_path / ".cpuinfo"
    processor.write_text("model name\t: Slide rule\nflags\t: fpu fma\n\nflags : avx")
    monkeypatch.setattr(provenance, "_CPUINFO", processor)
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", not before)
    try:
        with pytest.raises(ValueError) as refused:
            run(directory=copy[0])
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
    assert re.search("xla_flags: .* there, .*fast_math=true' now", str(refused.value))
    assert f"unoptimized: {before} there, {not before} now" in str(refused.value)
    assert re.search(
        "; cpu: '.* there, 'Slide rule [0-9a-f]{8}' now", str(refused.value)
    )


def test_other_programs_are_refused(copy, monkeypatch):
    draw = sweep_case.TRIAL.draw
    monkeypatch.setattr(
        sweep_case, "TRIAL", sweep_case.TRIAL._replace(draw=lambda *a: draw(*a) * 2)
    )
    with pytest.raises(ValueError, match="; program.draw: '[0-9a-f]{32}' there"):
        run(directory=copy[0])


def test_folders_of_other_versions(whole, copy):
    """Before there were groups, a word said how trials run."""
    folder = copy[0]
    there = json.loads((folder / "settings.json").read_text())
    assert there["sweep_format"] == 2 and there.pop("group") == 4
    old, new = ({**there, "over": "vmap", "sweep_format": n} for n in (1, 3))
    (folder / "settings.json").write_text(json.dumps(old))
    for changes in ({}, {"unit": None, "batch": None, "plan": None}):
        with pytest.raises(ValueError, match="older jeff .*1, now 2.* cannot go on"):
            run(directory=folder, **changes)
    (folder / "settings.json").write_text(json.dumps(new))
    with pytest.raises(ValueError, match="sweep_format 3, this jeff reads 1 and 2"):
        sweep.read_sweep(folder)


def test_damage_is_named(copy):
    folder, file = copy
    data = file.read_bytes()
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    other = (folder / "units" / "unit-000000000.safetensors").read_bytes()
    for broken, why in ((data[:40], "not a safe"), (flipped, "checksum"), (other, "3")):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=f"unit-000000003.*is damaged: .*{why}"):
            run(directory=folder)
    file.unlink()
    run(directory=folder)
    assert file.read_bytes() == data
    (folder / "settings.json").write_text("{")
    with pytest.raises(ValueError, match="settings.json' is damaged"):
        run(directory=folder)
    (folder / "settings.json").write_text(json.dumps({"trials": 3}))
    with pytest.raises(ValueError, match="not of a sweep"):
        sweep.read_sweep(folder)


def test_other_folders_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "thesis.tex"
    file.write_text("precious")
    with pytest.raises(NotADirectoryError, match="must be a folder, it is a file"):
        run(directory=file)
    with pytest.raises(ValueError, match="other things in it .thesis.tex."):
        run(directory=tmp_path)
    with pytest.raises(ValueError, match="holds no sweep"):
        sweep.read_sweep(tmp_path)
    folder = tmp_path / "mine"
    with (
        sweep_folder.SweepFolder(folder).held(0),
        pytest.raises(OSError, match="another call is writing there"),
    ):
        run(directory=folder)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device", "unit")

    write = sweep_folder.write_atomically
    monkeypatch.setattr(sweep_folder, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        run(directory=folder)
    monkeypatch.setattr(sweep_folder, "write_atomically", write)
    (folder / "settings.json").unlink(missing_ok=True)
    run(directory=folder)
    assert len(sweep_case.files(folder)) == 5
