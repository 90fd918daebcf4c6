import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from jeff.cli import System, run
from jeff.io import read_details, read_result


def test_writes_result_report_and_table(cli, tmp_path):
    code, out, err = cli("run", "demo", "--seed", 7)
    assert code == 0
    folder = tmp_path / "jeff-out"
    assert sorted(os.listdir(folder)) == ["demo", "index.html"]
    assert sorted(os.listdir(folder / "demo")) == ["figures.json", "result.json"]
    record = read_result(folder / "demo")
    assert record["system"] == "demo" and record["preset"] == "default"
    assert record["seed"] == 7 and record["settings"]["bits"] == 3
    assert record["device"].startswith("cpu") and record["seconds"] >= 0
    for word in ("w3_loss_increase.mbq", "92.8 %", "1.4 MB", "lower than AWQ"):
        assert word in out
    assert "report: jeff-out/index.html" in out
    assert "demo" in err and "calibrate 5/5" in err  # plain lines: not a terminal
    assert "\x1b" not in out + err


def test_json_is_the_stored_object_and_nothing_else(cli, tmp_path):
    code, out, _ = cli("run", "demo", "--json")
    assert code == 0 and out == (tmp_path / "jeff-out/demo/result.json").read_text()


def test_json_of_all_is_a_list(cli, tmp_path):
    code, out, err = cli("run", "all", "--json")
    assert code == 0
    assert json.loads(out) == [read_result(tmp_path / "jeff-out/demo")]
    assert "Is not built yet." in err  # what each system is, built or not


def test_same_seed_same_measures_other_seed_others(cli):
    def measures(seed):
        return json.loads(cli("run", "demo", "--json", "--seed", seed)[1])["measures"]

    assert measures(1) == measures(1) != measures(2)


def test_preset_and_set(cli, tmp_path):
    words = "run demo --preset large --set seeds=3 rate=1e-3 --set methods=rtn,mbq"
    assert cli(*words.split(), "--out", "elsewhere")[0] == 0
    record = read_result(tmp_path / "elsewhere/demo")
    settings = record["settings"]
    assert record["preset"] == "large" and settings["bits"] == 4
    assert settings["seeds"] == 3 and settings["rate"] == 1e-3
    assert settings["methods"] == ["rtn", "mbq"]
    assert record["measures"][0]["trials"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run dmeo", "unknown system 'dmeo'; did you mean 'demo'? known: demo, later"),
        ("run later", "'later' is planned but not built yet; built: demo"),
        (
            "run demo --preset larg",
            "no preset 'larg'; did you mean 'large'? known: def",
        ),
        (
            "run demo --set bit=3",
            "no field 'bit'; did you mean 'bits'? known: bits, ra",
        ),
        ("run demo --set bits=x", "--set bits=x: 'x' is not an integer"),
        ("run demo --set bits=0", "--set: bits must be positive: 0"),
        ("run demo --set bits", "'bits' is not field=value"),
        ("run demo --set mode=odd", "'odd' is not one of plain, fail, nan, sleep"),
        ("run all --set bits=3", "--set bits=3: changes one system's settings"),
        ("run demo --seed -1", "argument --seed: must be in [0, 4294967295]: -1"),
        ("run demo --seed x", "argument --seed: 'x' is not an integer"),
        ("run demo --sed 1", "--sed, 1; did you mean --seed?"),
        ("run", "needs SYSTEM|all"),
        ("rum demo", "unknown command 'rum'; did you mean 'run'?"),
    ],
)
def test_bad_input_is_one_line_code_2_and_writes_nothing(cli, tmp_path, words, message):
    code, out, err = cli(*words.split())
    assert (code, out) == (2, "")
    assert err.startswith("jeff: error: ") and err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder_is_found_before_work_starts(cli, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = cli("run", "demo", "--out", "file")
    assert (code, out) == (2, "") and "calibrate" not in err
    assert err == "jeff: error: argument --out: cannot write to 'file': File exists\n"


@pytest.mark.parametrize("file", ["demo/result.json", "index.html"])
def test_a_folder_where_a_file_goes_is_found_before_work_starts(cli, tmp_path, file):
    (tmp_path / "out" / file).mkdir(parents=True)
    code, out, err = cli("run", "demo", "--out", "out")
    assert (code, out) == (2, "") and "calibrate" not in err
    assert err == f"jeff: error: argument --out: 'out/{file}' is a folder, not a file\n"


def test_the_table_is_there_even_if_the_page_cannot_be_written(cli, monkeypatch):
    def fail(folder, registry):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    monkeypatch.setattr(run.page, "write_report", fail)
    code, out, err = cli("run", "demo")
    assert code == 1 and "w3_loss_increase.mbq" in out
    assert err.endswith("No space left on device: 'jeff-out'\n")


def test_an_exception_without_words_says_where(cli, monkeypatch):
    def fail(*_, **__):
        raise AssertionError

    monkeypatch.setattr(run, "_record", fail)
    code, _, err = cli("run", "demo")
    assert code == 1
    assert "error: demo: AssertionError at " in err and "test_run.py:" in err


def test_a_device_that_is_not_there_is_said_before_anything_is_written(tmp_path):
    process = _start(tmp_path, "run", "demo", env={"JAX_PLATFORMS": "abacus"})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "") and err.count("\n") == 1
    assert "JAX has no device to run on (JAX_PLATFORMS='abacus'): Runtime" in err
    assert list(tmp_path.iterdir()) == []


