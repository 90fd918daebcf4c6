"""``jeff sites MODULE:FUNCTION``: where a user's program uses its weights."""

import importlib
import json
import os
import sys
from typing import Any

from jeff import program
from jeff.cli import arguments
from jeff.cli.errors import BadInput, RunFailed, one_line

__all__ = ["load_program", "sites"]


def sites(command: arguments.Sites) -> int:
    """Prints the table of sites, or with ``--json`` a list of objects.

    Args:
      command: The arguments.

    Returns:
      Exit code 0.

    Raises:
      BadInput: If the function cannot be found.
      RunFailed: If it or the walk through its program fails.
    """
    apply, params, *inputs = load_program(command.function)
    try:
        found = program.sites(apply, params, *inputs)
    except Exception as error:
        raise RunFailed(f"{command.function}: {one_line(error)}") from error
    if command.json:
        print(json.dumps([site.as_dict() for site in found], indent=2))
    else:
        print(found)
    return 0


def load_program(name: str) -> tuple[Any, ...]:
    """Imports and calls a function that returns a program with its arguments.

    The current folder can be imported from, as with ``python -m``.

    Args:
      name: ``MODULE:FUNCTION``.

    Returns:
      ``(apply, params, *inputs)``.

    Raises:
      BadInput: If `name` has another form, or there is no such module or function.
      RunFailed: If importing or calling fails, or what is returned is no program.

    Examples:
      >>> load_program("jeff")
      Traceback (most recent call last):
        ...
      jeff.cli.errors.BadInput: argument MODULE:FUNCTION: 'jeff' needs the form
      module:name
    """
    module_name, colon, attribute = name.partition(":")
    if not (
        module_name.strip(".") == module_name and module_name and colon and attribute
    ):
        raise BadInput(f"argument MODULE:FUNCTION: {name!r} needs the form module:name")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise RunFailed(f"importing {module_name!r}: {one_line(error)}") from error
        raise BadInput(
            f"argument MODULE:FUNCTION: no module {error.name!r} here or installed"
        ) from error
    except (Exception, SystemExit) as error:
        raise RunFailed(f"importing {module_name!r}: {_said(error)}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise BadInput(
            f"argument MODULE:FUNCTION: module {module_name!r} has no function "
            f"{attribute!r}"
        )
    try:
        returned = function()
    except (Exception, SystemExit) as error:
        raise RunFailed(f"calling {name}: {_said(error)}") from error
    if isinstance(returned, tuple) and len(returned) > 1 and callable(returned[0]):
        return returned
    raise RunFailed(
        f"{name} must return a tuple (apply, params, *inputs), "
        f"not {type(returned).__name__}"
    )


def _said(error: BaseException) -> str:
    """`one_line`; a script's attempt to leave is told as one."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"
    return one_line(error)
