"""Pictures as patches, against the image processor of the original."""

import json

import numpy as np
import pytest
from PIL import Image
from support import golden_rule, qwen2_vl_tiny

from jeff.models.qwen2_vl import pictures


@pytest.fixture(scope="module")
def stored():
    path = qwen2_vl_tiny.FOLDER.parent / "qwen2_vl_preprocess.npz"
    if not path.exists():
        pytest.skip(f"golden file {path.name} is absent from tests/golden")
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop("meta_json").tobytes()), arrays


def drawn(meta):
    """The fixture's pictures: a ramp and noise; the last has transparency."""
    for name, (height, width, channels) in meta["shapes"].items():
        ramp = np.arange(height)[:, None] / height + np.arange(width) / width
        noise = golden_rule.unif(name, meta["seed"], (height, width, channels))
        yield Image.fromarray(
            np.floor(256 * (noise + ramp[..., None] / 2) / 2).astype(np.uint8)
        )


def test_patches_are_the_original_processors(stored):
    meta, want = stored
    config = pictures.picture_config_from_json(
        {name: meta[name] for name in ("min_pixels", "max_pixels")}
    )
    pixels, grids = pictures.picture_patches(list(drawn(meta)), config)
    np.testing.assert_array_equal(grids, want["image_grid_thw"])
    np.testing.assert_allclose(pixels, want["pixel_values"], atol=2e-6)
    # Its other resizing, of torchvision, rounds a few pixels to another level.
    level = 1 / 255 / min(config.std)
    off = np.abs(pixels - want["pixel_values_torchvision"])
    assert off.max() < 2.1 * level and (off > 0.5 * level).mean() < 0.01


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((28, 28), (56, 56)),  # enlarged to min_pixels
        ((70, 42), (56, 56)),  # halves are rounded to even
        ((100, 3000), (112, 2996)),
        ((3000, 3000), (980, 980)),  # shrunk to max_pixels
        ((14, 2800), (28, 812)),  # the narrowest that is taken
    ],
)
def test_sizes_are_whole_squares_within_bounds(size, expected):
    assert pictures.smart_resize(*size, pictures.PictureConfig()) == expected


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((0, 5, 3), r"pictures\[1\]: the picture has 0 pixels"),
        ((1, 5000, 3), r"pictures\[1\]: a picture of 1 x 5000 pixels is too narrow"),
        ((5000, 1, 3), "5000 x 1 pixels is too narrow: at most 200 to 1"),
    ],
)
def test_pictures_that_cannot_be_read_are_named(shape, words):
    good, bad = (np.zeros(s, np.uint8) for s in ((20, 20, 3), shape))
    with pytest.raises(ValueError, match=words):
        pictures.picture_patches([good, bad], pictures.PictureConfig())


def test_bounds_in_all_their_forms():
    forms = [
        {"min_pixels": 784, "max_pixels": 7840},
        {"size": {"min_pixels": 784, "max_pixels": 7840}},
        {"size": {"shortest_edge": 784, "longest_edge": 7840}, "max_pixels": None},
        {"size": {"shortest_edge": 1, "longest_edge": 2}, "min_pixels": 784,
         "max_pixels": 7840},
    ]  # fmt: skip
    for form in forms:
        config = pictures.picture_config_from_json(form)
        assert (config.min_pixels, config.max_pixels) == (784, 7840), form


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"do_resize": False}, "do_resize must not be switched off"),
        ({"resample": 2}, "resample must be 3"),
        ({"rescale_factor": 1.0}, "rescale_factor must be 1 / 255"),
        ({"min_pixels": 9000, "max_pixels": 8000}, "max_pixels must be at least"),
        ({"image_mean": [0.5]}, "mean must have 3 numbers"),
        ({"image_std": [0, 1, 1]}, "std must be positive"),
        ({"patch_size": 0}, "patch must be a positive int"),
    ],
)
def test_settings_that_are_not_supported(settings, words):
    with pytest.raises(ValueError, match=words):
        pictures.picture_config_from_json(settings)
