"""CIFAR-10 files of the user, made here: pictures, JPEG, and what may be wrong."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from jeff.data import cifar10


def jpeg(picture):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=75)
    return stream.getvalue()


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return np.repeat(rng.integers(0, 256, (6, 1, 1, 3), np.uint8), 32, 1).repeat(32, 2)


@pytest.fixture(scope="module")
def packed(images):
    """The arrays of a test split as JPEG files end to end."""
    files = [jpeg(picture) for picture in images]
    return {
        "test_jpeg": np.frombuffer(b"".join(files), np.uint8),
        "test_offsets": np.cumsum([0, *map(len, files)], dtype=np.int64),
        "test_labels": np.arange(6, dtype=np.uint8),
    }


def save(folder, **arrays):
    path = folder / "cifar10.npz"
    np.savez(path, **arrays)
    return path


def test_pictures_and_jpeg_are_read(images, packed, tmp_path):
    plain = save(tmp_path, test_images=images, test_labels=packed["test_labels"])
    found = cifar10.load_cifar10(plain)
    np.testing.assert_array_equal(found.images, images)
    assert found.labels.dtype == np.int32
    lossy = cifar10.load_cifar10(save(tmp_path, **packed))
    assert lossy.images.shape == (6, 32, 32, 3)
    assert np.abs(lossy.images.astype(int) - images).max() < 8  # of one colour each


def test_a_smaller_draw_is_the_beginning_of_a_larger_one(packed, tmp_path):
    path = save(tmp_path, **packed)
    few, more = (cifar10.load_cifar10(path, count=n) for n in (2, 6))
    np.testing.assert_array_equal(few.labels, more.labels[:2])
    np.testing.assert_array_equal(few.images, more.images[:2])
    assert sorted(more.labels) == list(range(6)) != list(more.labels)
    assert list(cifar10.load_cifar10(path, count=6, seed=1).labels) != list(more.labels)


def test_it_is_found_in_the_data_folder(packed, tmp_path, monkeypatch):
    monkeypatch.setenv("JEFF_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="put cifar10.npz or cifar10_jpeg.npz"):
        cifar10.load_cifar10()
    os.rename(save(tmp_path, **packed), tmp_path / "cifar10_jpeg.npz")
    assert len(cifar10.load_cifar10().labels) == 6


def test_bad_arguments_are_named(packed, tmp_path):
    path = save(tmp_path, **packed)
    with pytest.raises(ValueError, match=r"split must be one of .*, got 'valid'"):
        cifar10.load_cifar10(path, split="valid")
    with pytest.raises(ValueError, match=r"count must be in 1\.\.6, got 7"):
        cifar10.load_cifar10(path, count=7)
    with pytest.raises(FileNotFoundError, match="CIFAR-10 is not at .*nowhere"):
        cifar10.load_cifar10(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="npz: lacks train_jpeg, train_offsets, train"):
        cifar10.load_cifar10(path, split="train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_labels": np.arange(5, 11)}, "test_labels must be from 0 to 9"),
        ({"test_labels": np.zeros(6)}, r"integers \[n\], got float64 \(6,\)"),
        ({"test_offsets": np.arange(7)}, "must be 7 integers that rise from 0 to"),
        ({"test_jpeg": np.zeros(9, np.int32)}, r"uint8 \[bytes\], got int32 \(9,\)"),
        ({"test_images": np.zeros((6, 8, 8, 3))}, r"uint8 \(6, 32, 32, 3\), got floa"),
    ],
)
def test_wrong_arrays_are_named(packed, tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"cifar10\.npz: .*{message}"):
        cifar10.load_cifar10(save(tmp_path, **{**packed, **change}))


def test_pictures_that_cannot_be_used_are_numbered(packed, tmp_path):
    broken = packed["test_jpeg"].copy()
    broken[packed["test_offsets"][2] :][:20] = 0
    with pytest.raises(ValueError, match="npz: picture 2 cannot be read: "):
        cifar10.load_cifar10(save(tmp_path, **{**packed, "test_jpeg": broken}))
    small = np.frombuffer(jpeg(np.zeros((8, 16, 3), np.uint8)), np.uint8)
    one = {"test_offsets": np.array([0, len(small)]), "test_labels": np.zeros(1, int)}
    with pytest.raises(ValueError, match="picture 0 is 8x16, expected 32x32"):
        cifar10.load_cifar10(save(tmp_path, test_jpeg=small, **one))


def test_files_that_are_cut_short_or_something_else_are_named(packed, tmp_path):
    path = save(tmp_path, **packed)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"cifar10\.npz: "):
        cifar10.load_cifar10(path)
    path.write_text("text")
    with pytest.raises(ValueError, match=r"cifar10\.npz: "):
        cifar10.load_cifar10(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"one\.npy: holds one array"):
        cifar10.load_cifar10(tmp_path / "one.npy")
