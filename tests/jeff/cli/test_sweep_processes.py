"""``jeff sweep`` in processes of their own: killed, and two of them."""

import signal

from support.swept_program import (  # noqa: F401
    QUICK,
    RATES,
    folder_of,
    swept,
)
from support.two_processes import run_both

from jeff.io import read_result

# The process kills itself as soon as a unit is on the disk.
_KILLED = """
import os, signal, sys
from jeff.cli import main
from jeff.sweep.engine.folder import SweepFolder
save = SweepFolder.save
def once(*args):
    save(*args)
    os.kill(os.getpid(), signal.SIGKILL)
SweepFolder.save = once
main(sys.argv[1:])
"""


def test_killed_it_goes_on_to_the_same_bytes(sweep, python, tmp_path):
    words = (*QUICK, *RATES)
    killed = python("-c", _KILLED, "sweep", "swept:build", *words)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = folder_of(tmp_path)
    units = folder / "curve/units"
    (first,) = units.iterdir()
    before = first.stat().st_mtime_ns
    code, _, err = sweep(*words)
    assert code == 0 and first.stat().st_mtime_ns == before, err
    assert sweep(*words, "--out", "whole")[0] == 0
    whole = tmp_path / "whole" / folder.name / "curve/units"
    for file in units.iterdir():
        assert file.read_bytes() == (whole / file.name).read_bytes()
    assert len(list(units.iterdir())) == len(list(whole.iterdir())) == 4


def test_two_processes_write_the_record_of_one(sweep, python, tmp_path):
    words = (*QUICK, *RATES)

    def run(port, index):
        place = f"127.0.0.1:{port},{index}/2"
        return python(
            "-m", "jeff", "sweep", "swept:build", *words, "--distributed", place,
        )  # fmt: skip

    assert sweep(*words, "--out", "one")[0] == 0
    first, second = run_both(run)
    for ran in (first, second):
        assert ran.returncode == 0, ran.stderr
    assert "report: jeff-out/index.html" in first.stdout and second.stdout == ""
    assert "2 processes" in first.stderr and "curve: sweep 2/2" in first.stderr
    folder = folder_of(tmp_path)
    one = tmp_path / "one" / folder.name
    alone, both = read_result(one), read_result(folder)
    assert both["measures"] == alone["measures"]
    assert both["settings"]["command"] == alone["settings"]["command"]
    units = [f.relative_to(one) for f in (one / "curve/units").iterdir()]
    assert len(units) == 4
    for name in ("curve/settings.json", *units):
        assert (folder / name).read_bytes() == (one / name).read_bytes(), name
