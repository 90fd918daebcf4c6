import os
import pathlib
import stat

import pytest

from jeff.io import check_writable, write_atomically


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
