"""A peer's process: started with another Python, asked for one thing at a time."""

import json
import os
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

__all__ = ["PeerProcess"]


class PeerProcess:
    """A script that reads a line of JSON and answers with one.

    A process of its own, since the thread pools of torch and XLA would disturb each
    other in one. Between requests it sleeps. It does not see jeff, nor a GPU.

    Args:
      python: The interpreter that has what the script imports.
      script: The script.
      settings: Its argument, as JSON.
    """

    def __init__(self, python: str, script: pathlib.Path, settings: Mapping[str, Any]):
        """Starts the process."""
        self._process = subprocess.Popen(
            [python, str(script), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": ""},
        )

    def ask(self, request: Mapping[str, Any]) -> Any:
        """The answer to a request.

        Args:
          request: What JSON can hold.

        Returns:
          Likewise.

        Raises:
          OSError: If the process has ended; with the last line of what it said.
        """
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

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
