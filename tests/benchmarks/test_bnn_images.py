"""The readers of Fashion-MNIST and of MNIST in the benchmarks."""

import gzip
import hashlib
import importlib

import numpy as np
import pytest
from support import pages
from support.fashion_files import NAMES, idx, write_fashion, write_mnist

pytestmark = pages.in_checkout


@pytest.fixture(scope="module")
def images():
    """The module ``benchmarks/bnn_cases/images.py``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(pages.ROOT / "benchmarks"))
        yield importlib.import_module("bnn_cases.images")


def test_clothes_are_read(images, tmp_path):
    train, test = images.read_fashion(write_fashion(tmp_path))
    assert train.images.shape == (60, 784) and test.images.shape == (20, 784)
    assert train.images.dtype == np.float32 and train.labels.dtype == np.int32
    rows = train.images.reshape(60, 14, 56).mean(-1)
    np.testing.assert_array_equal(rows.argmax(-1), train.labels)
    assert 0 <= train.images.min() and train.images.max() <= 1


def test_digits_are_read(images, tmp_path):
    file, table = write_mnist(tmp_path / "mnist_5k.csv.gz")
    found = images.read_mnist_5k(file)
    np.testing.assert_array_equal(found.labels, table[:, -1])
    np.testing.assert_allclose(found.images * 255, table[:, :-1], rtol=1e-6)


def test_checksums_are_of_the_stored_bytes(images, tmp_path):
    """All 256 bytes survive the way to float32 and back."""
    ramp = np.arange(784) % 256
    write_fashion(tmp_path)
    both = np.stack([ramp, ramp[::-1]]).reshape(2, 28, 28)
    (tmp_path / NAMES[2]).write_bytes(gzip.compress(idx(both)))
    (tmp_path / NAMES[3]).write_bytes(gzip.compress(idx(np.array([3, 9]))))
    _, test = images.read_fashion(tmp_path)
    content = both.astype(np.uint8).tobytes() + bytes([3, 9])
    assert images.checksum(test) == hashlib.sha256(content).hexdigest()


def test_missing_files_are_named(images, tmp_path):
    write_fashion(tmp_path)
    (tmp_path / NAMES[1]).unlink()
    (tmp_path / NAMES[2]).unlink()
    with pytest.raises(FileNotFoundError, match=f"{NAMES[1]}, {NAMES[2]}: install"):
        images.read_fashion(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"mnist_5k.csv.gz of the package"):
        images.read_mnist_5k(tmp_path / "none")


PIXELS, LABELS = np.zeros((2, 28, 28)), np.array([0, 1])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (NAMES[0], gzip.compress(idx(PIXELS))[:-9], "cut short or no gzip file"),
        (NAMES[0], idx(PIXELS), "cut short or no gzip file"),
        (NAMES[0], gzip.compress(b"\0\0\x0d\3"), "not with 00000d03"),
        (NAMES[0], gzip.compress(b"\0"), "not with 00"),
        (NAMES[0], gzip.compress(idx(PIXELS)[:12]), "ends within the sizes of its 3"),
        (NAMES[0], gzip.compress(idx(PIXELS)[:-1]), r"1567 bytes for an array \(2, 28"),
        (NAMES[0], gzip.compress(idx(PIXELS) + b"\0"), "1569 bytes for an array"),
        (NAMES[0], gzip.compress(idx(PIXELS[:, :8])), r"not \(2, 8, 28\)"),
        (NAMES[1], gzip.compress(idx(LABELS[:1])), r"2 pictures, not \(1,\)"),
        (NAMES[1], gzip.compress(idx(LABELS + 9)), "labels must be from 0 to 9"),
    ],
)
def test_wrong_files_are_named(images, tmp_path, name, content, said):
    write_fashion(tmp_path)
    (tmp_path / NAMES[0]).write_bytes(gzip.compress(idx(PIXELS)))
    (tmp_path / NAMES[1]).write_bytes(gzip.compress(idx(LABELS)))
    images.read_fashion(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        images.read_fashion(tmp_path)
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,2", "784 pixels and a label, not 2 numbers"),
        ("a", "not a table of numbers"),
        (",".join(["256"] + ["0"] * 784), "whole, from 0 to 255"),
        (",".join(["0.5"] + ["0"] * 784), "whole, from 0 to 255"),
        (",".join(["nan"] + ["0"] * 784), "whole, from 0 to 255"),
        (",".join(["0"] * 784 + ["10"]), "labels must be from 0 to 9"),
    ],
)
def test_wrong_tables_are_named(images, tmp_path, line, said):
    file = tmp_path / "digits.csv.gz"
    file.write_bytes(gzip.compress(line.encode()))
    with pytest.raises(ValueError, match=said) as error:
        images.read_mnist_5k(file)
    assert str(file) in str(error.value)


def test_spread_takes_pictures_from_everywhere(images):
    part = images.Part(np.zeros((10, 784), np.float32), np.arange(10, dtype=np.int32))
    assert images.spread(part, 5).labels.tolist() == [0, 2, 4, 6, 8]
    assert images.spread(part, 11) is part and images.spread(part, None) is part
