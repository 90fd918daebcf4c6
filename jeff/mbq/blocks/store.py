"""Finished blocks on the disk, so that a call that was stopped goes on where it was.

A folder holds ``settings.json``, ``sensitivities.safetensors`` where the method weighs
modalities, and one file per finished block, each written in one step. Nothing in it is
ever overwritten. Every file says which settings and which block it was written for.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jeff.io import check_writable, write_atomically
from jeff.io.folder_lock import folder_lock
from jeff.io.tensor_record import from_tensors, to_tensors
from jeff.mbq.blocks import file as block_file
from jeff.mbq.blocks.finished import FinishedBlock
from jeff.mbq.report import Sensitivities

__all__ = ["BlockStore"]

_CHECKSUM = re.compile(r"[0-9a-f]{16,}$")
_SETTINGS, _SENSITIVITIES = "settings.json", "sensitivities.safetensors"


class BlockStore:
    """A folder in which a method keeps every block that it has finished.

    Give the same folder to the same call again, and blocks that are in it are read
    instead of computed; the result is the one that an uninterrupted call gives, bit by
    bit. The folder knows the versions, the device and the settings that it was begun
    with, and checksums of the traced program, the loss whose gradients weigh tokens,
    the parameters and the calibration data; it refuses others. While a call works with
    it, other calls with the same folder are refused.

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
      ((0, 0), (0, 1), (0, 2))
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
    def finished(self) -> tuple[tuple[int, int], ...]:
        """The blocks that are there: numbers of the stack, and of the block in it."""
        names = re.compile(r"stack(\d+)-block(\d+)\.safetensors")
        files = self.folder.glob("*.safetensors") if self.folder.is_dir() else ()
        found = (names.fullmatch(f.name) for f in files)
        return tuple(sorted((int(m[1]), int(m[2])) for m in found if m))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for the length of a call; it is made if need be.

        Yields:
          Nothing, while no other call can have it.

        Raises:
          OSError: If the folder cannot be made or written to, or another call, here or
            in another process, has it.
        """
        check_writable(self.folder)
        with folder_lock(self.folder):
            yield

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Writes down what a call was begun with, or checks that it is the same.

        Args:
          settings: What the result depends on, by name; JSON values.

        Raises:
          OSError: If the folder cannot be made or written to.
          ValueError: If it was begun with other settings (the first that differs is
            named), or its file of settings is damaged or missing beside blocks.

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
            if self.finished or (self.folder / _SENSITIVITIES).exists():
                raise ValueError(
                    f"store {str(self.folder)!r} has blocks but no {_SETTINGS}, so it "
                    "is not known what they were made with; delete the folder to begin "
                    "anew"
                )
            _write_new(file, json.dumps(wanted, indent=1) + "\n")
        try:
            there = dict(json.loads(file.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{str(file)!r} is damaged: {error}; delete the folder to begin anew"
            ) from None
        for name in {**there, **wanted}:
            old, new = there.get(name), wanted.get(name)
            if old != new:
                raise ValueError(
                    f"store {str(self.folder)!r} was begun with "
                    f"{_difference(name, old, new)}; give the settings it was begun "
                    "with or another folder"
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

    def load(
        self, stack: int, block: int, shapes: Mapping[str, tuple[int, ...]]
    ) -> FinishedBlock:
        """A block that is there.

        Args:
          stack: Number of the stack.
          block: Number of the block within it.
          shapes: Shape of each of its quantized weights, by the template's names.

        Returns:
          The block, equal to the bit.

        Raises:
          ValueError: If the file is damaged, or that of another block or of other
            settings; it is named.
        """
        file = self._file(stack, block)
        try:
            place = self._place(stack=stack, block=block)
            finished = block_file.from_bytes(file.read_bytes(), place)
            there = {n: r.weight.shape for n, r in finished.rounded.items()}
            for name in {**shapes, **there}:
                if there.get(name) != shapes.get(name):
                    raise ValueError(
                        f"weight {name!r} has shape {there.get(name)}, expected "
                        f"{shapes.get(name)}"
                    )
            return finished
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
        place = self._place(stack=stack, block=block)
        data = block_file.to_bytes(finished, place)
        write_atomically(self._file(stack, block), data)

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
            tensors, record = from_tensors(file.read_bytes())
            block_file.check_place(record, self._place())
            seen: dict[str, dict[str, np.ndarray]] = {}
            for number, (site, modality) in enumerate(record["names"]):
                seen.setdefault(site, {})[modality] = tensors[str(number)]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{str(file)!r} is damaged: {error}; delete it to compute it again"
            ) from None
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
        record = {"names": names, "place": self._place()}
        data = to_tensors(tensors, record)
        write_atomically(self.folder / _SENSITIVITIES, data)

    def _file(self, stack: int, block: int) -> pathlib.Path:
        return self.folder / f"stack{stack}-block{block:04d}.safetensors"

    def _place(self, **numbers: int) -> dict[str, Any]:
        """What a file says about where it belongs."""
        settings = (self.folder / _SETTINGS).read_bytes()
        checksum = hashlib.blake2b(settings, digest_size=8).hexdigest()
        return {"settings": checksum, **numbers}


def _write_new(file: pathlib.Path, text: str) -> None:
    """Writes a file in one step, unless somebody else just did."""
    staged = file.with_name(f".{file.name}.{secrets.token_hex(8)}.new")
    write_atomically(staged, text)
    try:
        os.link(staged, file)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        staged.replace(file)
    staged.unlink(missing_ok=True)


def _difference(name: str, old: Any, new: Any) -> str:
    """How a setting differs; checksums say nothing to a reader."""
    plain = [_CHECKSUM.sub("", v) if isinstance(v, str) else v for v in (old, new)]
    if plain[0] == plain[1]:
        return f"other values of {name} than now"
    return f"{name}={plain[0]!r}, now it is {plain[1]!r}"
