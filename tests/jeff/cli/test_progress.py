import io

import rich.console

from jeff.cli.progress import Bars, Lines, shown


def _console(terminal):
    return rich.console.Console(
        file=io.StringIO(), force_terminal=terminal, width=100, color_system=None
    )


def test_plain_lines_name_stages_and_quarters():
    console = _console(False)
    with shown("mbq", console) as progress:
        assert isinstance(progress, Lines)
        progress.stage("calibrate", 8)
        for _ in range(8):
            progress.advance()
        progress.stage("evaluate", 1)
    lines = [line.split("s  ")[1] for line in console.file.getvalue().splitlines()]
    assert lines == [
        "calibrate ...", "calibrate 2/8", "calibrate 4/8", "calibrate 6/8",
        "calibrate 8/8", "evaluate ...",
    ]  # fmt: skip


def test_bars_in_a_terminal_end_complete():
    console = _console(True)
    with shown("mbq", console) as progress:
        assert isinstance(progress, Bars)
        progress.advance()  # before any stage: nothing to fill, no error
        progress.stage("calibrate", 4)
        progress.advance(2)
        progress.stage("evaluate", 3)
    last = console.file.getvalue().split("mbq  calibrate")[-1]
    assert "4/4" in last and "3/3" in last


def test_counted_things_and_the_time_left_are_shown(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("jeff.cli.progress.time.monotonic", lambda: next(clock))
    console = _console(False)
    with shown("mbq", console, counted=True) as progress:
        progress.count("curve", 2.0, "faults")
        progress.stage("sweep", 4)
        for _ in range(4):
            progress.advance()
    lines = [line.split("s  ")[1] for line in console.file.getvalue().splitlines()]
    assert lines[:2] == ["curve: sweep ...", "curve: sweep 1/4"]
    assert lines[2].startswith("curve: sweep 2/4, ") and "faults/s" in lines[2]
    assert lines[2].endswith("s left") and lines[4].endswith("faults/s")


def test_bars_show_them_too():
    console = _console(True)
    with shown("mbq", console, counted=True) as progress:
        progress.count("curve", 2.0, "faults")
        progress.stage("sweep", 2)
        progress.advance(2)
    assert "curve: sweep" in console.file.getvalue()
    assert progress.speed(10.0) == "20 faults/s" and progress.speed(None) == ""
