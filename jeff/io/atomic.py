"""Writing files so that a reader sees the old content or the new, never a part."""

import contextlib
import errno
import os
import pathlib
import secrets
import tempfile
from collections.abc import Iterable, Mapping

__all__ = [
    "Content",
    "check_place",
    "check_writable",
    "write_atomically",
    "write_together",
]

Content = str | bytes | Iterable[bytes | memoryview]
"""What a file is to hold: text (written as UTF-8), bytes, or pieces of bytes that are
made as they are written, so that a file of any size takes the memory of one piece."""


def write_atomically(path: str | os.PathLike[str], content: Content) -> None:
    """Replaces a file by new content in one step.

    The content goes to a temporary file in the same folder, is flushed to the disk and
    renamed over `path`. Whatever stops the process, `path` holds the old content or
    the new; of several writers at once the last one wins whole.

    Args:
      path: The file; its folder must exist.
      content: Text (written as UTF-8), bytes, or pieces of bytes, made as needed.

    Raises:
      OSError: If the folder is missing or not writable, or the disk is full; the file
        is named.

    Examples:
      >>> import tempfile, pathlib
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> write_atomically(folder / "a.txt", "hello")
      >>> [f.name for f in folder.iterdir()], (folder / "a.txt").read_text()
      (['a.txt'], 'hello')
    """
    write_together({path: content})


def write_together(
    contents: Mapping[str | os.PathLike[str], Content],
    *,
    remove: Iterable[str | os.PathLike[str]] = (),
) -> None:
    """Replaces files as `write_atomically` does, once all of them are on the disk.

    A full disk, a missing folder or a folder in a file's place is found before the
    first file is replaced. A process that is killed between two renames has replaced
    the first files only.

    Args:
      contents: Text, bytes or pieces of bytes by file; written and renamed in this
        order.
      remove: Files that are removed, in this order, once all contents are on the disk
        and before the first file is replaced; one that is not there is passed over.

    Raises:
      OSError: As `write_atomically`; no file has changed then.

    Examples:
      >>> import tempfile, pathlib
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> write_together({folder / "a.txt": "1", folder / "b.txt": "2"})
      >>> sorted(file.name for file in folder.iterdir())
      ['a.txt', 'b.txt']
    """
    staged: list[tuple[pathlib.Path, pathlib.Path]] = []
    aside: list[tuple[pathlib.Path, pathlib.Path]] = []
    replaced = False
    target = pathlib.Path()
    try:
        for path, content in contents.items():
            target = pathlib.Path(path)
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            temporary = _beside(target)
            staged.append((temporary, target))
            _write(temporary, content.encode() if isinstance(content, str) else content)
        for target in map(pathlib.Path, remove):
            with contextlib.suppress(FileNotFoundError):
                aside.append((_beside(target), target))
                target.replace(aside[-1][0])
        for temporary, target in staged:
            temporary.replace(target)
            replaced = True
    except BaseException as error:
        for temporary, _ in staged:
            with contextlib.suppress(OSError):
                temporary.unlink()
        for temporary, old in aside:
            with contextlib.suppress(OSError):
                temporary.unlink() if replaced else os.replace(temporary, old)
        if isinstance(error, OSError) and error.errno is not None:
            # The system names the temporary file, or none at all when a disk is full.
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
    for temporary, _ in aside:
        temporary.unlink(missing_ok=True)
    for folder in {target.parent for _, target in staged}:
        _sync_folder(folder)


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


def check_place(folder: str | os.PathLike[str]) -> None:
    """Proves that a folder can be written to, or made; makes and removes nothing.

    So several processes may check one place at the same time.

    Args:
      folder: Where results will go.

    Raises:
      OSError: If the folder, or where there is none the nearest one above it, cannot be
        written to.

    Examples:
      >>> import tempfile, pathlib
      >>> place = pathlib.Path(tempfile.mkdtemp()) / "a" / "b"
      >>> check_place(place)
      >>> place.parent.exists()
      False
    """
    path = pathlib.Path(folder)
    check_writable(next(p for p in (path, *path.absolute().parents) if p.exists()))


def _beside(file: pathlib.Path) -> pathlib.Path:
    """A name in the same folder that no other writer uses."""
    return file.with_name(f".{file.name}.{secrets.token_hex(8)}.tmp")


def _write(file: pathlib.Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    with file.open("xb") as stream:
        for piece in [data] if isinstance(data, bytes) else data:
            stream.write(piece)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: pathlib.Path) -> None:
    """Makes the rename itself durable, where the system lets folders be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
