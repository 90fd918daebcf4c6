"""The peers' process: starting it, and its timed runs as programs."""

import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from peer_process import PeerProcess

from pallas_kernels import timing

__all__ = ["Peers"]

_WORKER = pathlib.Path(__file__).with_name("peer_worker.py")


class Peers:
    """PyTorchFI and MRFI, in a process of their own.

    Args:
      python: The interpreter that has torch, pytorchfi and MRFI.
      arrays: Weights by name.
      images: float32 ``[batch, height, width, 3]``.
      rate: Share of the activations that MRFI hits.
      threads: Numbers of threads to choose from.
      seed: Of the peers' draws.
      padding: Of the network, as in `jeff.models.resnet.apply`.

    Attributes:
      missing: Why a peer cannot run, by name; ``"torch"`` if nothing can.
    """

    def __init__(
        self,
        python: str,
        arrays: Mapping[str, np.ndarray],
        images: np.ndarray,
        *,
        rate: float,
        threads: list[int],
        seed: int,
        padding: str = "both",
    ):
        """Starts the process."""
        self._folder = tempfile.TemporaryDirectory()
        file = pathlib.Path(self._folder.name) / "network.npz"
        np.savez(file, images=images, **arrays)
        settings = {
            "file": str(file), "batch": len(images), "rate": rate,
            "threads": threads, "seed": seed, "padding": padding,
        }  # fmt: skip
        self._process = PeerProcess(python, _WORKER, settings)
        self.forms: dict[str, str] = {}
        try:
            started = self._process.ask({"do": "start"})
        except OSError as error:
            started = {"cases": [], "versions": {}, "logits": []}
            started["missing"] = {"torch": str(error)}
        self.cases, self.missing = started["cases"], started["missing"]
        self.versions: dict[str, str] = started["versions"]
        self.logits = [np.array(y, np.float32) for y in started["logits"]]

    def __enter__(self) -> "Peers":
        """Itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Ends the process."""
        self._process.close()
        self._folder.cleanup()

    def program(self, case: str, images: int, seconds: float) -> timing.Program:
        """A case as a program to time; the form that is fastest is found here.

        Args:
          case: One of `cases`.
          images: What is counted, of a call.
          seconds: About how long a run is to take.

        Returns:
          The program.
        """

        def run(calls: int) -> float:
            told = self._process.ask({"do": "run", "case": case, "runs": calls})
            self.forms[case] = f"{told['form']}, {told['threads']} threads"
            return told["seconds"]

        run(1)
        calls = max(1, round(seconds / run(1)))
        return timing.Program(
            first=lambda: None,
            run=lambda: run(calls),
            products=images * calls,
            sets=1,
            nbytes=0,
        )

    def weight_fault(self, layer: int, place: list[int], value: float) -> np.ndarray:
        """Logits with one weight set to a value.

        Args:
          layer: Number of the convolution, in PyTorchFI's order.
          place: ``[out, in, row, column]``.
          value: The value.

        Returns:
          ``[batch, classes]``.
        """
        fault = {"layer": layer, "place": place, "value": value}
        return np.array(self._process.ask({"do": "fault", "fault": fault})["logits"])
