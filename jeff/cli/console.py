"""Where tables and bars are printed."""

from typing import TextIO

import rich.console

__all__ = ["console"]

_WIDTH = 120  # columns where nobody looks through a terminal of some width


def console(stream: TextIO) -> rich.console.Console:
    """A console that prints to `stream`, in color only in a terminal.

    Args:
      stream: Such as ``sys.stdout``.

    Returns:
      The console; 120 columns wide where there is no terminal.

    Examples:
      >>> import io
      >>> console(io.StringIO()).width
      120
    """
    found = rich.console.Console(file=stream, highlight=False)
    if found.is_terminal:
        return found
    return rich.console.Console(file=stream, highlight=False, width=_WIDTH)
