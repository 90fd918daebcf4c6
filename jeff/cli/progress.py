"""Progress on stderr: bars in a terminal, plain lines everywhere else."""

import contextlib
import time
from collections.abc import Iterator

import rich.console
import rich.progress
import rich.text

from jeff.cli.quantity import quantity

__all__ = ["Bars", "Counted", "Lines", "shown"]


class Counted:
    """What a step of the next stages is worth, and what the stages are called.

    Attributes:
      label: Put before the names of stages.
      per_step: How many things are done in a step, on average; 0 counts nothing.
      noun: What these are called.
    """

    label, per_step, noun = "", 0.0, ""

    def count(self, label: str, per_step: float, noun: str) -> None:
        """Sets all three."""
        self.label, self.per_step, self.noun = f"{label}: ", per_step, noun

    def speed(self, steps_per_second: float | None) -> str:
        """How fast things are done, in words; nothing if they are not counted."""
        if not self.per_step or steps_per_second is None:
            return ""
        return f"{quantity(float(f'{steps_per_second * self.per_step:.3g}'))} " + (
            f"{self.noun}/s"
        )


class Bars(Counted):
    """One bar per stage, drawn by rich."""

    def __init__(self, system: str, drawing: rich.progress.Progress):
        """Draws into a running `rich.progress.Progress`."""
        self._system, self._drawing = system, drawing
        self._task: rich.progress.TaskID | None = None

    def stage(self, name: str, total: int) -> None:
        """Completes the bar before and starts a new one; see `Progress.stage`."""
        self.finish()
        self._task = self._drawing.add_task(
            f"{self._system}  {self.label}{name}", total=total
        )

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


class Lines(Counted):
    """One line per stage, and one per quarter of it, with the seconds so far."""

    def __init__(self, system: str, console: rich.console.Console):
        """Prints to `console`."""
        self._system, self._console = system, console
        self._start = time.monotonic()
        self._name, self._total, self._done = "", 0, 0
        self._first = 0, self._start

    def stage(self, name: str, total: int) -> None:
        """Prints the stage's name; see `Progress.stage`."""
        self._name, self._total, self._done = f"{self.label}{name}", total, 0
        self._say(f"{self._name} ...")

    def advance(self, steps: int = 1) -> None:
        """Prints a line when another quarter is done; see `Progress.advance`."""
        before, self._done = self._done, self._done + steps
        if not before:
            self._first = self._done, time.monotonic()
        if self._total and 4 * self._done // self._total > 4 * before // self._total:
            parts = [f"{self._name} {self._done}/{self._total}", *self._forecast()]
            self._say(", ".join(parts))

    def _forecast(self) -> list[str]:
        """How fast counted things are done, and how long the rest takes."""
        if not self.per_step:
            return []
        done, begun = self._first
        if self._done == done:  # what was compiled before the first step is not to come
            return []
        pace = (self._done - done) / max(time.monotonic() - begun, 1e-3)
        left = (self._total - self._done) / pace
        return [self.speed(pace), *([f"{left:.0f} s left"] if left else [])]

    def _say(self, text: str) -> None:
        seconds = time.monotonic() - self._start
        self._console.out(f"{self._system} {seconds:7.1f} s  {text}", highlight=False)


@contextlib.contextmanager
def shown(
    system: str, console: rich.console.Console, *, counted: bool = False
) -> Iterator["Bars | Lines"]:
    """Shows the progress of one system while the block runs.

    Args:
      system: The system's name.
      console: Where to; bars if it is a terminal, lines if not.
      counted: Whether bars show how fast counted things are done (`Counted.count`),
        and the time left.

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
    speed = _Speed()
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=32),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        *((speed, rich.progress.TimeRemainingColumn()) if counted else ()),
    )
    with rich.progress.Progress(*columns, console=console) as drawing:
        bars = speed.counted = Bars(system, drawing)
        yield bars
        bars.finish()


class _Speed(rich.progress.ProgressColumn):
    """How fast counted things are done."""

    counted: Counted | None = None

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        """Words for a bar."""
        speed = task.finished_speed or task.speed
        return rich.text.Text("" if self.counted is None else self.counted.speed(speed))
