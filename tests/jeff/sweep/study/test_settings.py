"""What a study was begun with is written down once, and compared."""

import pytest

from jeff.io.folder_lock import folder_lock
from jeff.sweep.study.settings import begin_parts


def test_all_is_checked_before_anything_is_written(tmp_path):
    begin_parts(tmp_path, {"map": {"trials": 2}})
    with pytest.raises(ValueError, match="trials: the sweep in .* trials=2, now it is"):
        begin_parts(tmp_path, {"curve": {"trials": 4}, "map": {"trials": 3}})
    assert not (tmp_path / "curve.json").exists()
    with folder_lock(tmp_path), pytest.raises(OSError, match="another call is writing"):
        begin_parts(tmp_path, {"curve": {"trials": 4}})
    begin_parts(tmp_path, {"curve": {"trials": 4}, "map": {"trials": 2}})
    assert (tmp_path / "curve.json").exists()


def test_a_damaged_record_is_named(tmp_path):
    file = tmp_path / "curve.json"
    file.write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        begin_parts(tmp_path, {"curve": {}})
