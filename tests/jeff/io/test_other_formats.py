"""Checkpoints of AutoAWQ, GPTQ and compressed-tensors: files of theirs, and ours."""

import json
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jeff.io import (
    read_quantized,
    write_autoawq,
    write_compressed_tensors,
    write_gptq,
    write_quantized,
)
from jeff.quantize import QTensor

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
LAYER = "model.layers.0.mlp.up_proj"
LM_HEAD = r"(?:.*\.)?lm_head(?:\..*)?$"
OTHERS = {
    "lm_head.weight": np.ones((4, 3), np.float16),
    f"{LAYER}.bias": np.arange(3, dtype=np.float16),
}
GPTQ = [
    ("gptq_linear.npz", "w3", 3),
    ("gptq_linear.npz", "w4_act", 4),
    ("packed_layouts.npz", "gptq_2", 2),
]


def golden(name):
    file = GOLDEN / name
    if not file.is_file():
        pytest.skip(f"{name} is not in tests/golden")
    return np.load(file)


def folder_with(folder, arrays, settings):
    """A checkpoint as the other programs write them."""
    folder.mkdir(exist_ok=True)
    named = {f"{LAYER}.{end}": array for end, array in arrays.items()}
    safetensors.numpy.save_file({**OTHERS, **named}, folder / "model.safetensors")
    config = {"model_type": "toy", "quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def same_arrays(folder, other):
    """Whether two folders hold the same tensors, bit for bit."""
    ours, theirs = (
        safetensors.numpy.load_file(f / "model.safetensors") for f in (folder, other)
    )
    assert sorted(ours) == sorted(theirs)
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype and ours[name].shape == array.shape
        assert ours[name].tobytes() == array.tobytes(), name


def settings_in(folder):
    return json.loads((folder / "config.json").read_text())["quantization_config"]


def dense(codes, zeros, scales):
    """[in, out] from codes [in, out] and [groups, out], by NumPy in float32."""
    group = codes.shape[0] // scales.shape[0]
    zeros, scales = (np.repeat(a.astype(np.float32), group, 0) for a in (zeros, scales))
    return (codes.astype(np.float32) - zeros) * scales


def weight(bits=4, shape=(64, 32), groups=2, *, dtype=jnp.float16, zero=jnp.uint8):
    scale = jnp.ones((groups, shape[1]), dtype)
    zero = None if zero is None else jnp.ones(scale.shape, zero)
    return QTensor(
        packed=jnp.zeros((shape[0] * bits // 32, shape[1]), jnp.uint32),
        scale=scale,
        zero=zero,
        bits=bits,
        stride=1,
        contract=(-2,),
        pad=0,
        dense_dtype=jnp.dtype(jnp.float32),
    )


def test_autoawq_reads_and_writes_a_file_of_its_own(tmp_path):
    file = golden("awq_linear.npz")
    arrays = {end: file[end] for end in ("qweight", "qzeros", "scales")}
    settings = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 128,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": ["lm_head", "model.lm_head"],
    }
    theirs = folder_with(tmp_path / "theirs", arrays, settings)
    read = read_quantized(theirs)
    assert read.method == "awq" and read.config == {"model_type": "toy"}
    q = read.tensors[f"{LAYER}.weight"]
    np.testing.assert_array_equal(q.codes(), file["codes"])
    np.testing.assert_array_equal(q.zero, file["zeros"])
    assert read.tensors.shape(f"{LAYER}.weight") == (96, 256)
    ours = tmp_path / "ours"
    write_autoawq(ours, read.tensors, config=read.config)
    same_arrays(ours, theirs)
    assert settings_in(ours) == settings


@pytest.mark.parametrize(("name", "prefix", "bits"), GPTQ)
def test_gptq_reads_and_writes_files_of_its_own(tmp_path, name, prefix, bits):
    file = golden(name)
    ends = ("qweight", "qzeros", "scales", "g_idx")
    arrays = {end: file[f"{prefix}/{end}"] for end in ends}
    codes, scales = file[f"{prefix}/codes"], arrays["scales"]
    size = codes.shape[0] // scales.shape[0]
    settings = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": size,
        "desc_act": False,
        "sym": False,
        "lm_head": False,
        "checkpoint_format": "gptq",
        "dynamic": {f"-:{LM_HEAD}": {}},
    }
    theirs = folder_with(tmp_path / "theirs", arrays, settings)
    read = read_quantized(theirs)
    got = read.tensors[f"{LAYER}.weight"]
    zeros = file[f"{prefix}/zeros"]
    if prefix.endswith("_act"):  # every input has the group that g_idx says
        groups = arrays["g_idx"]
        expected = dense(codes, zeros[groups], scales[groups]).T
        assert got.dtype == np.float32 and len(read.notes) == 1
        assert "not of neighboring inputs (desc_act)" in read.notes[0]
        np.testing.assert_array_equal(got, expected)
        return
    assert read.notes == ()
    np.testing.assert_array_equal(got.codes(), codes)
    np.testing.assert_array_equal(got.zero, zeros)
    np.testing.assert_array_equal(got.decode(), dense(codes, zeros, scales))
    ours = tmp_path / "ours"
    write_gptq(ours, read.tensors, config=read.config)
    same_arrays(ours, theirs)
    assert settings_in(ours) == settings


def test_gptq_symmetric_and_version_2(tmp_path):
    q = weight(2, zero=None)
    tensors = {f"{LAYER}.weight": q, "lm_head.weight": q}
    write_gptq(tmp_path, tensors, config={}, checkpoint_format="gptq_v2")
    settings = settings_in(tmp_path)
    assert settings["sym"] and settings["lm_head"] and not settings["dynamic"]
    assert settings["checkpoint_format"] == "gptq_v2"
    file = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert file[f"{LAYER}.qzeros"][0, 0] & 3 == 2  # not less 1
    got = read_quantized(tmp_path).tensors[f"{LAYER}.weight"]
    assert got.zero is None and got.bits == 2
    np.testing.assert_array_equal(got.codes(), q.codes())


@pytest.mark.parametrize("kind", ["dense", "padded"])
def test_compressed_tensors_reads_streams_of_both_kinds(tmp_path, kind):
    bits = 3
    file = golden("packed_layouts.npz")
    codes = file[f"ct_{bits}/codes"][:, :36]  # 37 inputs are no 3 groups
    zeros = file[f"ct_{bits}/zeros"]
    outputs, inputs = codes.shape
    q = QTensor.from_codes(
        codes.T, jnp.ones((3, outputs)), jnp.asarray(zeros.T), bits=bits
    )
    write_compressed_tensors(tmp_path, {f"{LAYER}.weight": q, **OTHERS}, config={})
    words = file[f"ct_{bits}_{kind}/weight_zero_point"]
    arrays = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    if kind == "dense":
        np.testing.assert_array_equal(arrays[f"{LAYER}.weight_zero_point"], words)
        assert settings_in(tmp_path)["config_groups"]["group_0"]["weights"] == {
            "num_bits": bits,
            "type": "int",
            "symmetric": False,
            "strategy": "group",
            "group_size": inputs // 3,
            "dynamic": False,
        }
        assert settings_in(tmp_path)["ignore"] == [f"re:{LM_HEAD}"]
    else:  # as a program before 0.18 writes them
        from pallas_kernels.interchange import Codes, to_compressed_tensors

        old = to_compressed_tensors(
            Codes(q.codes(), q.scale, q.zero), bits=bits, padded=True
        )
        np.testing.assert_array_equal(old.weight_zero_point, words)
        changed = {
            end: np.asarray(a) for end, a in old._asdict().items() if a is not None
        }
        settings = {**settings_in(tmp_path), "version": "0.10.2"}
        folder_with(tmp_path, changed, settings)
    got = read_quantized(tmp_path).tensors[f"{LAYER}.weight"]
    np.testing.assert_array_equal(got.codes(), q.codes())
    np.testing.assert_array_equal(got.zero, q.zero)
    np.testing.assert_array_equal(got.scale, q.scale)


def test_compressed_tensors_of_integers_and_of_several_widths(tmp_path):
    tensors = {
        "a.weight": weight(4, zero=None, groups=1),
        "c.weight": weight(4),
    }
    write_compressed_tensors(tmp_path, tensors, config={}, activation_bits=8)
    settings = settings_in(tmp_path)
    assert settings["format"] == "int-quantized"
    groups = settings["config_groups"].values()
    assert [g["targets"] for g in groups] == [
        [r"re:(?:.*\.)?a(?:\..*)?$"],
        [r"re:(?:.*\.)?c(?:\..*)?$"],
    ]
    assert all(g["input_activations"]["num_bits"] == 8 for g in groups)
    arrays = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert arrays["a.weight"].dtype == np.int8 and (arrays["a.weight"] == -8).all()
    assert arrays["a.weight"].shape == (32, 64)
    read = read_quantized(tmp_path)
    assert read.activation_bits == 8
    for name, q in tensors.items():
        got = read.tensors[name]
        assert got.bits == q.bits and (got.zero is None) == (q.zero is None)
        np.testing.assert_array_equal(got.codes(), q.codes())
        if q.zero is not None:
            np.testing.assert_array_equal(got.zero, q.zero)


def test_what_is_not_quantized_is_named_by_the_end_of_its_name(tmp_path):
    names = ["vision.layers.1.fc", "model.layers.0.up", "model.layers.1.up"]
    tensors = {f"{name}.weight": np.ones((2, 2), np.float32) for name in names}
    tensors["model.layers.10.up.weight"] = weight()
    write_autoawq(tmp_path, tensors, config={})  # as 0.up is in layers.10.up
    words = ["1.up", "layers.0.up", "model.vision", "vision"]
    assert settings_in(tmp_path)["modules_to_not_convert"] == words
    write_compressed_tensors(tmp_path, tensors, config={})
    ignored = [
        re.compile(p.removeprefix("re:")) for p in settings_in(tmp_path)["ignore"]
    ]
    for name in names:
        assert any(p.match(f"model.language_model.{name}") for p in ignored)
        assert any(p.match(name) for p in ignored)
    assert not any(p.match("model.layers.10.up") for p in ignored)


def test_the_output_matrix_of_a_tied_model_is_skipped_by_name(tmp_path):
    """Programs make a layer of it, though the file has no tensor of it."""
    tensors = {f"{LAYER}.weight": weight()}
    write_compressed_tensors(tmp_path, tensors, config={})
    assert settings_in(tmp_path)["ignore"] == [f"re:{LM_HEAD}"]
    write_gptq(tmp_path, tensors, config={})
    settings = settings_in(tmp_path)
    assert settings["lm_head"] is False and settings["dynamic"] == {f"-:{LM_HEAD}": {}}
    tensors["model.lm_head.weight"] = weight()
    write_compressed_tensors(tmp_path, tensors, config={})
    assert settings_in(tmp_path)["ignore"] == []


AWQ, CT = write_autoawq, write_compressed_tensors


@pytest.mark.parametrize(
    ("write", "q", "message"),
    [
        (AWQ, weight(3), "it has 3 bits; AutoAWQ's layout has 4 only"),
        (AWQ, weight(dtype=jnp.float32), 'are float32; .*scale_dtype="float16"'),
        (AWQ, weight(shape=(64, 12)), "it has 12 outputs; .* multiple of 8"),
        (AWQ, weight(zero=jnp.float16), "zero points are floating"),
        (write_gptq, weight(zero=jnp.float16), "zero points are floating"),
        (write_gptq, weight(shape=(64, 40)), "64 inputs and 40 outputs.* of 32"),
        (write_gptq, weight(dtype=jnp.bfloat16), "its scales are bfloat16"),
        (CT, weight(zero=jnp.float16), "zero points are floating"),
        (CT, weight().transpose((1, 0)), r"contracted over \(-1,\)"),
    ],
)
def test_what_a_layout_cannot_hold_is_named(tmp_path, write, q, message):
    tensors = {"a.weight": np.ones((2, 2)), "b.weight": q}
    with pytest.raises(ValueError, match=f"tensor 'b.weight': .*{message}"):
        write(tmp_path / "never", tensors, config={})
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("write", [write_autoawq, write_gptq])
def test_layouts_with_one_scheme_say_which_layers_differ(tmp_path, write):
    tensors = {"a.weight": weight(), "b.weight": weight(groups=1)}
    with pytest.raises(ValueError, match=r"'a.weight' has 4 bits in groups of 32, 'b"):
        write(tmp_path, tensors, config={})
    with pytest.raises(ValueError, match="nothing quantized"):
        write(tmp_path, OTHERS, config={})
    whole = {"a.weight": weight(groups=1), "b.weight": weight(4, (32, 32), groups=1)}
    write(tmp_path, whole, config={})
    assert settings_in(tmp_path)["group_size"] == -1
    assert read_quantized(tmp_path).tensors["b.weight"].scale.shape == (1, 32)


def test_files_that_do_not_fit_are_named(tmp_path):
    write_gptq(tmp_path, {f"{LAYER}.weight": weight(), **OTHERS}, config={})
    arrays = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    arrays = {k.rpartition(".")[2]: a for k, a in arrays.items() if k not in OTHERS}
    settings = settings_in(tmp_path)

    def refuses(message, changed=None, **fields):
        folder_with(tmp_path, {**arrays, **(changed or {})}, {**settings, **fields})
        with pytest.raises(ValueError, match=message):
            read_quantized(tmp_path)

    refuses(r"config.json: .*: bits is 5; must be 2, 3, 4 or 8", bits=5)
    refuses("checkpoint_format is 'gptq_p'", checkpoint_format="gptq_p")
    short = np.ones((3, 3), np.int32)
    refuses(rf"model.safetensors: tensor '{LAYER}.*qzeros has shape", {"qzeros": short})
    refuses(r"must name each of 2 groups", {"g_idx": np.zeros(64, np.int32)})
    refuses(r"g_idx has shape \(3,\), expected \(64,\)", {"g_idx": short[0]})
    folder_with(tmp_path, {k: a for k, a in arrays.items() if k != "scales"}, settings)
    with pytest.raises(ValueError, match=rf"tensor '{LAYER}.scales': is missing"):
        read_quantized(tmp_path)
    wrong = {**arrays, "qweight": arrays["qweight"].astype(np.int64)}
    folder_with(tmp_path, wrong, settings)
    tensors = read_quantized(tmp_path).tensors
    with pytest.raises(ValueError, match=f"{LAYER}.qweight': is int64"):
        tensors[f"{LAYER}.weight"]
    awq = {"quant_method": "awq", "bits": 4, "version": "marlin"}
    folder_with(tmp_path, arrays, awq)
    with pytest.raises(ValueError, match="version is 'marlin'; only 'gemm'"):
        read_quantized(tmp_path)


def test_settings_of_compressed_tensors_that_cannot_be_read_are_named(tmp_path):
    tensors = {f"{LAYER}.weight": weight(zero=None)}
    write_compressed_tensors(tmp_path, tensors, config={}, activation_bits=8)
    config = json.loads((tmp_path / "config.json").read_text())
    settings = config["quantization_config"]
    group = settings["config_groups"]["group_0"]
    static = {**group["input_activations"], "dynamic": False}
    for changed, message in [
        ({"format": "nvfp4-pack-quantized"}, "format is 'nvfp4-pack-quantized'"),
        ({"weights": {**group["weights"], "type": "float"}}, "weights are float4"),
        ({"weights": {**group["weights"], "strategy": "block"}}, "strategy is 'block'"),
        ({"weights": {}}, "config_groups.group_0: is not complete: 'num_bits'"),
        ({"input_activations": static}, "only dynamic, symmetric integers"),
        ({"targets": ["re:vision"]}, f"no group of config_groups targets '{LAYER}'"),
    ]:
        groups = {"group_0": {**group, **changed}}
        changed = {**settings, "config_groups": groups}
        text = json.dumps({**config, "quantization_config": changed})
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_quantized(tmp_path)


def test_formats_convert_into_each_other(tmp_path):
    codes = np.arange(64 * 32, dtype=np.uint8).reshape(64, 32) % 16
    q = weight().with_codes(jnp.asarray(codes))
    tensors, folder = {"a.weight": q}, tmp_path / "0"
    write_quantized(folder, tensors, config={"model_type": "toy"})
    for i, write in enumerate((write_autoawq, write_gptq, CT, write_quantized), 1):
        read = read_quantized(folder)
        folder = tmp_path / str(i)
        write(folder, read.tensors, config=read.config)
    for name in ("config.json", "model.safetensors"):
        # But for the stride, which each reading picks anew, they are the same files.
        assert (folder / name).stat().st_size == (tmp_path / "0" / name).stat().st_size
    got = read_quantized(folder).tensors["a.weight"]
    np.testing.assert_array_equal(got.codes(), codes)
    np.testing.assert_array_equal(got.zero, q.zero)
    np.testing.assert_array_equal(got.scale, q.scale)
