"""Calibration data in a folder, as samples for a published model.

Every ``*.jsonl`` has an object per line: ``{"image": FILE, "prompt": ..., "answer":
...}``, with files relative to the folder, several in a list, and ``image`` and
``answer`` left out where there is none; or ``{"text": ...}``. Every ``*.npz`` has
ready-made rows: ``input_ids``, ``attention_mask``, ``labels`` (-100 outside of the
answer) and what a processor makes of pictures, ``pixel_values`` with ``image_sizes``
(LLaVA-OneVision) or ``image_grid_thw`` (Qwen2-VL).
"""

import json
import os
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jeff.mbq.model_samples import Sample, Samples
from jeff.models.pictures import read_picture

__all__ = ["Entry", "read_entries", "read_samples"]

_KEYS = {"image", "prompt", "answer", "text"}


class Entry(NamedTuple):
    """A line of a JSONL file, or an NPZ file as a whole.

    Attributes:
      where: File, and line if it has lines.
      content: The line's object; ``None`` for an NPZ file.
      images: Files of its pictures.
    """

    where: str
    content: dict[str, Any] | None
    images: tuple[pathlib.Path, ...] = ()


def read_entries(folder: str | os.PathLike[str]) -> list[Entry]:
    """What is in a folder, checked as far as no model is needed for it.

    Args:
      folder: Holds ``*.jsonl`` and ``*.npz`` files; read in the order of their names.

    Returns:
      The entries; no picture is read.

    Raises:
      ValueError: If there is no such folder, no such file in it or no line in those,
        or a line is no such object or names a picture that is not there; file and line
        are named.

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
            entries.append(Entry(str(file), None))
            continue
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: cannot be read: {error}") from error
        entries += [
            _entry(f"{file}:{number}", line, place)
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]
    if not entries:
        raise ValueError(f"{place}: its files have no line")
    return entries


def read_samples(entries: Sequence[Entry], samples: Samples) -> list[Sample]:
    """The samples of entries.

    Args:
      entries: From `read_entries`.
      samples: What makes samples for the model.

    Returns:
      A sample per line, and those of the NPZ files.

    Raises:
      ValueError: If a picture cannot be read, or an entry does not fit the model; file
        and line are named.
    """
    found = []
    for entry in entries:
        try:
            found += _samples(entry, samples)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{entry.where}: {error}") from error
    return found


def _samples(entry: Entry, samples: Samples) -> list[Sample]:
    content = entry.content
    if content is None:
        try:
            with open(entry.where, "rb") as file:
                return samples.of_arrays(np.load(file, allow_pickle=False))
        except (OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"cannot be read: {error}") from error
    if "text" in content:
        return [samples.of_text(content["text"])]
    pictures = [read_picture(path) for path in entry.images]
    return [samples.of_chat(content["prompt"], content.get("answer"), pictures)]


def _entry(where: str, line: str, folder: pathlib.Path) -> Entry:
    """One line, checked."""
    try:
        content = json.loads(line)
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
    paths = tuple(folder / image for image in images)
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{where}: there is no picture {path}")
    return Entry(where, content, paths)
