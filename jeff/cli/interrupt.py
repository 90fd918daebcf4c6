"""Ctrl-C is heard: while a command is being loaded, and while a study runs.

Python turns Ctrl-C into an exception at whatever line is running. In callbacks of the
interpreter and under other people's ``except`` clauses, of which importing and tracing
have many, that exception is lost: a traceback is printed, and the program goes on.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jeff.evaluate import Progress

__all__ = ["heard", "leave_at_once"]


@contextlib.contextmanager
def leave_at_once() -> Iterator[None]:
    """Inside, Ctrl-C ends the process with exit code 130 and one line.

    For imports, before anything has been computed or written. Does nothing where Ctrl-C
    has been given another meaning, and outside of the main thread.

    Examples:
      >>> before = signal.getsignal(signal.SIGINT)
      >>> with leave_at_once():
      ...     pass
      >>> signal.getsignal(signal.SIGINT) is before
      True
    """
    with _handler(_leave):
        yield


@contextlib.contextmanager
def heard(progress: "Progress") -> Iterator["Progress"]:
    """Inside, an interrupt that was lost is raised again at the next step.

    Args:
      progress: What a study would be given.

    Yields:
      The same, raising `KeyboardInterrupt` when it is told about a step after Ctrl-C.

    Raises:
      KeyboardInterrupt: On leaving, if there was one and nobody raised it.

    Examples:
      >>> from jeff.evaluate import NoProgress
      >>> with heard(NoProgress()) as progress:
      ...     progress.stage("calibrate", 1)
    """
    told = _Heard(progress)
    with _handler(told.note):
        yield told
    told.check()


class _Heard:
    """A progress that remembers Ctrl-C."""

    def __init__(self, progress: "Progress"):
        self._progress, self._interrupted = progress, False

    def note(self, *_: object) -> None:
        """The handler: what Python would do, and a note of it."""
        self._interrupted = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raises what was lost."""
        if self._interrupted:
            raise KeyboardInterrupt

    def stage(self, name: str, total: int) -> None:
        """Starts the next stage."""
        self.check()
        self._progress.stage(name, total)

    def advance(self, steps: int = 1) -> None:
        """Says that steps are done."""
        self.check()
        self._progress.advance(steps)


@contextlib.contextmanager
def _handler(handler) -> Iterator[None]:
    """A handler of Ctrl-C, where it has its plain meaning."""
    plain = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not plain or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: object) -> None:
    os.write(2, b"jeff: interrupted\n")
    os._exit(130)
