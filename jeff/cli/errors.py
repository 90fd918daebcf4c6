"""The two ways a command fails, each with its exit code, and how they are worded."""

import difflib
import traceback
from collections.abc import Iterable

__all__ = ["BadInput", "RunFailed", "nearest", "one_line"]


class BadInput(Exception):
    """What the user gave cannot be used: exit code 2, before any work starts.

    Examples:
      >>> from jeff.cli import main
      >>> main(["run", "mbq", "--seed", "-1"])  # says why on stderr
      2
    """


class RunFailed(Exception):
    """Something went wrong while working: exit code 1.

    Examples:
      >>> from jeff.cli import main
      >>> main(["run", "all"], registry=())  # nothing to run
      1
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Says which known names there are, and which one was probably meant.

    Args:
      word: What the user wrote.
      known: What would have been right, in order.

    Returns:
      The end of an error message.

    Examples:
      >>> nearest("mqb", ["mbq", "epim"])
      "did you mean 'mbq'? known: mbq, epim"
      >>> nearest("zzz", ["mbq", "epim"])
      'known: mbq, epim'
    """
    names = list(known)
    listing = f"known: {', '.join(names)}" if names else "there are none"
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}? {listing}" if close else listing


def one_line(error: BaseException) -> str:
    """An exception's message on one line; its type and place if it has none.

    Args:
      error: Any exception. The type is named too unless the message is meant for users.

    Returns:
      Text without line breaks.

    Examples:
      >>> one_line(ValueError("group_size must divide 100:\\n  128"))
      'group_size must divide 100: 128'
      >>> one_line(KeyError("a"))
      "KeyError: 'a'"
    """
    text = " ".join(str(error).split())
    if not text:
        # Nothing was said, as by a bare assert: then at least where.
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        return f"{type(error).__name__}{place}"
    plain = isinstance(error, (BadInput, RunFailed, ValueError, OSError))
    return text if plain else f"{type(error).__name__}: {text}"
