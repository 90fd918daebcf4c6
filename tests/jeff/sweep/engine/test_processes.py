"""Devices, processes and violent ends change no bit."""

import concurrent.futures
import os
import pathlib
import signal
import threading

import jax
import pytest
from support import sweep_case, sweep_network
from support.sweep_case import Counted, Enough, compiled_once  # noqa: F401
from support.two_processes import run_both

from jeff import io
from jeff.sweep.engine import processes
from jeff.sweep.planning import choose

SCRIPT = pathlib.Path(__file__).with_name("sweep_process.py")
PATH = [pathlib.Path(__file__).parents[3]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep that nothing disturbed, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return sweep_case.run(directory=folder), folder


@pytest.fixture(scope="module")
def convolved(tmp_path_factory):
    """Sweeps with convolutions and samplers, by what they hit, and their folders."""
    found = {}
    for target in ("weights", "features"):
        folder = tmp_path_factory.mktemp(target)
        found[target] = sweep_case.run_convolved(target, directory=folder), folder
    return found


def test_four_devices_and_kill_9(whole, convolved, python, tmp_path):
    result, folder = whole
    flags = os.environ.get("XLA_FLAGS", "")
    env = {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=4"}
    ran = python(SCRIPT, "devices", tmp_path, env=env, path=PATH)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    want = [sweep_case.digest(result)] * 2
    for target in ("weights", "features"):
        want += [sweep_case.digest(convolved[target][0]), "1"]  # compiled for all four
    assert ran.stdout.split() == want
    left = sweep_case.files(tmp_path)
    assert len(left) == 1 + 7  # the settings and seven units
    again = sweep_case.run(directory=tmp_path)
    assert sweep_case.digest(again) == sweep_case.digest(result)
    assert sweep_case.files(tmp_path) == sweep_case.files(folder)


@pytest.mark.parametrize("target", ["weights", "features"])
def test_convolutions_and_samplers(convolved, target, tmp_path):
    """Chunks, and an end with a unit done, change no bit of them."""
    result, folder = convolved[target]
    sums = result.stats["sum"]
    assert sums.shape == (1, 1, 7, 4) and not result.stats["short"].any()
    assert len({row.tobytes() for row in sums[0, 0]}) > 4  # faults differ
    same = sweep_case.run_convolved(target, chunk=1)
    assert sweep_case.digest(same) == sweep_case.digest(result)
    with pytest.raises(OSError, match="disk is full"):
        sweep_case.run_convolved(target, directory=tmp_path, progress=Counted(1, full))
    again = sweep_case.run_convolved(target, directory=tmp_path, chunk=2)
    assert sweep_case.digest(again) == sweep_case.digest(result)
    assert sweep_case.files(tmp_path) == sweep_case.files(folder)


@pytest.mark.slow
def test_a_network_compiled_as_users_compile_it(python, tmp_path):
    """Arrays that XLA cuts into parts for its threads, with all its optimizations."""
    env = {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    ran = python(SCRIPT, "network", tmp_path, env=env, path=PATH)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    one, four = ran.stdout.split()
    assert one == four
    assert len(sweep_case.files(tmp_path / "killed")) == 1 + 2
    ran = python(SCRIPT, "resume", tmp_path, env=env, path=PATH)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [one]
    whole, killed = (sweep_case.files(tmp_path / n) for n in ("whole", "killed"))
    assert whole == killed and len(whole) == 1 + sweep_network.UNITS


def test_two_processes(whole, convolved, python, tmp_path):
    result, folder = whole
    ran = run_both(
        lambda port, index: python(SCRIPT, "share", tmp_path, port, index, path=PATH)
    )
    stopped = sweep_case.run(stop=sweep_case.Enough(1e-9))
    results = result, stopped, convolved["weights"][0], convolved["features"][0]
    want = [*map(sweep_case.digest, results), str(sweep_case.UNITS // 2)]
    for one in ran:
        assert one.returncode == 0, one.stderr
        assert one.stdout.split()[-5:] == want
    assert sweep_case.files(tmp_path) == sweep_case.files(folder)


@pytest.fixture
def in_two(monkeypatch):
    """``in_two(f)``: what ``f(process)`` gives or raises, in threads for processes."""
    here, heard, all_are_there = threading.local(), {}, threading.Barrier(2, timeout=30)

    def exchange(data):
        heard[here.index] = data
        all_are_there.wait()
        both = [heard[0], heard[1]]
        all_are_there.wait()
        return both

    monkeypatch.setattr(processes, "exchange", exchange)
    monkeypatch.setattr(jax, "process_index", lambda: here.index)
    monkeypatch.setattr(jax, "process_count", lambda: 2)

    def run(f):
        def one(process):
            here.index = process
            return f(process)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            done = [pool.submit(one, process) for process in (0, 1)]
        return [d.exception() or d.result() for d in done]

    return run


def full():
    raise OSError("the disk is full")


@pytest.mark.parametrize("stop", [None, Enough(1e-9)], ids=["all", "rounds"])
def test_if_one_fails_midway_all_raise(whole, in_two, tmp_path, stop):
    result, folder = whole

    def run(process):
        shown = Counted(4, full) if process else Counted()
        return sweep_case.run(directory=tmp_path, progress=shown, stop=stop)

    first, second = in_two(run)
    assert isinstance(second, OSError)
    assert str(first) == "process 1 failed: OSError: the disk is full"
    done = in_two(lambda _: sweep_case.digest(sweep_case.run(directory=tmp_path)))
    assert done == [sweep_case.digest(result)] * 2
    assert sweep_case.files(tmp_path) == sweep_case.files(folder)


def test_processes_that_were_told_otherwise(in_two, tmp_path):
    first, second = in_two(lambda process: sweep_case.run(stop=Enough(process)))
    assert "process 1 sweeps something else; stop: 'Enough(1)' proc" in str(first)
    assert "process 0 sweeps something else; stop: 'Enough(0)' proc" in str(second)
    first, second = in_two(
        lambda process: sweep_case.run(directory=tmp_path, trials=4 + process)
    )
    assert "trials: 5 process 1, 4 here" in str(first)
    assert "trials: 4 process 0, 5 here" in str(second)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (
            {"rates": [-1.0]},
            "ValueError: rates[0] must be finite and at least 0, got -1.0",
        ),
        ({"chunk": 0}, "ValueError: chunk must be at least 1, got 0"),
        ({"devices": 99}, "ValueError: devices=99, but this process has"),
        ({"data": None}, "ValueError: data holds no array"),
    ],
)
def test_if_one_cannot_begin_all_raise(in_two, changes, what):
    """None waits for one that will not come, until the network gives up."""
    first, second = in_two(lambda p: sweep_case.run(**(changes if p else {})))
    assert str(first).startswith(f"process 1 failed: {what}")
    assert type(second) is ValueError and str(second) in str(first)


def test_if_one_has_a_damaged_folder_or_no_memory_all_raise(
    in_two, tmp_path, monkeypatch
):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "settings.json").write_text("{")
    first, second = in_two(lambda p: sweep_case.run(directory=tmp_path / str(p)))
    assert "process 1 failed: ValueError: " in str(first)
    assert "settings.json' is damaged" in str(first)
    assert type(second) is ValueError
    prepare = choose.prepare

    def short(*arguments, **options):
        if jax.process_index():
            raise MemoryError("no room for the unit")
        return prepare(*arguments, **options)

    monkeypatch.setattr(choose, "prepare", short)
    first, second = in_two(lambda _: sweep_case.run())
    assert str(first) == "process 1 failed: MemoryError: no room for the unit"
    assert type(second) is MemoryError


def test_processes_with_other_machines(in_two, monkeypatch):
    numerics = io.numerics

    def of_process(device):
        return numerics(device) | {"device": f"gpu {'AB'[jax.process_index()]}"}

    monkeypatch.setattr(io, "numerics", of_process)
    first, second = in_two(lambda _: sweep_case.run())
    assert "device: 'gpu B' process 1, 'gpu A' here" in str(first)
    assert "device: 'gpu A' process 0, 'gpu B' here" in str(second)
