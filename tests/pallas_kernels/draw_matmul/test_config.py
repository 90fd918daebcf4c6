"""Settings of the kernel."""

import math

import numpy as np
import pytest

from pallas_kernels.draw_matmul.cases import BENCHMARK_SHAPES
from pallas_kernels.draw_matmul.config import Config, Shapes, candidates, heuristic
from pallas_kernels.hopper import SHARED_MEMORY


def shapes(size, columns, voters, branches=1):
    return Shapes(branches=branches, voters=voters, size=size, columns=columns)


@pytest.mark.parametrize("size", (*BENCHMARK_SHAPES, (1, 1, 1)), ids=str)
def test_there_are_settings_for_every_product(size):
    product = shapes(*size)
    found = list(candidates(product))
    assert heuristic(product) in found
    assert all(c.shared_memory(product) <= SHARED_MEMORY for c in found)
    assert all(c.split_k <= c.tiles(product) for c in found)


def test_blocks_by_hand():
    # 100 voters by 3 copies of 4 are 9 blocks; 3 x 200 columns are 5 of 128; 784 rows
    # are 49 tiles of 16.
    product, config = shapes(784, 200, 100), Config(copies=3, split_k=6)
    assert config.blocks(product) == (9, 5, 6) and config.tiles(product) == 49
    assert config.blocks(shapes(784, 200, 100, branches=2)) == (18, 5, 6)


def test_time_by_hand():
    # 64 x 16 tiles of rows; 2 blocks on every multiprocessor, of 4 voters each.
    product = shapes(16384, 128 * 33, 32)
    assert math.prod(Config().blocks(product)) == 2 * 132
    one = 16384 * 2 * (17 + 4 * 102) / 1.98e9
    np.testing.assert_allclose(Config().seconds(product), one)
    # One block per multiprocessor waits for its draws: 500 cycles a row, not 425.
    waiting = 16384 * 500 / 1.98e9
    np.testing.assert_allclose(Config().seconds(shapes(16384, 128, 4)), waiting)
    # A split in two is half of that, a second kernel, and 2 x 4 x 128 sums twice.
    half = waiting / 2 + 2e-6 + 2 * 4 * 2 * 4 * 128 / 4.3e12
    split = Config(split_k=2)
    np.testing.assert_allclose(split.seconds(shapes(16384, 128, 4)), half)


def test_few_columns_are_filled_with_voters_and_few_blocks_split():
    assert heuristic(shapes(784, 100, 100)).copies > 1
    assert heuristic(shapes(784, 128, 100)).copies == 1
    assert heuristic(shapes(4096, 128, 16)).split_k > 1
    assert heuristic(shapes(64, 128 * 132, 64)).split_k == 1


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"voters": 3}, r"voters must be one of \(1, 2, 4, 8\), got 3"),
        ({"copies": 9}, r"copies must be in \[1, 8\], got 9"),
        ({"split_k": 0}, r"split_k must be in \[1, 65535\], got 0"),
        ({"depth": 257}, r"depth must be in \[1, 256\], got 257"),
        ({"stages": 9}, r"stages must be in \[1, 8\], got 9"),
    ],
)
def test_bad_settings(setting, match):
    with pytest.raises(ValueError, match=match):
        Config(**setting)
