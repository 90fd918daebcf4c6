"""Calibration data in a folder, as samples for a published model.

Every ``*.jsonl`` has an object per line: ``{"image": FILE, "prompt": ..., "answer":
...}``, with files relative to the folder, several in a list, and ``image`` and
``answer`` left out where there is none; or ``{"text": ...}``. Every ``*.npz`` has
ready-made rows: ``input_ids``, ``attention_mask``, ``labels`` (-100 outside of the
answer) and what a processor makes of pictures, ``pixel_values`` with ``image_sizes`` or
``image_grid_thw``, whichever the model has. These are held as they are; of a picture
only its file is, and its pixels are made each time they are asked for.
"""

import contextlib
import functools
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jeff.mbq.folder.samples import Sample, Samples, matrix
from jeff.models.vision.pictures import read_picture

__all__ = ["Entry", "draw", "read_entries", "read_samples"]

_KEYS = {"image", "prompt", "answer", "text"}


class Entry(NamedTuple):
    """A line of a JSONL file, or a row of an NPZ file: what becomes one sample.

    Attributes:
      where: File, and line if it has lines.
      content: The line's object; ``None`` for an NPZ file.
      images: Files of its pictures.
      row: Which row of an NPZ file.
    """

    where: str
    content: dict[str, Any] | None
    images: tuple[pathlib.Path, ...] = ()
    row: int = 0


def read_entries(folder: str | os.PathLike[str]) -> list[Entry]:
    """What is in a folder, checked as far as no model is needed for it.

    Args:
      folder: Holds ``*.jsonl`` and ``*.npz`` files; read in the order of their names.

    Returns:
      An entry per line and row; no picture is read.

    Raises:
      ValueError: If there is no such folder, no such file in it or no line in those,
        or a line is no such object or names a picture that is not there or outside of
        the folder, or rows have no tokens; file and line are named.

    Examples:
      >>> import tempfile
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> _ = (folder / "a.jsonl").write_text('{"text": "It rains."}')
      >>> [entry.content for entry in read_entries(folder)]
      [{'text': 'It rains.'}]
    """
    place = pathlib.Path(folder)
    if not place.is_dir():
        raise ValueError(f"there is no folder {place}")
    files = sorted(p for p in place.iterdir() if p.suffix in (".jsonl", ".npz"))
    if not files:
        raise ValueError(f"{place} has neither *.jsonl nor *.npz files")
    entries = []
    for file in files:
        if file.suffix == ".npz":
            entries += [Entry(str(file), None, row=i) for i in range(_rows(file))]
            continue
        try:  # a string of JSON may hold any line separator but this one
            lines = file.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: cannot be read: {error}") from error
        entries += [
            _entry(f"{file}:{number}", line, place)
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]
    if not entries:
        raise ValueError(f"{place}: its files hold no sample")
    return entries


def draw(entries: Sequence[Entry], count: int, seed: int) -> list[Entry]:
    """Some of the entries, without replacement.

    Args:
      entries: From `read_entries`.
      count: How many.
      seed: Of the draw.

    Returns:
      The entries, in the order in which they were drawn.

    Raises:
      ValueError: If there are not so many.

    Examples:
      >>> [entry.where for entry in draw([Entry("a", {}), Entry("b", {})], 1, seed=0)]
      ['a']
    """
    if count > len(entries):
        raise ValueError(f"has {len(entries)} samples, samples={count} were asked for")
    order = np.random.default_rng(seed).permutation(len(entries))
    return [entries[i] for i in order[:count]]


def read_samples(
    entries: Sequence[Entry], samples: Samples, *, max_length: int | None = None
) -> list[Sample]:
    """The samples of entries.

    Args:
      entries: From `read_entries`.
      samples: What makes samples for the model.
      max_length: Cut texts off after so many tokens; not at all if ``None``.

    Returns:
      A sample per entry.

    Raises:
      ValueError: If a picture cannot be read, or an entry does not fit the model; file
        and line are named.
    """
    stored: dict[str, list[Sample]] = {}
    found = []
    for entry in entries:
        try:
            if entry.content is not None:
                found.append(_sample(entry, entry.content, samples, max_length))
                continue
            if entry.where not in stored:
                with _opened(entry.where) as arrays:
                    stored[entry.where] = samples.of_arrays(arrays)
            found.append(stored[entry.where][entry.row])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{entry.where}: {error}") from error
    return found


def _sample(
    entry: Entry, content: dict[str, Any], samples: Samples, max_length: int | None
) -> Sample:
    if "text" in content:
        return samples.of_text(content["text"], max_length=max_length)
    pictures = [functools.partial(read_picture, path) for path in entry.images]
    return samples.of_chat(content["prompt"], content.get("answer"), pictures)


@contextlib.contextmanager
def _opened(file: str | os.PathLike[str]) -> Iterator[Any]:
    """The arrays of an NPZ file."""
    try:
        with open(file, "rb") as stream:
            arrays = np.load(stream, allow_pickle=False)
            if not isinstance(arrays, Mapping):
                raise ValueError("is no NPZ file")
            yield arrays
    except (OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot be read: {error}") from error


def _rows(file: pathlib.Path) -> int:
    """How many samples an NPZ file holds."""
    try:
        with _opened(file) as arrays:
            return len(matrix(arrays, "input_ids"))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _entry(where: str, line: str, folder: pathlib.Path) -> Entry:
    """One line, checked."""
    try:
        content = json.loads(line)
    except RecursionError:
        raise ValueError(f"{where}: is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{where}: no JSON: {error}") from None
    if not isinstance(content, dict) or not {"prompt", "text"} & set(content):
        raise ValueError(f'{where}: must be an object with "prompt" or "text"')
    unknown = sorted(set(content) - _KEYS)
    if unknown:
        known = ", ".join(sorted(_KEYS))
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; known are {known}")
    if "text" in content and len(content) > 1:
        raise ValueError(f'{where}: "text" stands alone, or there is a "prompt"')
    for name in ("prompt", "answer", "text"):
        value = content.get(name)
        if name in content and (not isinstance(value, str) or not value.strip()):
            raise ValueError(f"{where}: {name} must be words, got {value!r}")
    images = content.get("image", [])
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not all(isinstance(i, str) for i in images):
        raise ValueError(f"{where}: image must be a file or a list of files")
    for image in images:
        path = pathlib.PurePath(image)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{where}: image must be in the folder: {image!r}")
        if not _is_file(folder / path):
            raise ValueError(f"{where}: there is no picture {folder / path}")
    return Entry(where, content, tuple(folder / image for image in images))


def _is_file(path: pathlib.Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
