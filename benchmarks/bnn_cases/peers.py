"""The peers' process, and its timed runs as programs."""

import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from peer_process import PeerProcess

from bnn_cases.peak import Peak
from pallas_kernels import timing

__all__ = ["Peers"]

_WORKER = pathlib.Path(__file__).with_name("peer_worker.py")


class Peers:
    """bayesian-torch, blitz and plain torch, in a process of their own.

    Args:
      python: The interpreter that has them.
      posterior: `jeff.dm_bnn.MeanField` kernels by name.
      inputs: float32 ``[rows, inputs]``, of which cases take the first.
      seed: Of the peers' draws.

    Attributes:
      names: Who is there.
      missing: Why a peer cannot run, by name; ``"torch"`` if nothing can.
      versions: Of torch and the peers.
      forms: How a contender ran, by ``(name, rows, voters)``.
    """

    def __init__(
        self, python: str, posterior: Mapping[str, Any], inputs: np.ndarray, seed: int
    ):
        """Starts the process."""
        self._folder = tempfile.TemporaryDirectory()
        self._path = pathlib.Path(self._folder.name)
        arrays = {"inputs": inputs}
        for name, w in posterior.items():
            arrays |= {f"{name}.mean": w.mean, f"{name}.std": w.std}
        file = self._path / "network.npz"
        np.savez(file, **{name: np.asarray(a) for name, a in arrays.items()})
        self._process = PeerProcess(python, _WORKER, {"file": str(file), "seed": seed})
        self.forms: dict[tuple[str, int, int], str] = {}
        try:
            started = self._process.ask({"do": "start"})
        except OSError as error:
            started = {"names": [], "missing": {"torch": str(error)}, "versions": {}}
        self.names: list[str] = started["names"]
        self.missing: dict[str, str] = started["missing"]
        self.versions: dict[str, str] = started["versions"]

    def __enter__(self) -> "Peers":
        """Itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Ends the process."""
        self._process.close()
        self._folder.cleanup()

    def program(
        self, name: str, rows: int, voters: int, seconds: float, once: float
    ) -> timing.Program:
        """A contender as a program to time.

        Args:
          name: One of `names`.
          rows: Of the inputs.
          voters: How many.
          seconds: About how long a run is to take.
          once: How long a call takes.

        Returns:
          The program.
        """
        case = {"do": "run", "name": name, "rows": rows, "voters": voters}

        def run(calls: int) -> float:
            told = self._process.ask({**case, "runs": calls})
            self.forms[name, rows, voters] = told["form"]
            return told["seconds"]

        calls = max(1, round(seconds / once))
        return timing.Program(lambda: None, lambda: run(calls), calls, 1, 0)

    def peak(self, name: str, rows: int, voters: int) -> Peak:
        """Peak growth of resident memory during a call, and its time."""
        case = {"do": "peak", "name": name, "rows": rows, "voters": voters}
        return Peak(**self._process.ask(case))

    def injected(
        self,
        name: str,
        rows: int,
        voters: int,
        normal: Sequence[np.ndarray],
        uniform: Sequence[np.ndarray] = (),
    ) -> np.ndarray:
        """Outputs with given noise.

        Args:
          name: One of `names`.
          rows: Of the inputs.
          voters: How many.
          normal: What every call of ``normal_`` gives, in order.
          uniform: Likewise of ``uniform_``.

        Returns:
          ``[voters, rows, outputs]``.
        """
        file = self._path / "noise.npz"
        kinds = {"normal": normal, "uniform": uniform}
        arrays = {f"{k}.{i}": a for k, given in kinds.items()
                  for i, a in enumerate(given)}  # fmt: skip
        np.savez(file, **arrays)
        case = {"name": name, "rows": rows, "voters": voters, "file": str(file)}
        return np.array(self._process.ask({"do": "inject", **case})["outputs"])
