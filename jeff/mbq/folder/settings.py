"""What a quantization from folder to folder is asked to do."""

import dataclasses
import json
import pathlib
import re
from typing import Any

from jeff.io import FORMATS, write_atomically
from jeff.io.formats import check_activations
from jeff.io.tensor_files import MAX_SHARD_BYTES
from jeff.mbq.config import BalanceConfig

__all__ = ["METHODS", "WORK_FOLDER", "FolderSettings", "check_begun", "note_begun"]

METHODS = ("mbq", "awq", "gptq", "smoothquant", "rtn")
"""Names of the methods."""

WORK_FOLDER = ".jeff-quantize"
"""Where finished blocks are kept until all are, in the folder of the result."""

_BEGUN = "job.json"
_DTYPES = ("float32", "bfloat16", "float16")
# What changes the files, but none of the blocks.
_NOT_OF_BLOCKS = ("source", "out", "calibration", "format", "overwrite", "shard_bytes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderSettings:
    """Settings of `jeff.mbq.folder.job.quantize_folder`.

    Attributes:
      source: A Hugging Face folder, one with a GGUF file, or such a file.
      out: Folder of the result.
      calibration: Folder of calibration data (`jeff.mbq.folder.entries`).
      config: How to quantize.
      method: One of `METHODS`.
      format: One of `jeff.io.FORMATS`.
      where: Regular expression; a product whose weight's path has a match is quantized.
      batch_size: Samples per batch; divides their number.
      max_length: A text is cut off after so many tokens; samples with a question never
        are.
      samples: How many samples, drawn without replacement; all, in order, if ``None``.
      seed: Seed of that draw.
      dtype: In which the model runs while it is quantized.
      overwrite: Whether a finished model in `out` may be replaced.
      shard_bytes: Largest size of a file of weights.

    Raises:
      ValueError: If a field is out of range, or the format cannot tell of the width of
        activations.

    Examples:
      >>> from jeff.quantize import QuantConfig
      >>> config = BalanceConfig(weights=QuantConfig(bits=3, group_size=128))
      >>> folders = {name: name for name in ("source", "out", "calibration")}
      >>> FolderSettings(config=config, method="magic", **folders)
      Traceback (most recent call last):
        ...
      ValueError: method must be one of mbq, awq, gptq, smoothquant, rtn: 'magic'
    """

    source: pathlib.Path
    out: pathlib.Path
    calibration: pathlib.Path
    config: BalanceConfig
    method: str = "mbq"
    format: str = "jeff"
    where: str = r"^decoder\.layers\."
    batch_size: int = 1
    max_length: int = 2048
    samples: int | None = None
    seed: int = 0
    dtype: str = "float32"
    overwrite: bool = False
    shard_bytes: int = MAX_SHARD_BYTES

    def __post_init__(self):
        """Checks the fields."""
        for name in ("source", "out", "calibration"):
            object.__setattr__(self, name, pathlib.Path(getattr(self, name)))
        known = {"method": METHODS, "format": FORMATS, "dtype": _DTYPES}
        for name, words in known.items():
            if getattr(self, name) not in words:
                raise ValueError(
                    f"{name} must be one of {', '.join(words)}: {getattr(self, name)!r}"
                )
        check_activations(self.format, self.config.activation_bits)
        least = {"batch_size": 1, "max_length": 2, "samples": 1, "shard_bytes": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ValueError(f"{name} must be at least {bound}, got {value}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        try:
            re.compile(self.where)
        except re.error as error:
            raise ValueError(f"where is no regular expression: {error}") from None
        if self.out.resolve() == self.source.resolve():
            raise ValueError(f"out must be another folder than source: {self.out}")

    def plain(self) -> dict[str, Any]:
        """The settings on which the weights depend, as JSON has them."""
        fields = dataclasses.asdict(self)
        return {n: v for n, v in fields.items() if n not in _NOT_OF_BLOCKS}


def check_begun(settings: FolderSettings) -> None:
    """Refuses to go on with a job that was begun with other settings.

    Args:
      settings: What is to be done now.

    Raises:
      ValueError: If a job in the same folder was begun with others; the first that
        differs is named.
    """
    file = settings.out / WORK_FOLDER / _BEGUN
    try:
        there = json.loads(file.read_text())
    except FileNotFoundError:
        return
    except ValueError:
        there = {}  # cut short: nothing was finished yet, it is written anew
    for name, (old, new) in _differences(there, settings.plain()).items():
        raise ValueError(
            f"{settings.out} was begun with {name}={old!r}, now it is {new!r}; give "
            f"the settings it was begun with, another folder, or delete {file.parent}"
        )


def note_begun(settings: FolderSettings) -> None:
    """Writes down what a job is begun with; the folder is made.

    Args:
      settings: What is to be done.
    """
    folder = settings.out / WORK_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _BEGUN, json.dumps(settings.plain(), indent=1) + "\n")


def _differences(old: Any, new: Any, at: str = "") -> dict[str, tuple[Any, Any]]:
    """What differs, by dotted name; nothing is compared with nothing."""
    if not old:
        return {}
    found = {}
    for name in {**old, **new}:
        a, b = old.get(name), json.loads(json.dumps(new.get(name)))
        if isinstance(a, dict) and isinstance(b, dict):
            found |= _differences(a, b, f"{at}{name}.")
        elif a != b:
            found[f"{at}{name}"] = (a, b)
    return found
