"""What all writers of quantized checkpoints have in common."""

import os
from collections.abc import Mapping
from typing import Any

from jeff.io.checkpoint import CONFIG_FILE
from jeff.io.tensor_files import Piece, json_text, write_tensor_files

__all__ = ["Extra", "Units", "write_checkpoint"]

Units = Mapping[str, Mapping[str, Piece]]
"""The pieces of each tensor by name."""

Extra = Mapping[str, str | bytes]
"""What further files hold, by name."""


def write_checkpoint(
    folder: str | os.PathLike[str],
    units: Units,
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    max_shard_bytes: int,
    metadata: Mapping[str, str] | None = None,
    extra: Extra | None = None,
) -> tuple[str, ...]:
    """Writes the tensors of a quantized model and, last, its configuration.

    A configuration that is there goes before the first file is replaced, so a folder
    that has one is a finished model, whenever the process was killed.

    Args:
      folder: Where to; made if need be.
      units: The pieces of each tensor by name.
      config: The model's ``config.json``.
      settings: Its ``quantization_config``, which replaces one that is there.
      max_shard_bytes: Largest size of a file with more than one tensor.
      metadata: Text for the header of every file, besides ``"format": "pt"``, which
        transformers asks for.
      extra: Text or bytes of further files by name.

    Returns:
      Names of the files written.

    Raises:
      ValueError: If `config` or `settings` cannot be written as JSON, and as
        `jeff.io.tensor_files.write_tensor_files`; nothing is written then.
    """
    text = json_text({**config, "quantization_config": dict(settings)})
    return write_tensor_files(
        folder,
        units,
        metadata={**(metadata or {}), "format": "pt"},
        extra={**(extra or {}), CONFIG_FILE: text},
        seal=CONFIG_FILE,
        max_shard_bytes=max_shard_bytes,
    )
