"""jeff's format of quantized checkpoints: what is written is read, or one error."""

import json
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from jeff.io import read_quantized, write_quantized
from jeff.quantize import QTensor

CONFIG = {"model_type": "toy", "hidden_size": 64}
FORMS = {  # bits, scale and its shape, zero points, pad
    "asymmetric": (3, ml_dtypes.bfloat16, (3, 8), np.uint8, 0),
    "symmetric": (4, np.float32, (1, 8), None, 0),
    "floating": (2, np.float32, (3, 8), np.float32, 0),
    "tensor": (8, np.float16, (1, 1), np.uint8, 16),
}


@pytest.fixture(scope="module")
def weights():
    """Weights of 96 inputs (80 and padding, one of them) and 8 outputs."""
    rng = np.random.default_rng(0)

    def weight(bits, dtype, shape, zeros, pad):
        return QTensor(
            packed=jnp.asarray(rng.integers(0, 2**32, (3 * bits, 8), np.uint32)),
            scale=jnp.asarray(rng.normal(size=shape).astype(dtype)),
            zero=None if zeros is None else jnp.asarray(np.ones(shape, zeros)),
            bits=bits,
            stride=1,
            contract=(-2,),
            pad=pad,
            dense_dtype=jnp.dtype(jnp.float32),
        )

    return {form: weight(*settings) for form, settings in FORMS.items()}


@pytest.fixture(scope="module")
def tensors(weights):
    named = {f"layers.{form}.weight": q for form, q in weights.items()}
    bias = np.arange(8).astype(ml_dtypes.bfloat16)
    return {**named, "layers.symmetric.bias": bias, "norm.weight": jnp.ones(3)}


@pytest.fixture
def written(tensors, tmp_path):
    write_quantized(tmp_path, tensors, config=CONFIG, metadata={"method": "rtn"})
    return tmp_path


def assert_same(got, want):
    if not isinstance(want, QTensor):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(np.asarray(got), np.asarray(want))
        return
    assert jax.tree.structure(got) == jax.tree.structure(want)  # static fields too
    jax.tree.map(lambda a, b: assert_same(a, b), got, want)


def rewritten(folder, change):
    """The only file of a folder, its arrays and metadata changed."""
    file = folder / "model.safetensors"
    arrays = safetensors.numpy.load_file(file)
    with safetensors.safe_open(file, "np") as opened:
        metadata = opened.metadata()
    change(arrays, metadata)
    safetensors.numpy.save_file(arrays, file, metadata)


def test_what_is_written_is_read(written, tensors):
    got = read_quantized(written)
    assert got.config == CONFIG and got.metadata == {"method": "rtn"}
    assert got.method == "jeff" and got.activation_bits is None and got.notes == ()
    assert list(got.tensors) == sorted(tensors)
    for name, tensor in tensors.items():
        assert_same(got.tensors[name], tensor)
    assert got.tensors.shape("layers.floating.weight") == (8, 96)  # as PyTorch's
    assert got.tensors.shape("norm.weight") == (3,)


def test_stacks_and_other_axes_are_kept(weights, tmp_path):
    rows = weights["symmetric"].transpose((1, 0))
    stack = jax.tree.map(lambda a: np.stack([a, a]), weights["asymmetric"])
    tensors = {"stack.weight": stack, "rows.weight": rows}
    write_quantized(tmp_path, tensors, config={}, activation_bits=8)
    got = read_quantized(tmp_path)
    assert got.activation_bits == 8 and got.tensors.shape("stack.weight") == (2, 8, 96)
    for name, tensor in tensors.items():
        assert_same(got.tensors[name], tensor)


def test_the_same_tensors_give_the_same_bytes(written, tensors, tmp_path):
    again = tmp_path / "again"
    turned = dict(reversed(tensors.items()))
    write_quantized(again, turned, config=CONFIG, metadata={"method": "rtn"})
    for name in ("model.safetensors", "config.json"):
        assert (again / name).read_bytes() == (written / name).read_bytes()


