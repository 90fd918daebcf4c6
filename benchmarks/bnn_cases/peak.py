"""How much memory a call takes at most, of a process that otherwise does nothing.

Imports only the standard library: the peers' process uses it too.
"""

import ctypes
import ctypes.util
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Peak", "peak_growth"]

_PROCESS = pathlib.Path("/proc/self")
_TRIM_THRESHOLD = -1  # of glibc's malloc.h
_LARGEST = 2**26  # what it grows to by itself in a long run
_SETTLE = 0.02  # s, for threads that free what they used after a call has ended
_LONG = 2.0  # s, of a call that is not repeated for a second peak


class Peak(NamedTuple):
    """What a call takes.

    Attributes:
      nbytes: Peak of the resident memory during it, less what was resident before, or
        ``None`` where the system does not tell.
      seconds: How long it takes.
    """

    nbytes: int | None
    seconds: float


def peak_growth(run: Callable[[], Any]) -> Peak:
    """Peak of the resident memory during a call, less what was resident before it.

    The call is made three times: with the first the allocator gives back what it kept
    of earlier calls, of which every thread has its own; of the other two the larger
    peak counts, in case a thread was late with that. A call of more than two seconds
    is made twice, and the second peak counts. Linux with glibc only.

    Args:
      run: The call.

    Returns:
      The peak, and the time of the last call.
    """
    seconds: list[float] = []

    def timed() -> None:
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)

    found = None
    try:
        libc = ctypes.CDLL(ctypes.util.find_library("c"))
        libc.mallopt(_TRIM_THRESHOLD, 0)
        timed()
        calls = 2 if seconds[0] < _LONG else 1
        found = max(_grown(timed, libc) for _ in range(calls))
        libc.mallopt(_TRIM_THRESHOLD, _LARGEST)
    except (OSError, AttributeError):
        timed()
    return Peak(found, seconds[-1])


def _grown(run: Callable[[], Any], libc: ctypes.CDLL) -> int:
    time.sleep(_SETTLE)
    libc.malloc_trim(0)
    # 5 sets the peak to what is resident now, see proc(5).
    (_PROCESS / "clear_refs").write_text("5")
    before = _resident("VmRSS")
    run()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    for line in (_PROCESS / "status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024
    raise OSError(f"{field} is not in {_PROCESS / 'status'}")
