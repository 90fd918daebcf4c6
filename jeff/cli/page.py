"""The HTML report: one self-contained page from the results in a folder."""

import dataclasses
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

import jinja2

from jeff.cli import arguments
from jeff.cli.errors import BadInput, one_line
from jeff.cli.plots import svg
from jeff.cli.quantity import estimate, quantity
from jeff.cli.systems import System, is_available
from jeff.io import (
    DETAILS_FILE,
    RESULT_FILE,
    Details,
    check_writable,
    read_details,
    read_result,
    write_atomically,
)

__all__ = ["PAGE_FILE", "rebuild", "report", "write_report"]

PAGE_FILE = "index.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Section:
    """What the template shows about one system."""

    system: System
    record: dict[str, Any]
    groups: list[dict[str, Any]]
    figures: list[dict[str, str]]
    tables: list[dict[str, Any]]
    stale: bool
    level: str


def report(command: arguments.Report, registry: Sequence[System]) -> int:
    """``jeff report DIR``: draws the page again and prints where it is.

    Args:
      command: The arguments.
      registry: The known systems.

    Returns:
      Exit code 0.

    Raises:
      BadInput: As `rebuild`.
    """
    print(f"report: {rebuild(command.folder, registry)}")
    return 0


def rebuild(folder: pathlib.Path, registry: Sequence[System]) -> pathlib.Path:
    """Draws the page again, and insists that it can.

    Args:
      folder: What ``--out`` of a run was.
      registry: The known systems.

    Returns:
      The page's file.

    Raises:
      BadInput: If there is no such folder, no result in it, a file in it is corrupt,
        or the page cannot be written.
    """
    if not folder.is_dir():
        raise BadInput(f"argument DIR: no folder {str(folder)!r}")
    if not _result_folders(folder):
        raise BadInput(
            f"argument DIR: no results in {str(folder)!r} "
            f"(looked for {folder / '*' / RESULT_FILE})"
        )
    try:
        check_writable(folder)
    except OSError as error:
        raise BadInput(
            f"argument DIR: cannot write to {str(folder)!r}: {error.strerror}"
        ) from error
    return write_report(folder, registry, strict=True)


def write_report(
    folder: pathlib.Path, registry: Sequence[System], *, strict: bool = False
) -> pathlib.Path:
    """Writes ``folder/index.html`` from every result in the folder.

    Args:
      folder: Where ``SYSTEM/result.json`` files are.
      registry: The known systems; gives the order and the descriptions.
      strict: Whether a corrupt file is an error; if not, it is said on stderr and its
        system left out.

    Returns:
      The page's file.

    Raises:
      BadInput: If `strict` and a file is corrupt; nothing is written then.
    """
    sections = []
    for place in _result_folders(folder):
        try:
            sections.append(_section(place, registry))
        except (ValueError, OSError) as error:
            if strict:
                raise BadInput(one_line(error)) from error
            print(f"jeff: left out of the report: {one_line(error)}", file=sys.stderr)
    order = {s.name: i for i, s in enumerate(registry)}
    sections.sort(key=lambda s: (order.get(s.system.name, len(order)), s.system.name))
    planned = [s for s in registry if not is_available(s)]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jeff.cli"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["quantity"] = quantity
    environment.filters["link"] = _link
    page = environment.get_template("report.html").render(
        sections=sections, planned=planned
    )
    write_atomically(folder / PAGE_FILE, page)
    return folder / PAGE_FILE


def _result_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(file.parent for file in folder.glob(f"*/{RESULT_FILE}"))


def _section(folder: pathlib.Path, registry: Sequence[System]) -> _Section:
    record = read_result(folder)
    text = (folder / RESULT_FILE).read_text(encoding="utf-8")
    details = read_details(folder, result=text)
    name = record["system"]
    known = {s.name: s for s in registry}
    says = record.get("settings", {})
    system = known.get(name) or System(
        name=name,
        title=str(says.get("title", name)),
        summary=str(says.get("summary", "")),
        paper="",
        entry="",
    )
    stale = details is None and (folder / DETAILS_FILE).exists()
    details = details or Details()
    return _Section(
        system=system,
        record=record,
        groups=_groups(record["measures"]),
        figures=[
            {
                "title": figure.title,
                "caption": figure.caption,
                "svg": svg(figure, name=re.sub(r"\W", "-", f"{folder.name}-{key}")),
            }
            for key, figure in details.figures.items()
        ],
        tables=[dataclasses.asdict(table) for table in details.tables],
        stale=stale,
        level=f"{100 * _level(says):g}",
    )


def _level(settings: dict[str, Any]) -> float:
    """Confidence level of a record's intervals."""
    level = settings.get("level")
    return level if isinstance(level, float) else 0.95


def _groups(measures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Measures with the same word before the first dot, on one scale."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for measure in measures:
        groups.setdefault(measure["name"].partition(".")[0], []).append(measure)
    return [{"name": name, "rows": _rows(members)} for name, members in groups.items()]


def _rows(members: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one group, each with the places of its marks in percent of the width."""
    ends = [
        m[k] for m in members for k in ("value", "low", "high", "baseline")
        if m[k] is not None
    ]  # fmt: skip
    low, high = min(ends), max(ends)
    comparable = len({m["unit"] for m in members}) == 1 and high > low

    def place(x: float | None) -> float | None:
        if x is None or not comparable:
            return None
        return round(4 + 92 * (x - low) / (high - low), 2)

    rows = []
    for m in members:
        unit = m["unit"]
        number, suffix, interval = estimate(m["value"], m["low"], m["high"], unit)
        cited = {
            k: "" if m[k] is None else quantity(m[k], unit)
            for k in ("baseline", "paper")
        }
        rows.append(
            {
                "label": m["name"].partition(".")[2] or m["name"],
                "name": m["name"],
                "number": number,
                "unit": suffix,
                "interval": interval,
                "trials": m["trials"],
                "at": {k: place(m[k]) for k in ("value", "low", "high", "baseline")},
                **cited,
            }
        )
    return rows


def _link(paper: str) -> str | None:
    """Address of a paper given as ``arXiv NUMBER``."""
    match = re.fullmatch(r"arXiv (\d{4}\.\d{4,5})", paper)
    return f"https://arxiv.org/abs/{match.group(1)}" if match else None