def test_shards_have_an_index_and_stale_ones_go(written, tensors):
    names = write_quantized(written, tensors, config=CONFIG, max_shard_bytes=400)
    assert names[-2:] == ("model.safetensors.index.json", "config.json")
    shards = names[:-2]
    assert (
        len(shards) > 2 and shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    )
    index = json.loads((written / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(shards)
    places = index["weight_map"]
    assert places["layers.asymmetric.qweight"] == places["layers.asymmetric.zeros"]
    assert sorted(p.name for p in written.iterdir()) == sorted(names)
    got = read_quantized(written)
    for name, tensor in tensors.items():
        assert_same(got.tensors[name], tensor)
    write_quantized(written, tensors, config=CONFIG)
    assert sorted(p.name for p in written.iterdir()) == [
        "config.json", "model.safetensors",
    ]  # fmt: skip


def test_one_tensor_is_held_at_a_time(tensors, tmp_path):
    alive, most = set(), []

    class Watched(dict):
        def __getitem__(self, name):
            alive.add(name)
            most.append(len(alive))
            alive.clear()
            return super().__getitem__(name)

    write_quantized(tmp_path, Watched(tensors), config={})
    assert max(most) == 1


def test_a_failure_leaves_the_old_checkpoint(written, tensors, monkeypatch):
    before = {p.name: p.read_bytes() for p in written.iterdir()}

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_quantized(written, tensors, config={}, max_shard_bytes=400)
    assert {p.name: p.read_bytes() for p in written.iterdir()} == before


def added(name, shape, dtype):
    return lambda a, m: a.update({f"layers.{name}": np.ones(shape, dtype)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, m: a.pop("layers.floating.zeros"), r"floating.zeros': is missing"),
        (lambda a, m: a.pop("layers.tensor.scales"), r"tensor.scales': is missing"),
        (
            added("symmetric.zeros", (1, 8), np.uint8),
            r"model.safetensors: tensor 'layers.symmetric.zeros': is extra",
        ),
        (
            added("tensor.weight", (8, 96), np.float32),
            r"'layers.tensor.weight': is dense, but there is 'layers.tensor.qweight'",
        ),
        (
            added("tensor.scales", (3, 8), np.float16),
            r"scales of shape \(3, 8\) do not divide a weight of \[80, 8\]",
        ),
        (
            added("tensor.qweight", (5, 8), np.uint32),
            r"qweight has shape \(5, 8\), which are no tiles",
        ),
        (lambda a, m: m.pop("jeff"), r"the metadata of its safetensors files"),
        (
            lambda a, m: m.update(jeff=m["jeff"].replace('"bits": 3', '"bits": 5')),
            r"'layers.asymmetric.*bits must be one of .*, got 5",
        ),
        (
            lambda a, m: m.update(jeff=m["jeff"].replace('"pad": 0', '"pads": 0')),
            r"its entry in the files' metadata: 'pad'",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(written, change, message):
    rewritten(written, change)
    with pytest.raises(ValueError, match=message):
        read_quantized(written)


@pytest.mark.parametrize(
    ("end", "array", "message"),
    [
        ("qweight", np.ones((24, 8), np.int32), "qweight must be uint32, got int32"),
        ("scales", np.ones((1, 1), np.int16), "scales must be floating, got int16"),
        ("zeros", np.ones((1, 1), np.int8), "zeros must be uint8, got int8"),
    ],
)  # fmt: skip
def test_a_wrong_dtype_is_named_when_it_is_read(written, end, array, message):
    rewritten(written, lambda a, m: a.update({f"layers.tensor.{end}": array}))
    tensors = read_quantized(written).tensors
    with pytest.raises(
        ValueError, match=f"model.safetensors: .*layers.tensor.*{message}"
    ):
        tensors["layers.tensor.weight"]


def test_a_file_that_is_cut_short_is_named(written):
    file = written / "model.safetensors"
    for size in (4, 60, file.stat().st_size - 1):
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(ValueError, match="model.safetensors is cut short"):
            read_quantized(written)


def test_settings_that_cannot_be_read_are_named(written):
    file = written / "config.json"
    config = json.loads(file.read_text())
    for settings, message in [
        ({"format": 2}, "format is 2, this jeff reads 1; a newer jeff wrote it"),
        ({"format": "old"}, "format is 'old', this jeff reads 1"),
        (
            {"quant_method": "hqq"},
            "quant_method is 'hqq'; known are awq, compressed-te",
        ),
    ]:
        changed = {**config["quantization_config"], **settings}
        file.write_text(json.dumps({**config, "quantization_config": changed}))
        with pytest.raises(ValueError, match=f"config.json: .*{message}"):
            read_quantized(written)
    for value, message in [(None, "is missing, so the model is not"), (3, "got 3")]:
        file.write_text(json.dumps({**config, "quantization_config": value}))
        with pytest.raises(ValueError, match=message):
            read_quantized(written)


def test_what_cannot_be_written_is_named(weights, tmp_path):
    q, folder = weights["symmetric"], tmp_path / "never"
    for tensors, error, message in [
        ({"norm.weight": np.ones(3)}, ValueError, "no tensor is a QTensor"),
        ({"kernel": q}, ValueError, "'kernel' is a QTensor.* must end in '.weight'"),
        ({"a.weight": q, "b": 3}, TypeError, "'b' must be an array of numbers"),
        ({"a.weight": q, "b": np.ones(3, complex)}, TypeError, "of dtype complex128"),
        (
            {"a.weight": q, "a.scales": np.ones(3)},
            ValueError,
            "'a.scales' and 'a.weight' would both be written as 'a.scales'",
        ),
    ]:
        with pytest.raises(error, match=message):
            write_quantized(folder, tensors, config={})
    with pytest.raises(ValueError, match="JSON"):
        write_quantized(folder, {"a.weight": q}, config={"x": float("nan")})
    with pytest.raises(ValueError, match="max_shard_bytes must be positive, got 0"):
        write_quantized(folder, {"a.weight": q}, config={}, max_shard_bytes=0)
    assert not folder.exists() or not list(folder.iterdir())
