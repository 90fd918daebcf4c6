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
from jeff.io.atomic import write_together
from jeff.io.results import RESULT_FILE, read_json, result_text

__all__ = ["DETAILS_FILE", "Details", "read_details", "write_run"]

DETAILS_FILE = "figures.json"
_FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Details:
    """Tables and figures of one run.

    Attributes:
      tables: In the order of the report.
      figures: By name, in the order of the report.

    Examples:
      >>> table = Table(title="Layers", columns=["layer", "bits"], rows=[["q", 3]])
      >>> Details(tables=(table,)).tables[0].columns
      ('layer', 'bits')
    """

    tables: tuple[Table, ...] = ()
    figures: Mapping[str, Figure] = dataclasses.field(default_factory=dict)


def write_run(
    folder: str | os.PathLike[str], record: dict[str, Any], details: Details
) -> str:
    """Writes ``folder/figures.json`` and ``folder/result.json``, both or none.

    Args:
      folder: An existing folder.
      record: A record as `jeff.io.write_result` takes it.
      details: Its tables and figures.

    Returns:
      The record's text.

    Raises:
      ValueError: If the record is not valid; nothing is written then.
      OSError: If the folder cannot be written to or the disk is full; both files are
        then as before.

    Examples:
      >>> import tempfile
      >>> record = {
      ...     "format": 1, "system": "demo", "preset": "default", "seed": 0,
      ...     "versions": {}, "device": "cpu x 1", "seconds": 0.5, "measures": [],
      ... }
      >>> folder = tempfile.mkdtemp()
      >>> details = Details(tables=(Table(title="t", columns=["a"], rows=[[1]]),))
      >>> text = write_run(folder, record, details)
      >>> read_details(folder, result=text).tables[0].rows
      ((1,),)
      >>> read_details(folder, result="{}") is None  # of another run
      True
    """
    result = result_text(record)
    content = {
        "format": _FORMAT,
        "result": _digest(result),
        "tables": [dataclasses.asdict(t) for t in details.tables],
        "figures": {n: dataclasses.asdict(f) for n, f in details.figures.items()},
    }
    text = json.dumps(content, allow_nan=False, ensure_ascii=False)
    place = pathlib.Path(folder)
    # The record comes last: whoever sees it finds its figures.
    write_together({place / DETAILS_FILE: text, place / RESULT_FILE: result})
    return result


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

    Examples:
      >>> import tempfile
      >>> read_details(tempfile.mkdtemp(), result="{}") is None  # an empty folder
      True
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
