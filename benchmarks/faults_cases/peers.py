"""The peers' process: starting it, and its timed runs as programs."""

import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from pallas_kernels.dequant_matmul import timing

__all__ = ["Peers"]

_WORKER = pathlib.Path(__file__).with_name("peer_worker.py")


class Peers:
    """PyTorchFI and MRFI, in a process of their own.

    A process of their own, since the thread pools of torch and XLA would disturb each
    other in one. Between requests it sleeps.

    Args:
      python: The interpreter that has torch, pytorchfi and MRFI.
      arrays: Weights by name.
      images: float32 ``[batch, height, width, 3]``.
      rate: Share of the activations that MRFI hits.
      threads: Numbers of threads to choose from.
      seed: Of the peers' draws.

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
    ):
        """Starts the process."""
        self._folder = tempfile.TemporaryDirectory()
        file = pathlib.Path(self._folder.name) / "network.npz"
        np.savez(file, images=images, **arrays)
        settings = {
            "file": str(file), "batch": len(images), "rate": rate,
            "threads": threads, "seed": seed,
        }  # fmt: skip
        self._process = subprocess.Popen(
            [python, str(_WORKER), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": ""},
        )
        self.forms: dict[str, str] = {}
        try:
            started = self._ask({"do": "start"})
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
        self._process.communicate()
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
            told = self._ask({"do": "run", "case": case, "runs": calls})
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
        return np.array(self._ask({"do": "fault", "fault": fault})["logits"])

    def _ask(self, request: dict[str, Any]) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            assert self._process.stderr is not None
            said = self._process.stderr.read().strip().splitlines()
            raise OSError(said[-1] if said else "the peers' process ended")
        return json.loads(line)
