"""What the report shows beyond the measures: tables and plots of one run.

They lie beside the record as ``figures.json``, so that the report can be drawn again
without running anything, and carry the record's digest, so that plots of one run are
never shown with the numbers of another.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from jeff.evaluate.figure import Figure, Series
from jeff.evaluate.measure import Table
from jeff.io.atomic import write_atomically
from jeff.io.results import read_json

__all__ = ["DETAILS_FILE", "Details", "read_details", "write_details"]

DETAILS_FILE = "figures.json"
_FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Details:
    """Tables and figures of one run.

    Attributes:
      tables: In the order of the report.
      figures: By name, in the order of the report.
    """

    tables: tuple[Table, ...] = ()
    figures: Mapping[str, Figure] = dataclasses.field(default_factory=dict)


def write_details(
    folder: str | os.PathLike[str], details: Details, *, result: str
) -> None:
    """Writes ``folder/figures.json`` in one step.

    Args:
      folder: An existing folder.
      details: Tables and figures.
      result: Text of the record they belong to, as `jeff.io.result_text` gives it.

    Raises:
      OSError: If the folder cannot be written to.

    Examples:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> details = Details(tables=(Table(title="t", columns=["a"], rows=[[1]]),))
      >>> write_details(folder, details, result="{}")
      >>> read_details(folder, result="{}").tables[0].rows
      ((1,),)
      >>> read_details(folder, result="{ }") is None  # of another run
      True
    """
    content = {
        "format": _FORMAT,
        "result": _digest(result),
        "tables": [dataclasses.asdict(t) for t in details.tables],
        "figures": {n: dataclasses.asdict(f) for n, f in details.figures.items()},
    }
    text = json.dumps(content, allow_nan=False, ensure_ascii=False)
    write_atomically(pathlib.Path(folder) / DETAILS_FILE, text)


def read_details(folder: str | os.PathLike[str], *, result: str) -> Details | None:
    """Reads the tables and figures that belong to a record.

    Args:
      folder: A system's folder.
      result: The record's text, exactly as it is in its file.

    Returns:
      The details, or ``None`` if there are none or they belong to another run.

    Raises:
      ValueError: If the file is corrupt or of another format; the message starts with
        the file's path.
    """
    file = pathlib.Path(folder) / DETAILS_FILE
    try:
        content = read_json(file)
    except FileNotFoundError:
        return None
    try:
        if content["format"] != _FORMAT:
            raise ValueError(f"format must be {_FORMAT}: {content['format']!r}")
        if content["result"] != _digest(result):
            return None
        return Details(
            tables=tuple(Table(**t) for t in content["tables"]),
            figures={n: _figure(f) for n, f in content["figures"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{file}: not a file of figures: {error!r}") from error


def _figure(fields: dict[str, Any]) -> Figure:
    return Figure(**{**fields, "series": [Series(**s) for s in fields["series"]]})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
