"""``jeff quantize DIR``: a model from folder to folder."""

import json
import sys
from typing import Any, cast

from jeff.cli import arguments
from jeff.cli.console import console
from jeff.cli.errors import BadInput, RunFailed, one_line
from jeff.cli.interrupt import heard
from jeff.cli.progress import shown
from jeff.mbq.config import BalanceConfig
from jeff.mbq.folder.job import Prepared, prepare, quantize_folder
from jeff.mbq.folder.settings import WORK_FOLDER, FolderSettings
from jeff.quantize import QuantConfig

__all__ = ["plan", "quantize"]

_BALANCE = (
    "loss", "reweight", "grid", "share", "smoothing", "clip", "clip_tokens", "distort",
    "rounding", "damping", "act_order", "weighted_hessian",
)  # fmt: skip


def plan(command: arguments.Quantize) -> Prepared:
    """Reads model and calibration data and checks what can be checked.

    Args:
      command: The arguments.

    Returns:
      The job, ready to be done.

    Raises:
      BadInput: If an argument, the model or the calibration data do not fit.
    """
    try:
        return prepare(_settings(command))
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise BadInput(one_line(error)) from error


def quantize(command: arguments.Quantize, job: Prepared) -> int:
    """Quantizes; what is finished when it is stopped need not be done again.

    Args:
      command: The arguments.
      job: From `plan`.

    Returns:
      Exit code 0.

    Raises:
      RunFailed: If quantizing fails.
    """
    errors = console(sys.stderr)
    try:
        with shown(command.method, errors) as progress, heard(progress) as told:
            result = quantize_folder(job, told)
    except KeyboardInterrupt:
        work = command.out / WORK_FOLDER
        print(f"jeff: finished blocks are kept in {work}", file=sys.stderr)
        raise
    except Exception as error:
        raise RunFailed(f"quantize: {one_line(error)}") from error
    record = result.record
    if command.json:
        print(json.dumps(record, indent=2))
        return 0
    before, after = record["bytes_at_16_bits"], record["bytes"]
    for note in record["notes"]:
        print(f"jeff: {note}", file=sys.stderr)
    print(
        f"{command.out}: {record['blocks']} blocks by {command.method}, "
        f"{before / 1e6:.4g} MB at 16 bits are {after / 1e6:.4g} MB"
    )
    return 0


def _settings(command: arguments.Quantize) -> FolderSettings:
    """The settings that the arguments mean."""
    both = command.activation_bits is not None
    per_channel = command.group_size == 0 or both and command.group_size is None
    size = None if per_channel else command.group_size or 128
    symmetric = command.symmetric or both
    zero_point: Any = command.zero_point
    if zero_point is None:  # GPTQ's own program extends the range of its groups to 0
        gptq = command.method == "gptq" and not symmetric
        zero_point = "int_incl_zero" if gptq else "int"
    weights = QuantConfig(
        bits=command.bits,
        group_size=size,
        symmetric=symmetric,
        zero_point=zero_point,
        scale_dtype=cast(Any, command.scale_dtype),  # checked there
    )
    given = {name: getattr(command, name) for name in _BALANCE}
    given = {name: value for name, value in given.items() if value is not None}
    return FolderSettings(
        source=command.folder,
        out=command.out,
        calibration=command.calibration,
        method=command.method,
        format=command.format,
        where=command.where,
        batch_size=command.batch_size,
        max_length=command.max_length,
        samples=command.samples,
        seed=command.seed,
        dtype=command.dtype,
        overwrite=command.overwrite,
        shard_bytes=command.shard_bytes,
        config=BalanceConfig(
            weights=weights, activation_bits=command.activation_bits, **given
        ),
    )
