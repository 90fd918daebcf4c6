"""Prints the set-up commands of the README, one a line, exactly as they stand there.

A command is the fenced block after a line ``<!-- setup: NAME -->``. There must be two,
of one line each: that is all the README promises a new user has to type.
"""

import pathlib
import re
import sys

COMMAND = re.compile(
    r"^<!-- setup: [^\n]+ -->\n```sh\n(.*?)```$", re.MULTILINE | re.DOTALL
)


def commands(text: str) -> list[str]:
    """The set-up commands in the text of a README.

    Raises:
      ValueError: If there are not exactly two, or one spans several lines.
    """
    found = [block.strip() for block in COMMAND.findall(text)]
    if len(found) != 2:
        raise ValueError(f"README must have 2 set-up commands, not {len(found)}")
    for command in found:
        if "\n" in command:
            raise ValueError(f"set-up command of more than one line: {command!r}")
    return found


if __name__ == "__main__":
    print("\n".join(commands(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))))
