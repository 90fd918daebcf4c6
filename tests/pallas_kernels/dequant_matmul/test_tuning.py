"""Tables of measured settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.dequant_matmul import tuning
from pallas_kernels.dequant_matmul.config import Config, Shapes

SHAPES = Shapes(
    stack=1, rows=1, size=1024, columns=64, bits=3, group_size=128, scale_bytes=3
)
WANT = jnp.arange(1.0, 9.0)


def tune(results, seconds, **options):
    """Tunes over settings by number of stages."""
    timed = []

    def measure(config):
        timed.append(config.stages)
        return seconds[config.stages]

    def run(config):
        result = results[config.stages]
        if isinstance(result, Exception):
            raise result
        return result

    entry = tuning.autotune(
        SHAPES,
        "bfloat16",
        run,
        WANT,
        tolerance=1e-3,
        measure=measure,
        configs=[Config(stages=s) for s in results],
        **options,
    )
    return entry, timed


def test_the_fastest_right_settings_win():
    results = {
        1: WANT,
        2: WANT * 1.0005,
        3: WANT + 1.0,  # wrong
        4: WANT * jnp.nan,
        5: RuntimeError("does not compile"),
    }
    entry, timed = tune(results, {1: 3.0, 2: 2.0, 3: 1.0, 4: 1.0, 5: 1.0})
    assert entry["config"] == {
        "block_columns": 64, "warpgroups": 1, "stages": 2, "split_k": 1,
    }  # fmt: skip
    assert timed == [1, 2]  # a wrong result is never timed
    assert (entry["tried"], entry["failed"], entry["seconds"]) == (5, 3, 2.0)
    np.testing.assert_allclose(entry["error"], 5e-4, rtol=1e-3)


def test_no_right_settings():
    with pytest.raises(RuntimeError, match="none of 1 settings gives a right w3 g128"):
        tune({1: WANT + 1}, {})


def test_all_candidates_are_tried():
    seen = []
    entry = tuning.autotune(
        SHAPES,
        "bfloat16",
        lambda config: WANT,
        WANT,
        tolerance=0.0,
        measure=lambda config: float(seen.append(config) or len(seen)),
    )
    assert entry["tried"] == len(seen) == len(set(seen)) > 10


def test_tables_are_looked_up_by_device(tmp_path, monkeypatch):
    device = jax.devices()[0].device_kind
    path = tuning.table_path(device, tmp_path)
    config = {"block_columns": 128, "warpgroups": 1, "stages": 2, "split_k": 1}
    key = tuning.key_of(SHAPES, "bfloat16")
    monkeypatch.setenv(tuning.TABLES, str(tmp_path))
    tuning._cached.cache_clear()
    assert tuning.lookup(SHAPES, "bfloat16") is None
    tuning.write_table(path, {key: {"config": config, "seconds": 1.0}})
    tuning._cached.cache_clear()
    assert tuning.lookup(SHAPES, "bfloat16") == Config(**config)
    assert tuning.lookup(SHAPES, "float16") is None
    unfit = {**config, "stages": 8, "warpgroups": 2}
    tuning.write_table(path, {key: {"config": unfit, "seconds": 1.0}})
    tuning._cached.cache_clear()
    assert tuning.lookup(SHAPES, "bfloat16") is None
    tuning._cached.cache_clear()


def test_writing_keeps_other_entries(tmp_path):
    path = tmp_path / "folder" / "table.json"
    entry = {"config": {"stages": 2}, "seconds": 1.0}
    tuning.write_table(path, {"a": entry})
    tuning.write_table(path, {"b": entry})
    assert set(tuning.read_table(path)) == {"a", "b"}
    assert [p.name for p in path.parent.iterdir()] == ["table.json"]


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"a": 1}', '{"a": {"config": {"stages": 99}}}', '{"a": {}}']
)
def test_what_is_no_table(tmp_path, text):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"table\.json is no table of settings"):
        tuning.read_table(path)
    with pytest.raises(ValueError, match=r"table\.json is no table of settings"):
        tuning.write_table(path, {})
    assert path.read_text() == text
