import numpy as np
import pytest
from safetensors.numpy import save_file

from jeff.io import fill_params, read_arrays


def test_both_kinds_of_files_give_their_arrays(tmp_path):
    arrays = {"a": np.arange(3, dtype=np.float32), "b": np.ones((2, 2), np.int8)}
    np.savez(tmp_path / "x.npz", **arrays)
    save_file(arrays, tmp_path / "x.safetensors")
    for file in ("x.npz", "x.safetensors"):
        read = read_arrays(tmp_path / file)
        assert read.keys() == arrays.keys()
        assert all((read[n] == arrays[n]).all() for n in arrays)
    filled = fill_params({"a": np.zeros(3, np.float16), "b": np.zeros((2, 2))}, arrays)
    assert filled["a"].dtype == np.float16 and filled["a"].tolist() == [0, 1, 2]


def test_bad_files_are_named(tmp_path):
    np.save(tmp_path / "one.npy", np.ones(2))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    for file, message in [
        ("one.npz", "one.npz is cut short or no .npz file: it holds one array"),
        ("cut.safetensors", "is cut short or no safetensors file"),
        ("no.npz", "there is no file"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_arrays(tmp_path / file)


def test_arrays_that_do_not_fit_are_named():
    params = {"w": np.zeros((2, 3)), "v": [np.zeros(1)] * 6}
    with pytest.raises(ValueError, match="leaf 'w' must be .2, 3., it is .3."):
        fill_params({"w": params["w"]}, {"w": np.zeros(3)})
    with pytest.raises(ValueError, match="missing: v.0, v.1, v.2, v.3 and 3 more"):
        fill_params(params, {})
