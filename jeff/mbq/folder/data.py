"""The calibration data of a quantization from folder to folder."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jeff.mbq.calibration.batches import Batch
from jeff.mbq.folder.entries import Entry, draw, read_samples
from jeff.mbq.folder.samples import Samples
from jeff.mbq.folder.settings import FolderSettings

__all__ = ["Data", "choose", "read_data"]


class Data(NamedTuple):
    """What to calibrate on.

    Attributes:
      batches: The batches, made when they are asked for.
      tokens: How many tokens of each modality there are in them.
      cut: How many of their texts were cut off.
    """

    batches: Sequence[Batch]
    tokens: dict[str, int]
    cut: int


def choose(entries: list[Entry], settings: FolderSettings) -> list[Entry]:
    """Those entries that the settings ask for; of the others no picture is read.

    Args:
      entries: All of them.
      settings: How many, and how many make a batch.

    Returns:
      The entries, in the order in which they were drawn.

    Raises:
      ValueError: If there are too few, or they are no multiple of a batch.
    """
    if settings.samples is not None:
        try:
            entries = draw(entries, settings.samples, settings.seed)
        except ValueError as error:
            raise ValueError(f"{settings.calibration} {error}") from None
    if len(entries) % settings.batch_size:
        raise ValueError(
            f"{len(entries)} samples are no multiple of "
            f"batch_size={settings.batch_size}"
        )
    return entries


def read_data(
    entries: Sequence[Entry], samples: Samples, settings: FolderSettings
) -> Data:
    """Batches of entries, every one made once to see that it fits the model.

    Args:
      entries: From `choose`.
      samples: What makes samples for the model.
      settings: What is to be done.

    Returns:
      The data.

    Raises:
      ValueError: If an entry does not fit, or no token is of a modality that the method
        needs.
    """
    rows = read_samples(entries, samples, max_length=settings.max_length)
    batches = samples.batches(rows, settings.batch_size)
    counts: dict[str, int] = {}
    for batch in batches:
        for name, mask in batch.masks.items():
            counts[name] = counts.get(name, 0) + int(mask.sum())
    _check_tokens(settings, samples.vision, counts)
    cut = sum(sample.cut > 0 for sample in rows)
    return Data(batches, dict(sorted(counts.items())), cut)


def _check_tokens(
    settings: FolderSettings, vision: bool, tokens: Mapping[str, int]
) -> None:
    """Refuses data from which a method could not tell modalities apart."""
    config = settings.config
    hessian = config.weighted_hessian and (
        settings.method == "gptq" or config.rounding == "gptq"
    )
    if config.reweight == "tokens":
        raise ValueError(
            "reweight='tokens' needs a weight for each token, which a folder of "
            "calibration data does not hold; call jeff.mbq with Batch.weights"
        )
    if config.reweight == "none" or not (settings.method == "mbq" or hessian):
        return
    where = f"{settings.calibration}: {settings.method} weighs tokens by modality"
    if not tokens.get("language"):
        raise ValueError(f"{where}, but no sample has a token of an answer")
    if vision and not tokens.get("vision"):
        raise ValueError(
            f"{where}, but no sample has a token of an image; give pictures, or take "
            "method awq"
        )
