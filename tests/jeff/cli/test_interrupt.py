"""Ctrl-C while `jeff` is still importing: one line and exit code 130."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from jeff.cli.interrupt import heard, leave_at_once
from jeff.evaluate import NoProgress

ROOT = os.path.dirname(os.path.dirname(__import__("jeff").__file__))
SLOW = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
DEAF = SLOW.replace("time.sleep(60)", "try: time.sleep(60)\nexcept BaseException: 1/0")


# A job started in the background ignores Ctrl-C, and so would its children.
RUN = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("jeff", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(autouse=True)
def _default_ctrl_c():
    """Its usual meaning, also where the tests run in the background, without one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("module", "code", "words"),
    [("tyro", SLOW, "list"), ("jax", DEAF, "sites x:y"), ("matplotlib", SLOW, "run x")],
    ids=["arguments", "swallowed", "plots"],
)
def test_ctrl_c_while_importing(tmp_path, module, code, words):
    (tmp_path / f"{module}.py").write_text(code)
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, *words.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), ROOT])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "jeff: interrupted\n")
    assert {*os.listdir(tmp_path)} <= {"__pycache__", f"{module}.py"}


def test_the_package_and_the_command_line_load_nothing_slow(python):
    script = "import sys, jeff.cli; print({'jax', 'numpy', 'tyro'} & {*sys.modules})"
    assert python("-c", script).stdout == "set()\n"


def test_an_interrupt_that_was_lost_is_raised_at_the_next_step():
    steps = []

    class Told(NoProgress):
        def advance(self, steps_done=1):
            steps.append(steps_done)

    def lost():
        with contextlib.suppress(KeyboardInterrupt):  # as in other people's callbacks
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), heard(Told()) as progress:
        progress.stage("work", 3)
        progress.advance()
        lost()
        progress.advance()
    assert steps == [1]
    with pytest.raises(KeyboardInterrupt), heard(Told()):
        lost()  # in the last step of all
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_meaning_of_ctrl_c_is_kept():
    def mine(*_):
        pass

    before = signal.signal(signal.SIGINT, mine)
    try:
        with leave_at_once():
            assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)
    seen = []

    def other_thread():
        with leave_at_once():  # only the main thread may set handlers
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join()
    assert seen == [before]
