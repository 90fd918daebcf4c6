"""``--distributed``: this process as one of several."""

import os
import re
import sys

import jax

from jeff.cli.errors import BadInput, RunFailed, one_line

__all__ = ["begin"]


def begin(word: str | None) -> None:
    """Joins the other processes; must come before anything touches a device.

    Args:
      word: ``"auto"``: as Slurm, Kubernetes or MPI say; ``"HOST:PORT,INDEX/COUNT"``;
        ``None``: there are no others.

    Raises:
      BadInput: If the word has another form.
      RunFailed: If the others cannot be found.

    Examples:
      >>> begin("localhost:1234")
      Traceback (most recent call last):
        ...
      jeff.cli.errors.BadInput: argument --distributed: must be auto or
      HOST:PORT,INDEX/COUNT with INDEX below COUNT, got 'localhost:1234'
    """
    if word is None:
        return
    given = {}
    if word != "auto":
        match = re.fullmatch(r"([^,\s]+:\d+),(\d+)/(\d+)", word)
        if match is None or int(match[2]) >= int(match[3]):
            raise BadInput(
                "argument --distributed: must be auto or HOST:PORT,INDEX/COUNT with "
                f"INDEX below COUNT, got {word!r}"
            )
        given = {
            "coordinator_address": match[1],
            "process_id": int(match[2]),
            "num_processes": int(match[3]),
        }
    # The libraries of the exchange print on the process's stdout, which is ours.
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        jax.distributed.initialize(**given)
    except Exception as error:
        raise RunFailed(f"--distributed {word}: {one_line(error)}") from error
