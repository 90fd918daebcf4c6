"""What the processes of one sweep tell each other.

References:
  `jax.distributed.initialize`, which the caller has called where there are several:
  https://docs.jax.dev/en/latest/multi_process.html.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from jeff.sweep.engine.folder import SweepFolder
from jeff.sweep.engine.recorded_settings import differences

__all__ = ["exchange", "opened", "share", "together"]

T = TypeVar("T")

_DONE, _FAILED = b"+", b"-"


def exchange(data: bytes) -> list[bytes]:
    """Gives every process what each of them has to say.

    All processes must call it, the same number of times.

    Args:
      data: What this process has to say; any length.

    Returns:
      What each process said, in their order.

    Examples:
      >>> exchange(b"alone here")
      [b'alone here']
    """
    if jax.process_count() == 1:
        return [data]
    from jax.experimental import multihost_utils  # compiles nothing, but imports much

    def gathered(array: np.ndarray) -> np.ndarray:
        return np.asarray(multihost_utils.process_allgather(array, tiled=False))

    lengths = gathered(np.array([len(data)], np.int32)).reshape(-1).tolist()
    padded = np.zeros(max(*lengths, 1), np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    rows = gathered(padded).reshape(len(lengths), -1)
    return [row[:n].tobytes() for row, n in zip(rows, lengths, strict=True)]


def share(work: Callable[[], bytes]) -> list[bytes]:
    """Does this process's part of some work, and gives every process all parts.

    All processes must call it. If one fails the others do not wait for it in vain: all
    raise.

    Args:
      work: This process's part; returns what the others need of it.

    Returns:
      What each process's part returned, in their order.

    Raises:
      Exception: What `work` raised here.
      RuntimeError: If it raised in another process, the first of which is named.

    Examples:
      >>> share(lambda: b"my part")
      [b'my part']
    """
    error = None
    try:
        said = _DONE + work()
    except Exception as failed:
        error = failed
        said = _FAILED + f"{type(error).__name__}: {error}".encode()
    heard = exchange(said)
    if error is not None:
        raise error
    for process, words in enumerate(heard):
        if words.startswith(_FAILED):
            raise RuntimeError(f"process {process} failed: {words[1:].decode()}")
    return [words[1:] for words in heard]


def together(work: Callable[[], T]) -> T:
    """Does what every process does for itself; if one fails, all raise.

    All processes must call it.

    Args:
      work: What is done.

    Returns:
      What `work` returned here.

    Raises:
      Exception: What `work` raised here.
      RuntimeError: If it raised in another process, the first of which is named.

    Examples:
      >>> together(lambda: "ready")
      'ready'
    """
    made: list[T] = []

    def done() -> bytes:
        made.append(work())
        return b""

    share(done)
    return made[0]


@contextlib.contextmanager
def opened(
    folder: SweepFolder | None, settings: Mapping[str, Any], rule: str | None
) -> Iterator[None]:
    """Begins a sweep's folder, in the first process first, and compares all processes.

    Args:
      folder: The folder, or ``None``.
      settings: What the sweep's numbers depend on, by name; JSON values.
      rule: The stopping rule in words.

    Yields:
      Nothing, while this process holds the folder.

    Raises:
      OSError: If the folder cannot be written, or another sweep is writing there.
      RuntimeError: If another process failed; it is named.
      ValueError: If the folder was begun with other settings, or another process has
        other ones; each is named with both values.

    Examples:
      >>> with opened(None, {"trials": 2}, None):
      ...     print("all sweep the same")
      all sweep the same
    """
    index, count = jax.process_index(), jax.process_count()
    said = json.dumps({**settings, "stop": rule})
    with contextlib.ExitStack() as held:
        for turn in range(min(count, 2)):

            def begin(turn=turn):
                if folder is not None and min(index, 1) == turn:
                    held.enter_context(folder.held(index))
                    folder.begin(settings)
                return said.encode()

            for process, heard in enumerate(share(begin)):
                _compare(process, json.loads(heard), json.loads(said))
        yield


def _compare(process: int, heard: dict[str, Any], said: dict[str, Any]) -> None:
    differ = differences(heard, said, f"process {process}", "here")
    if differ:
        raise ValueError(
            f"process {process} sweeps something else; {'; '.join(differ)}"
        )
