"""A folder that holds a sweep: its settings, and a file for every finished unit.

Each file is written in one step and says which sweep and which unit it is of. Nothing
in a folder is ever overwritten, and its bytes do not depend on who computed what when.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jeff.io import check_writable, write_atomically
from jeff.io.folder_lock import folder_lock
from jeff.io.tensor_record import from_tensors, to_tensors
from jeff.program.checksum import checksum
from jeff.sweep.engine.layout import Shapes
from jeff.sweep.engine.recorded_settings import differences

__all__ = ["SETTINGS_FILE", "SweepFolder"]

SETTINGS_FILE = "settings.json"
_FORMAT = 2  # of the settings; 1 had a word, "over", where 2 has a number, "group"
_READABLE = (1, 2)
_UNITS = "units"
_NAME = re.compile(r"unit-(\d{9})\.safetensors")


class SweepFolder:
    """The folder of one sweep.

    Attributes:
      folder: Its path.

    Examples:
      >>> import tempfile
      >>> store = SweepFolder(tempfile.mkdtemp())
      >>> with store.held(0):
      ...     store.begin({"trials": 2})
      ...     store.save(0, {"hits": np.array([3, 4])})
      >>> store.finished()
      [0]
      >>> print(store.load(0, {"hits": ((), np.dtype(int))}, unit=2)["hits"])
      [3 4]
    """

    def __init__(self, folder: str | os.PathLike[str]):
        """Names the folder; nothing is made yet.

        Args:
          folder: Its path.

        Raises:
          NotADirectoryError: If there is a file in its place.
        """
        self.folder = pathlib.Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(
                errno.ENOTDIR, "directory must be a folder, it is a file", str(folder)
            )

    def settings(self) -> dict[str, Any] | None:
        """What the sweep there was begun with.

        Returns:
          JSON values by name; ``None`` if no sweep was begun there.

        Raises:
          ValueError: If the file is damaged, not of a sweep, or of a newer jeff.
        """
        file = self.folder / SETTINGS_FILE
        if not file.exists():
            return None
        try:
            found = json.loads(file.read_text())
        except ValueError as error:
            raise ValueError(
                f"{str(file)!r} is damaged: {error}; delete the folder to begin anew"
            ) from None
        if not isinstance(found, dict) or "sweep_format" not in found:
            raise ValueError(
                f"{str(file)!r} is not of a sweep; give an empty or a new directory"
            )
        if found["sweep_format"] not in _READABLE:
            raise ValueError(
                f"{str(file)!r} has sweep_format {found['sweep_format']!r}, this jeff "
                f"reads {' and '.join(map(str, _READABLE))}"
            )
        return found

    def begun(self) -> dict[str, Any] | None:
        """What the sweep there was begun with, if it can go on.

        Returns:
          As `settings`.

        Raises:
          ValueError: As `settings`; also if an older jeff began it.
        """
        found = self.settings()
        if found is not None and found["sweep_format"] != _FORMAT:
            raise ValueError(
                f"the sweep in {str(self.folder)!r} was begun by an older jeff "
                f"(sweep_format {found['sweep_format']}, now {_FORMAT}) and cannot go "
                "on; read_sweep reads it; give another directory"
            )
        return found

    @contextlib.contextmanager
    def held(self, process: int) -> Iterator[None]:
        """Holds the folder for one process of a sweep; it is made if need be.

        Args:
          process: Number of the process; each may be held once at a time.

        Yields:
          Nothing, while no other sweep can have it.

        Raises:
          OSError: If it cannot be made or written to, or another sweep has it.
        """
        check_writable(self.folder)
        with folder_lock(self.folder, name=f".lock-{process}"):
            yield

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Writes down what a sweep was begun with, or checks that it is the same.

        Args:
          settings: All that its numbers depend on, by name; JSON values.

        Raises:
          OSError: If it cannot be written.
          ValueError: If the folder was begun with other settings (every field that
            differs is named) or by an older jeff, or holds what is not of a sweep.
        """
        wanted = json.loads(json.dumps({"sweep_format": _FORMAT, **settings}))
        there = self.begun()
        if there is None:
            self._check_empty()
            text = json.dumps(wanted, indent=1) + "\n"
            write_atomically(self.folder / SETTINGS_FILE, text)
            there = wanted
        differ = differences(there, wanted, "there", "now")
        if differ:
            raise ValueError(
                f"the sweep in {str(self.folder)!r} was begun with other settings; "
                + "; ".join(differ)
            )
        (self.folder / _UNITS).mkdir(exist_ok=True)

    def finished(self) -> list[int]:
        """Numbers of the units that are there, in order."""
        units = self.folder / _UNITS
        names = (f.name for f in units.iterdir()) if units.is_dir() else ()
        return sorted(int(m[1]) for m in map(_NAME.fullmatch, names) if m)

    def save(self, number: int, stats: Mapping[str, np.ndarray]) -> None:
        """Keeps a unit, in one step.

        Args:
          number: The unit's.
          stats: Its statistics by name, ``[unit, ...]``.

        Raises:
          OSError: If it cannot be written; what was there before still is.
        """
        record = {"place": self._place(number), "checksum": checksum(dict(stats))}
        write_atomically(self._file(number), to_tensors(stats, record))

    def load(self, number: int, shapes: Shapes | None, *, unit: int) -> dict[str, Any]:
        """A unit that is there.

        Args:
          number: The unit's.
          shapes: What each trial gives; ``None``: whatever is there.
          unit: Trials of a unit.

        Returns:
          Its statistics by name, ``[unit, ...]``, equal to the bit.

        Raises:
          ValueError: If the file is damaged, or of another sweep or unit; it is named.
        """
        file = self._file(number)
        try:
            stats, record = from_tensors(file.read_bytes())
            if not isinstance(record, dict) or record.get("place") != (
                place := self._place(number)
            ):
                raise ValueError(f"it is not of this sweep's unit {place['unit']}")
            if record.get("checksum") != checksum(stats):
                raise ValueError("its numbers do not have the checksum written with it")
            there = {n: ((*a.shape[1:],), a.dtype) for n, a in stats.items()}
            lengths = {len(a) for a in stats.values()}
            if lengths != {unit} or there != (
                there if shapes is None else dict(shapes)
            ):
                raise ValueError("its arrays do not have the expected shapes")
        except ValueError as error:
            raise ValueError(
                f"{str(file)!r} is damaged: {error}; delete it to compute it again"
            ) from None
        return stats

    def _file(self, number: int) -> pathlib.Path:
        return self.folder / _UNITS / f"unit-{number:09d}.safetensors"

    def _place(self, number: int) -> dict[str, Any]:
        settings = (self.folder / SETTINGS_FILE).read_bytes()
        return {
            "settings": hashlib.blake2b(settings, digest_size=8).hexdigest(),
            "unit": number,
        }

    def _check_empty(self) -> None:
        """Refuses a folder in which something else lives."""
        others = sorted(
            f.name for f in self.folder.iterdir() if not f.name.startswith(".")
        )
        if others:
            raise ValueError(
                f"directory {str(self.folder)!r} has no {SETTINGS_FILE} but other "
                f"things in it ({', '.join(others[:3])}{', ...' * (len(others) > 3)}); "
                "give an empty or a new one"
            )
