"""Progress on stderr: bars in a terminal, plain lines everywhere else."""

import contextlib
import time
from collections.abc import Iterator

import rich.console
import rich.progress

from jeff.evaluate import Progress

__all__ = ["Bars", "Lines", "shown"]


class Bars:
    """One bar per stage, drawn by rich."""

    def __init__(self, system: str, drawing: rich.progress.Progress):
        """Draws into a running `rich.progress.Progress`."""
        self._system, self._drawing = system, drawing
        self._task: rich.progress.TaskID | None = None

    def stage(self, name: str, total: int) -> None:
        """Completes the bar before and starts a new one; see `Progress.stage`."""
        self.finish()
        self._task = self._drawing.add_task(f"{self._system}  {name}", total=total)

    def advance(self, steps: int = 1) -> None:
        """Fills the current bar a little more; see `Progress.advance`."""
        if self._task is not None:
            self._drawing.advance(self._task, steps)

    def finish(self) -> None:
        """Fills the current bar, and stops its clock."""
        if self._task is not None:
            total = self._drawing.tasks[self._task].total
            self._drawing.update(self._task, completed=total)
            self._drawing.stop_task(self._task)


class Lines:
    """One line per stage, and one per quarter of it, with the seconds so far."""

    def __init__(self, system: str, console: rich.console.Console):
        """Prints to `console`."""
        self._system, self._console = system, console
        self._start = time.monotonic()
        self._name, self._total, self._done = "", 0, 0

    def stage(self, name: str, total: int) -> None:
        """Prints the stage's name; see `Progress.stage`."""
        self._name, self._total, self._done = name, total, 0
        self._say(f"{name} ...")

    def advance(self, steps: int = 1) -> None:
        """Prints a line when another quarter is done; see `Progress.advance`."""
        before, self._done = self._done, self._done + steps
        if self._total and 4 * self._done // self._total > 4 * before // self._total:
            self._say(f"{self._name} {self._done}/{self._total}")

    def _say(self, text: str) -> None:
        seconds = time.monotonic() - self._start
        self._console.out(f"{self._system} {seconds:7.1f} s  {text}", highlight=False)


@contextlib.contextmanager
def shown(system: str, console: rich.console.Console) -> Iterator[Progress]:
    """Shows the progress of one system while the block runs.

    Args:
      system: The system's name.
      console: Where to; bars if it is a terminal, lines if not.

    Yields:
      What the study tells its progress to.

    Examples:
      >>> import io
      >>> out = io.StringIO()
      >>> with shown("demo", rich.console.Console(file=out)) as progress:
      ...     progress.stage("calibrate", 1)
      ...     progress.advance()
      >>> [line.split("s  ")[1] for line in out.getvalue().splitlines()]
      ['calibrate ...', 'calibrate 1/1']
    """
    if not console.is_terminal:
        yield Lines(system, console)
        return
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=32),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
    )
    with rich.progress.Progress(*columns, console=console) as drawing:
        bars = Bars(system, drawing)
        yield bars
        bars.finish()
