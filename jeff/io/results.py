"""Result records: one JSON object per run of a system, or per benchmark.

The record's fields, in this order::

  format     1; readers refuse a number they do not know
  system     "mbq", or the benchmark's name
  preset     name of the settings the run started from
  settings   every field of the settings that were used          (optional)
  seed       seed of all random draws
  versions   {"jeff": ..., "python": ..., "jax": ..., ...}
  device     such as "cpu x 1"
  seconds    wall-clock time of the run, compilation included
  measures   [{name, value, unit, baseline, paper, low, high, trials}, ...]
  notes      sentences: which test, which data, which sample size (optional)

Absent values are ``null``. Numbers are finite: NaN and infinity are refused, since
JSON has no word for them and a broken measurement must not look like one.
"""

import json
import math
import os
import pathlib
from typing import Any

from jeff.evaluate.measure import Measure
from jeff.io.atomic import write_atomically

__all__ = [
    "RESULT_FILE",
    "RESULT_FORMAT",
    "read_result",
    "result_text",
    "validate_result",
    "write_result",
]

RESULT_FILE = "result.json"
RESULT_FORMAT = 1

_FIELDS: dict[str, tuple[type, ...]] = {
    "format": (int,),
    "system": (str,),
    "preset": (str,),
    "settings": (dict,),
    "seed": (int,),
    "versions": (dict,),
    "device": (str,),
    "seconds": (int, float),
    "measures": (list,),
    "notes": (list,),
}
_OPTIONAL = {"settings", "notes"}
_MEASURE = ("name", "value", "unit", "baseline", "paper", "low", "high", "trials")


def validate_result(record: Any) -> None:
    """Checks that `record` has the fields above, of the right types, all finite.

    Args:
      record: What will be written, or what was read.

    Raises:
      ValueError: Naming the first field that is missing, unknown, of another type or
        not finite.

    Examples:
      >>> validate_result({"format": 1, "system": "mbq"})
      Traceback (most recent call last):
        ...
      ValueError: field 'preset' is missing
    """
    if not isinstance(record, dict):
        raise ValueError(f"must be an object, not {type(record).__name__}")
    if record.get("format") != RESULT_FORMAT:
        raise ValueError(
            f"field 'format' must be {RESULT_FORMAT}: {record.get('format')!r}"
        )
    for name, kinds in _FIELDS.items():
        if name not in record:
            if name in _OPTIONAL:
                continue
            raise ValueError(f"field {name!r} is missing")
        value = record[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            expected = " or ".join(k.__name__ for k in kinds)
            raise ValueError(f"field {name!r} must be {expected}: {value!r:.60}")
    unknown = sorted(set(record) - set(_FIELDS))
    if unknown:
        raise ValueError(f"unknown fields: {', '.join(map(repr, unknown))}")
    if not math.isfinite(record["seconds"]):
        raise ValueError(f"field 'seconds' is not finite: {record['seconds']}")
    for i, measure in enumerate(record["measures"]):
        _validate_measure(measure, f"measures[{i}]")


def _validate_measure(measure: Any, where: str) -> None:
    if not isinstance(measure, dict) or sorted(measure) != sorted(_MEASURE):
        raise ValueError(f"{where} must have exactly the fields {', '.join(_MEASURE)}")
    try:
        Measure(**measure)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def result_text(record: dict[str, Any]) -> str:
    """The record as the JSON text that `write_result` writes.

    Args:
      record: A record with the fields above.

    Returns:
      Indented JSON with a final newline.

    Raises:
      ValueError: If the record is not valid or holds NaN, infinity or an object that
        JSON cannot express.

    Examples:
      >>> text = result_text({
      ...     "seconds": 0.5, "format": 1, "system": "demo", "preset": "default",
      ...     "seed": 0, "versions": {}, "device": "cpu x 1", "measures": [],
      ... })
      >>> text.splitlines()[:3]  # in the order of the fields above
      ['{', '  "format": 1,', '  "system": "demo",']
    """
    validate_result(record)
    ordered = {name: record[name] for name in _FIELDS if name in record}
    ordered["measures"] = [{k: m[k] for k in _MEASURE} for m in record["measures"]]
    try:
        return json.dumps(ordered, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"record cannot be written as JSON: {error}") from error


def write_result(folder: str | os.PathLike[str], record: dict[str, Any]) -> str:
    """Writes ``folder/result.json`` in one step.

    Args:
      folder: An existing folder.
      record: A record with the fields above.

    Returns:
      The text that was written.

    Raises:
      ValueError: If the record is not valid; nothing is written then.
      OSError: If the folder cannot be written to.

    Examples:
      >>> import tempfile
      >>> record = {
      ...     "format": 1, "system": "demo", "preset": "default", "seed": 0,
      ...     "versions": {}, "device": "cpu x 1", "seconds": 0.5, "measures": [],
      ... }
      >>> folder = tempfile.mkdtemp()
      >>> text = write_result(folder, record)
      >>> read_result(folder) == record
      True
    """
    text = result_text(record)
    write_atomically(pathlib.Path(folder) / RESULT_FILE, text)
    return text


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads and checks a record.

    Args:
      path: A record's file, or a folder with a ``result.json``.

    Returns:
      The record.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If the file is cut short, is not JSON, or is not a result record; the
        message starts with the file's path.

    Examples:
      >>> import tempfile
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> (folder / "result.json").write_text('{"format": 2}')
      13
      >>> try:
      ...     read_result(folder)
      ... except ValueError as error:
      ...     print(str(error).removeprefix(str(folder)))
      /result.json: not a result record: field 'format' must be 1: 2
    """
    file = pathlib.Path(path)
    if file.is_dir():
        file = file / RESULT_FILE
    record = read_json(file)
    try:
        validate_result(record)
    except ValueError as error:
        raise ValueError(f"{file}: not a result record: {error}") from error
    return record


def read_json(file: pathlib.Path) -> Any:
    """Reads strict JSON (no NaN), naming the file in every error.

    Args:
      file: The file.

    Returns:
      What it holds.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is not complete UTF-8 JSON.
    """

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not a number JSON has")

    try:
        return json.loads(file.read_bytes().decode(), parse_constant=refuse)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not a text file: {error}") from error
    except ValueError as error:
        raise ValueError(f"{file}: corrupt or cut short: {error}") from error
