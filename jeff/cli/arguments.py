"""What can be typed after ``jeff``: one frozen dataclass per command, read by tyro."""

import contextlib
import dataclasses
import io
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from jeff.cli.errors import BadInput, nearest

__all__ = ["Bench", "Command", "Fetch", "List", "Report", "Run", "Sites", "parse"]

_Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Run one system, or all that are built, and write table, results and report."""

    system: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SYSTEM|all")]
    """A name from `jeff list`, or all."""
    preset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Named settings; the system's first preset if not given."""
    # Both `--set a=1 b=2` and `--set a=1 --set b=2`: a list of lists, flattened below.
    set: Annotated[
        tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]],
        tyro.conf.arg(metavar="FIELD=VALUE ..."),
    ] = ()
    """Change fields of the preset; may be repeated."""
    seed: int = 0
    """Seed of every random draw, 0 to 4294967295."""
    out: Annotated[pathlib.Path, tyro.conf.arg(metavar="DIR")] = pathlib.Path(
        "jeff-out"
    )
    """Folder for DIR/SYSTEM/result.json and the report DIR/index.html."""
    json: _Flag = False
    """Print what result.json holds instead of a table; for all, a list of that."""

    @property
    def changes(self) -> tuple[str, ...]:
        """Every ``field=value`` of every ``--set``, in the order they were typed."""
        return tuple(change for group in self.set for change in group)


@dataclasses.dataclass(frozen=True, kw_only=True)
class List:
    """List the eight systems: what each is, and whether it is built."""

    json: _Flag = False
    """Print a list of objects."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sites:
    """List where the weights of a program are used."""

    function: Annotated[
        tyro.conf.Positional[str], tyro.conf.arg(metavar="MODULE:FUNCTION")
    ]
    """A function that, called without arguments, returns (apply, params, *inputs)."""
    json: _Flag = False
    """Print a list of objects."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Draw the HTML report again from the results in a folder."""

    folder: Annotated[tyro.conf.Positional[pathlib.Path], tyro.conf.arg(metavar="DIR")]
    """What --out of a run was."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fetch:
    """Fetch a real model or data set by name into the folder JEFF_DATA names."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """A package such as easy-vqa; an unknown name lists them all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """Time an operation beside its baselines, after checking what it computes."""

    op: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OP")]
    """What is timed: dequant-matmul, products with packed weights."""
    preset: Annotated[str, tyro.conf.arg(metavar="NAME")] = "small"
    """Named settings: small (a CPU, a minute), full (a GPU), smoke (seconds)."""
    bits: tuple[int, ...] = ()
    """Widths of codes instead of the preset's: of 2, 3, 4 and 8."""
    rows: tuple[int, ...] = ()
    """Rows of the activations instead of the preset's."""
    tune: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="DIR")] = None
    """On a GPU: search the kernel's settings first, and write their table to DIR."""
    seed: int = 0
    """Seed of weights and activations, 0 to 4294967295."""
    out: Annotated[pathlib.Path, tyro.conf.arg(metavar="DIR")] = pathlib.Path(
        "jeff-out"
    )
    """Folder for DIR/OP/result.json, its plot and the report DIR/index.html."""
    json: _Flag = False
    """Print what result.json holds instead of a table."""


Command = Run | List | Sites | Report | Fetch | Bench
_NAMED = {
    "run": Run,
    "list": List,
    "sites": Sites,
    "report": Report,
    "fetch": Fetch,
    "bench": Bench,
}


def parse(argv: Sequence[str] | None) -> Command:
    """Reads the arguments.

    Args:
      argv: Words after ``jeff``; ``None`` takes them from the process.

    Returns:
      One of the command dataclasses.

    Raises:
      BadInput: If they do not fit.
      SystemExit: With code 0, after printing the help that was asked for.

    Examples:
      >>> parse(["run", "mbq", "--seed", "3", "--set", "bits=3"]).changes
      ('bits=3',)
      >>> parse(["run", "mbq", "--seed", "x"])
      Traceback (most recent call last):
        ...
      jeff.cli.errors.BadInput: argument --seed: 'x' is not an integer
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-") and words[0] not in _NAMED:
        raise BadInput(f"unknown command {words[0]!r}; {nearest(words[0], _NAMED)}")
    said = io.StringIO()
    try:
        # tyro explains errors in a box of many lines; keep it, to say it in one.
        with contextlib.redirect_stderr(said):
            command = tyro.extras.subcommand_cli_from_dict(
                _NAMED,
                prog="jeff",
                args=words or ["--help"],
                description="Quantize, restructure and stress any JAX program.",
            )
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise BadInput(_reworded(said.getvalue())) from None
    if isinstance(command, Run | Bench) and not 0 <= command.seed < 2**32:
        raise BadInput(f"argument --seed: must be in [0, {2**32 - 1}]: {command.seed}")
    return command


def _reworded(box: str) -> str:
    """The first paragraph of tyro's box on one line, and its best suggestion."""
    # The box is drawn in lines or, where stdout is not UTF-8, in hyphens and spaces:
    # its title, perhaps a ruler, the message, and a ruler before any hints.
    rows = [row.strip("│╭╮╰╯ ") for row in box.splitlines()[1:]]
    paragraphs = re.split(r"\n?[─-]{3,}\n?", "\n".join(rows))
    first = " ".join(next(p for p in paragraphs if p.strip()).split())
    first = re.sub(r"^Error parsing (\S+):", r"argument \1:", first)
    first = re.sub(r"invalid literal for int.*?: (.+)", r"\1 is not an integer", first)
    first = re.sub(r"^Missing from (jeff \w+): (\S+).*", r"\1: needs \2", first)
    near = re.search(r"Perhaps you meant:\s+(--[\w-]+)", " ".join(rows))
    if near and near.group(1) not in first:
        first += f"; did you mean {near.group(1)}?"
    return first[:1].lower() + first[1:]
