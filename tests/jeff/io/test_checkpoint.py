"""Folders of tensors: sharded, in bfloat16, cut short, or not there."""

import json
import re

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jeff.io import checkpoint

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3).astype(ml_dtypes.bfloat16),
    "b": np.ones(4, np.float16),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    save_file(ARRAYS, tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path


def sharded(folder, places):
    (folder / "model.safetensors").unlink()
    for file in {*places.values()} - {"gone.safetensors"}:
        save_file(
            {n: ARRAYS[n] for n in ("a", "b") if places[n] == file}, folder / file
        )
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_one_file(folder):
    config, tensors = checkpoint.read_checkpoint(folder)
    assert config == {"model_type": "llama"}
    assert set(tensors) == {"a", "b"} and len(tensors) == 2 and "c" not in tensors
    assert tensors.shape("a") == (2, 3)
    assert tensors["a"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(tensors["a"], ARRAYS["a"])
    assert tensors.metadata == {"format": "pt"}
    with pytest.raises(KeyError):
        tensors["c"]


def test_several_files(folder):
    sharded(folder, {"a": "x.safetensors", "b": "y.safetensors"})
    _, tensors = checkpoint.read_checkpoint(folder)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(tensors[name], array)
    # What the index forgot is there all the same, so that nothing goes unnoticed.
    save_file({"a": ARRAYS["a"], "c": np.ones(1)}, folder / "x.safetensors")
    assert "c" in checkpoint.read_checkpoint(folder).tensors


def test_shards_of_the_original_library(golden):
    folder = golden("llama_tiny")
    _, tensors = checkpoint.read_checkpoint(folder)
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 2
    each = [load_file(file) for file in files]
    assert sum(map(len, each)) == len(tensors)
    for part in each:
        for name, array in part.items():
            assert array.dtype == tensors[name].dtype == ml_dtypes.bfloat16
            np.testing.assert_array_equal(array, tensors[name])


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_cut_short(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))} is cut short or no"):
        checkpoint.read_checkpoint(folder)


def test_corrupt_header(folder):
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[9:12] = b"???"
    file.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="is cut short or no safetensors file"):
        checkpoint.read_checkpoint(folder)


def test_one_shard_cut_short(folder):
    sharded(folder, {"a": "x.safetensors", "b": "y.safetensors"})
    file = folder / "y.safetensors"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(ValueError, match="y.safetensors is cut short"):
        checkpoint.read_checkpoint(folder)


def test_files_that_are_not_there(folder, tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        checkpoint.read_checkpoint(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="there is no file .*nowhere.safetensors"):
        checkpoint.Tensors.of_file(tmp_path / "nowhere.safetensors")
    sharded(folder, {"a": "x.safetensors", "b": "gone.safetensors"})
    with pytest.raises(ValueError, match="files that are not there: gone.safetensors"):
        checkpoint.read_checkpoint(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match="neither .* pytorch_model.bin would run code"):
        checkpoint.read_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"there is no file .*config\.json"):
        checkpoint.read_checkpoint(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config\.json is no JSON"),
        ("[]", "must hold a JSON object, it holds a list"),
    ],
)
def test_config_that_is_none(folder, text, message):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        checkpoint.read_checkpoint(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "has no weight_map"),
        ({"weight_map": []}, "has no weight_map"),
        ({"weight_map": {"a": "../x.safetensors"}}, "names no file of its folder"),
        ({"weight_map": {"a": 3}}, "names no file of its folder: 3"),
        (
            {"weight_map": {"a": "x.safetensors", "b": "x.safetensors"}},
            r"not there: \['b in .*x.safetensors'\]",
        ),
    ],
)
def test_wrong_index(folder, index, message):
    sharded(folder, {"a": "x.safetensors", "b": "y.safetensors"})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        checkpoint.read_checkpoint(folder)
