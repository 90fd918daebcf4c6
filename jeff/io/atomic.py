"""Writing files so that a reader sees the old content or the new, never a part."""

import os
import pathlib
import secrets
import tempfile

__all__ = ["check_writable", "write_atomically"]


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Replaces a file by new content in one step.

    The content goes to a temporary file in the same folder, is flushed to the disk and
    renamed over `path`. Whatever stops the process, `path` holds the old content or
    the new; of several writers at once the last one wins whole.

    Args:
      path: The file; its folder must exist.
      content: Text (written as UTF-8) or bytes.

    Raises:
      OSError: If the folder is missing or not writable.

    Examples:
      >>> import tempfile, pathlib
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> write_atomically(folder / "a.txt", "hello")
      >>> [f.name for f in folder.iterdir()], (folder / "a.txt").read_text()
      (['a.txt'], 'hello')
    """
    target = pathlib.Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def check_writable(folder: str | os.PathLike[str]) -> pathlib.Path:
    """Makes a folder if need be and proves that files can be created in it.

    Args:
      folder: Where results will go; parents are made too.

    Returns:
      The folder as a path.

    Raises:
      OSError: If the folder cannot be made or written to.

    Examples:
      >>> import tempfile, pathlib
      >>> made = check_writable(pathlib.Path(tempfile.mkdtemp()) / "a" / "b")
      >>> made.is_dir(), list(made.iterdir())
      (True, [])
    """
    path = pathlib.Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass
    return path


def _sync_folder(folder: pathlib.Path) -> None:
    """Makes the rename itself durable, where the system lets folders be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
