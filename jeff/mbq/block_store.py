"""Finished blocks on the disk, so that a call that was stopped goes on where it was.

A folder holds ``settings.json``, ``sensitivities.safetensors`` where the method weighs
modalities, and one file per finished block, each written in one step. Nothing in it is
ever overwritten.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jeff.io import check_writable, write_atomically
from jeff.mbq import block_file
from jeff.mbq.finished import FinishedBlock

__all__ = ["BlockStore"]

Sensitivities = Mapping[str, Mapping[str, np.ndarray]]
_SETTINGS, _SENSITIVITIES = "settings.json", "sensitivities.safetensors"


class BlockStore:
    """A folder in which a method keeps every block that it has finished.

    Give the same folder to the same call again, and blocks that are in it are read
    instead of computed; the result is the one that an uninterrupted call gives, bit by
    bit. The folder knows the settings, the program, and checksums of the parameters
    and the calibration data that it was begun with, and refuses others. (It cannot
    compare functions: sensitivities that are there are used, whatever `loss` is now.)

    Attributes:
      folder: The folder.

    Examples:
      >>> import tempfile
      >>> import jax, jax.numpy as jnp
      >>> from jeff import mbq
      >>> from jeff.quantize import QuantConfig
      >>> def apply(p, x):
      ...     for w in p["layers"]:
      ...         x = jnp.tanh(x @ w)
      ...     return x
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> params = {"layers": [jax.random.normal(k, (32, 32)) for k in keys]}
      >>> config = mbq.BalanceConfig(weights=QuantConfig(bits=3, group_size=32))
      >>> store = BlockStore(tempfile.mkdtemp())
      >>> batches = [mbq.Batch((jnp.ones((1, 32)),))]
      >>> q = mbq.gptq(apply, params, batches, config, store=store)
      >>> store.finished
      (0, 1, 2)
      >>> same = mbq.gptq(apply, params, batches, config, store=store)  # is read
      >>> bool((same.params["layers"][2].packed == q.params["layers"][2].packed).all())
      True
    """

    def __init__(self, folder: str | os.PathLike[str]):
        """Names the folder; it is made when a method begins.

        Args:
          folder: Its path.
        """
        self.folder = pathlib.Path(folder)

    def __repr__(self) -> str:
        """The class and the folder."""
        return f"BlockStore({str(self.folder)!r})"

    @property
    def finished(self) -> tuple[int, ...]:
        """Numbers of the blocks that are there, counted within their stacks."""
        names = re.compile(r"stack(\d+)-block(\d+)\.safetensors")
        files = self.folder.glob("*.safetensors") if self.folder.is_dir() else ()
        found = (names.fullmatch(f.name) for f in files)
        pairs = sorted((int(m[1]), int(m[2])) for m in found if m)
        return tuple(block for _, block in pairs)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Writes down what a call was begun with, or checks that it is the same.

        Args:
          settings: What the result depends on, by name; JSON values.

        Raises:
          OSError: If the folder cannot be made or written to.
          ValueError: If it was begun with other settings (the first that differs is
            named), or its file of settings is damaged.

        Examples:
          >>> import tempfile
          >>> store = BlockStore(tempfile.mkdtemp())
          >>> store.begin({"method": "awq", "config.grid": 20})
          >>> store.begin({"method": "awq", "config.grid": 10})  # doctest: +ELLIPSIS
          Traceback (most recent call last):
            ...
          ValueError: store '...' was begun with config.grid=20, now it is 10; give ...
        """
        check_writable(self.folder)
        file = self.folder / _SETTINGS
        wanted = json.loads(json.dumps(settings))
        if not file.exists():
            write_atomically(file, json.dumps(wanted, indent=1) + "\n")
            return
        try:
            there = dict(json.loads(file.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{str(file)!r} is damaged: {error}") from None
        for name in {**there, **wanted}:
            old, new = there.get(name), wanted.get(name)
            if old != new:
                raise ValueError(
                    f"store {str(self.folder)!r} was begun with {name}={old!r}, now it "
                    f"is {new!r}; give the settings it was begun with or another folder"
                )

    def has(self, stack: int, block: int) -> bool:
        """Whether a block is there.

        Args:
          stack: Number of the stack.
          block: Number of the block within it.

        Returns:
          True if it is.
        """
        return self._file(stack, block).exists()

    def load(self, stack: int, block: int) -> FinishedBlock:
        """A block that is there.

        Args:
          stack: Number of the stack.
          block: Number of the block within it.

        Returns:
          The block, equal to the bit.

        Raises:
          ValueError: If the file is damaged; it is named.
        """
        file = self._file(stack, block)
        try:
            return block_file.from_bytes(file.read_bytes())
        except ValueError as error:
            raise ValueError(
                f"{str(file)!r} is damaged: {error}; delete it to compute it again"
            ) from None

    def save(self, stack: int, block: int, finished: FinishedBlock) -> None:
        """Keeps a block, in one step.

        Args:
          stack: Number of the stack.
          block: Number of the block within it.
          finished: The block.

        Raises:
          OSError: If it cannot be written.
        """
        write_atomically(self._file(stack, block), block_file.to_bytes(finished))

    def sensitivities(self) -> dict[str, dict[str, np.ndarray]] | None:
        """The sensitivities that are there.

        Returns:
          Per site and modality, ``[blocks]``; ``None`` if there are none.

        Raises:
          ValueError: If the file is damaged; it is named.
        """
        file = self.folder / _SENSITIVITIES
        if not file.exists():
            return None
        try:
            tensors, names = block_file.from_tensors(file.read_bytes())
            seen: dict[str, dict[str, np.ndarray]] = {}
            for number, (site, modality) in enumerate(names):
                seen.setdefault(site, {})[modality] = tensors[str(number)]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{str(file)!r} is damaged: {error}") from None
        return seen

    def save_sensitivities(self, seen: Sensitivities) -> None:
        """Keeps the sensitivities.

        Args:
          seen: Per site and modality, ``[blocks]``.

        Raises:
          OSError: If they cannot be written.
        """
        names = [(site, modality) for site, row in seen.items() for modality in row]
        tensors = {str(i): seen[s][m] for i, (s, m) in enumerate(names)}
        data = block_file.to_tensors(tensors, names)
        write_atomically(self.folder / _SENSITIVITIES, data)

    def _file(self, stack: int, block: int) -> pathlib.Path:
        return self.folder / f"stack{stack}-block{block:04d}.safetensors"
