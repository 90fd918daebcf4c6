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
