"""The lines under every table of a record: its notes, and the command that made it."""

from typing import Any

__all__ = ["made", "noted"]


def noted(record: dict[str, Any]) -> list[str]:
    """A record's notes as a list.

    Args:
      record: Of a benchmark.

    Returns:
      Lines of Markdown.

    Examples:
      >>> noted({"notes": ["one | two"]})
      ['- one \\\\| two']
    """
    return [f"- {note}".replace("|", "\\|") for note in record["notes"]]


def made(
    command: str, record: dict[str, Any], options: str = "", *, default: str = "default"
) -> str:
    """The command that makes a record again, and with what it was made.

    Args:
      command: Without its preset.
      record: Of a benchmark.
      options: What else it was given, with a space before each.
      default: The preset that needs no naming.

    Returns:
      A sentence.

    Examples:
      >>> record = {"preset": "smoke", "device": "cpu x 1", "versions": {"jax": "0.10"}}
      >>> made("python one.py", record)
      'Made by `python one.py --preset smoke` on cpu x 1 (jax 0.10).'
    """
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
    preset = record.get("preset", default)
    chosen = "" if preset == default else f" --preset {preset}"
    called = f"{command}{chosen}{options}"
    return f"Made by `{called}` on {record['device']} ({versions})."
