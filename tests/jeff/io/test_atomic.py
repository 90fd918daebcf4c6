import errno
import os
import pathlib
import stat

import pytest

from jeff.io import atomic, check_writable, write_atomically, write_together


def test_replaces_whole_and_leaves_nothing_beside(tmp_path):
    file = tmp_path / "a.json"
    write_atomically(file, "long old content")
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new" and os.listdir(tmp_path) == ["a.json"]


def test_a_failure_keeps_the_old_file_and_removes_the_new(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_atomically(file, "old")

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(pathlib.Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, "new")
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_changes_no_file_and_names_the_one(tmp_path, monkeypatch):
    files = tmp_path / "a", tmp_path / "b"
    write_together({file: "old" for file in files})
    write = atomic._write

    def full(file, data):
        write(file, data[:1])
        if ".b." in file.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic, "_write", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_together({file: "new" for file in files})
    assert caught.value.filename == str(files[1])
    assert [file.read_text() for file in files] == ["old", "old"]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_folder_in_the_way_is_found_first(tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_together({tmp_path / "a": "1", tmp_path / "b": "2"})
    assert caught.value.filename == str(tmp_path / "b")
    assert os.listdir(tmp_path) == ["b"]


def test_the_file_gets_the_usual_mode(tmp_path):
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_check_writable_refuses_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        check_writable(tmp_path / "file" / "sub")
    with pytest.raises(OSError):
        check_writable(tmp_path / "file")