def test_a_closed_stdout_is_no_error():
    process = subprocess.run(
        ["sh", "-c", 'exec "$0" -m jeff list --json >&-', sys.executable],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(cli, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, err = cli("run", "demo", "--out", "locked")
    assert code == 2 and "'locked': Permission denied" in err


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("fail", "jeff: error: demo: RuntimeError: the study broke"),
        ("nan", "jeff: error: demo: measure 'w3_loss_increase.rtn': value is not fin"),
    ],
)
def test_a_failing_run_is_one_line_code_1_and_writes_nothing(cli, mode, message):
    code, out, err = cli("run", "demo", "--set", f"mode={mode}")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith(message)
    assert "Traceback" not in err
    assert os.listdir() == []


def test_a_failing_run_leaves_folders_that_were_there(cli, tmp_path):
    (tmp_path / "mine").mkdir()
    assert cli("run", "demo", "--set", "mode=fail", "--out", "mine/a/b")[0] == 1
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_a_failing_run_keeps_the_result_before(cli, tmp_path):
    cli("run", "demo")
    before = (tmp_path / "jeff-out/demo/result.json").read_text()
    assert cli("run", "demo", "--set", "mode=fail")[0] == 1
    assert (tmp_path / "jeff-out/demo/result.json").read_text() == before


def test_debug_shows_the_traceback(cli, monkeypatch):
    monkeypatch.setenv("JEFF_DEBUG", "1")
    code, _, err = cli("run", "demo", "--set", "mode=fail")
    assert code == 1 and "Traceback" in err and "demo_study.py" in err


def test_all_runs_the_others_when_one_fails(cli, registry, tmp_path):
    quick = System(
        name="quick", title="Quick", summary="", paper="", entry="quick_study:STUDY"
    )
    broken = System(name="broken", title="", summary="", paper="", entry="json:dumps")
    code, out, err = cli("run", "all", registry=(*registry, quick))
    assert code == 0 and "quick" in out
    code, _, err = cli("run", "broken", registry=(broken,))
    assert code == 1 and "json:dumps is not a jeff.evaluate.Study but function" in err


def test_all_with_nothing_built_says_so(cli, registry):
    code, out, err = cli("run", "all", registry=registry[1:])
    assert (code, out) == (1, "")
    assert err == (
        "jeff: error: nothing to run: none of the systems is built in this version "
        "(see jeff list)\n"
    )


def _start(folder, *words, env=None):
    here = os.path.dirname(__file__)
    root = os.path.dirname(os.path.dirname(__import__("jeff").__file__))
    return subprocess.Popen(
        [sys.executable, os.path.join(here, "demo_main.py"), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, here]), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_keeps_finished_systems_and_exits_130(tmp_path):
    process = _start(tmp_path, "run", "all", "--preset", "sleep")
    assert process.stdout.readline() == "sleeping\n"  # quick is done, demo is working
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("jeff: results kept in jeff-out: quick\njeff: interrupted\n")
    assert "Traceback" not in err
    assert read_result(tmp_path / "jeff-out/quick")["preset"] == "sleep"
    assert sorted(os.listdir(tmp_path / "jeff-out")) == ["index.html", "quick"]
    assert "Quick" in (tmp_path / "jeff-out/index.html").read_text()


def test_two_runs_at_once_leave_one_whole_result(tmp_path):
    runs = [_start(tmp_path, "run", "demo", "--seed", str(s)) for s in (1, 2)]
    assert [r.wait(timeout=120) for r in runs] == [0, 0]
    for process in runs:
        process.communicate()
    folder = tmp_path / "jeff-out/demo"
    record = read_result(folder)
    assert record["seed"] in (1, 2)
    read_details(folder, result=(folder / "result.json").read_text())  # whole too
    assert sorted(os.listdir(folder)) == ["figures.json", "result.json"]


def test_output_to_a_reader_that_leaves_is_no_error():
    script = "import sys; from jeff.cli import main; sys.exit(main(['list', '--json']))"
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    os.close(write)
    assert process.returncode == 0 and "Traceback" not in process.stderr
