"""One writer of a folder at a time."""

import contextlib
import errno
import pathlib
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

__all__ = ["folder_lock"]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def folder_lock(folder: pathlib.Path, *, name: str = ".lock") -> Iterator[None]:
    """Holds a folder, against other processes and other calls of this one.

    The system lets go when the process ends, however it ends. Where it has no locks
    (not POSIX, or a file system without them) nothing is held.

    Args:
      folder: A folder that exists; an empty file is left in it.
      name: The file's name; writers under different names do not exclude each other.

    Yields:
      Nothing, while the folder is held.

    Raises:
      OSError: If somebody else holds it, or the file cannot be made.

    Examples:
      >>> import tempfile
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> with folder_lock(folder):
      ...     print([f.name for f in folder.iterdir()])
      ['.lock']
    """
    with (folder / name).open("ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    errno.EAGAIN,
                    "another call is writing there; let it end, or give another folder",
                    str(folder),
                ) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
        yield  # closing the file lets go
