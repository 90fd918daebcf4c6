"""Pictures on the host: what is accepted, and Pillow's arithmetic."""

import numpy as np
import pytest
from PIL import Image

from jeff.models.vision import pictures


def test_every_mode_becomes_rgb():
    gray = Image.fromarray(np.full((2, 3), 9, np.uint8))
    palette = gray.convert("P")
    for picture in (gray, palette, gray.convert("CMYK"), np.full((2, 3), 9, np.uint8)):
        got = pictures.to_rgb(picture)
        assert got.mode == "RGB" and got.size == (3, 2)


def test_grays_of_16_bits_are_scaled(tmp_path):
    wide = np.array([[0, 128, 129, 257 * 200, 65535]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    got = np.asarray(pictures.read_picture(tmp_path / "wide.png"))
    assert got[0, :, 0].tolist() == [0, 0, 1, 200, 255]
    clear = Image.fromarray(wide)
    clear.info["transparency"] = 128
    assert np.asarray(pictures.to_rgb(clear))[0, :2, 1].tolist() == [0, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_grays_of_32_bits_are_refused(tmp_path, mode):
    Image.new(mode, (3, 2), 7).save(tmp_path / "wide.tiff")
    with pytest.raises(ValueError, match=f"wide.tiff.*has mode {mode}, .* 32 bits"):
        pictures.read_picture(tmp_path / "wide.tiff")


def test_transparent_pixels_are_white():
    pixels = np.zeros((1, 2, 4), np.uint8)
    pixels[0, 1, 3] = 255
    assert np.asarray(pictures.to_rgb(pixels)).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize(
    "picture", ["a.png", np.zeros((2, 2, 3)), np.zeros((3, 2, 2), np.uint8), None]
)
def test_what_is_no_picture_is_refused(picture):
    with pytest.raises(TypeError, match="must be a PIL image or uint8"):
        pictures.to_rgb(picture)


def test_pictures_without_pixels_are_refused():
    for picture in (np.zeros((0, 3, 3), np.uint8), Image.new("RGB", (0, 5))):
        with pytest.raises(ValueError, match="the picture has 0 pixels"):
            pictures.to_rgb(picture)


def test_files_are_read_and_broken_ones_named(tmp_path):
    file = tmp_path / "a.png"
    Image.new("L", (3, 2), 7).save(file)
    assert pictures.read_picture(file).getpixel((0, 0)) == (7, 7, 7)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match="cannot read a picture from .*a.png"):
        pictures.read_picture(file)
    Image.new("L", (3, 2)).save(tmp_path / "b.tiff")
    tiff = (tmp_path / "b.tiff").read_bytes()
    width = tiff.replace(
        b"\x00\x01\x04\x00\x01\x00\x00\x00\x03", b"\x00\x01\x04\x00\x01\x00\x00\x00\x00"
    )
    assert width != tiff
    (tmp_path / "b.tiff").write_bytes(width)  # a width of 0
    with pytest.raises(ValueError, match=r"cannot read a picture from .*b.tiff"):
        pictures.read_picture(tmp_path / "b.tiff")
    with pytest.raises(ValueError, match="nowhere.png.*No such file"):
        pictures.read_picture(tmp_path / "nowhere.png")


def test_padding_centres_and_the_spare_line_is_at_the_end():
    white = Image.new("RGB", (2, 1), (255, 255, 255))
    canvas = np.asarray(pictures.pad_to(white, 2, 5))[..., 0]
    assert canvas.tolist() == [[0, 255, 255, 0, 0], [0, 0, 0, 0, 0]]
    square = np.asarray(
        pictures.pad_to_square(white.rotate(90, expand=True), (1, 2, 3))
    )
    assert square[:, 1].tolist() == [[1, 2, 3]] * 2
    assert square[:, 0].tolist() == [[255] * 3] * 2


def test_unknown_filters_are_refused():
    with pytest.raises(ValueError, match="resample must be 0 to 5, got 9"):
        pictures.resize(Image.new("RGB", (2, 2)), 1, 1, resample=9)
