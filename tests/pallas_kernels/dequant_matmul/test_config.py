"""Settings of the kernel."""

import numpy as np
import pytest

from pallas_kernels.dequant_matmul import cases
from pallas_kernels.dequant_matmul.config import (
    Config,
    Shapes,
    candidates,
    heuristic,
)
from pallas_kernels.hopper import SHARED_MEMORY


def shapes(size, columns, rows, bits):
    return Shapes(
        stack=1,
        rows=rows,
        size=size,
        columns=columns,
        bits=bits,
        group_size=128,
        scale_bytes=3,
    )


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("rows", cases.BENCHMARK_ROWS)
@pytest.mark.parametrize("size", cases.BENCHMARK_SHAPES, ids=str)
def test_there_are_settings_for_every_timed_product(size, rows, bits):
    product = shapes(*size, rows, bits)
    assert heuristic(product).fits(product)
    found = list(candidates(product))
    assert found
    assert all(c.shared_memory(product) <= SHARED_MEMORY for c in found)


def test_work_is_spread_over_the_multiprocessors():
    wide, narrow = shapes(3584, 18944, 1, 3), shapes(18944, 3584, 1, 3)
    assert heuristic(wide).split_k == 1  # 296 blocks
    assert heuristic(narrow).split_k > 1  # 56 blocks, of 37 tiles
    assert heuristic(shapes(3584, 3584, 1, 3)).split_k == 1  # 56 blocks, of 7
    # What is split costs more where there are more sums to add.
    assert heuristic(shapes(18944, 3584, 64, 3)).split_k < heuristic(narrow).split_k


def test_time_by_hand():
    # 56 blocks, one per multiprocessor: 37 tiles of 827 instructions at 1.98 GHz.
    narrow = shapes(18944, 3584, 1, 3)
    np.testing.assert_allclose(Config().seconds(narrow), 37 * 827 / 1.98e9)
    # Split in two: 19 of them, and a second kernel that adds 2 x 3584 sums.
    two = 19 * 827 / 1.98e9 + 2e-6 + 2 * 4 * 2 * 3584 / 4.3e12
    np.testing.assert_allclose(Config(split_k=2).seconds(narrow), two)


def test_shared_memory_by_hand():
    # x: 8 x 512 x 2 = 8192; words: 48 x 64 x 4 = 12288; scales: 4 x 64 x 3 = 768;
    # the result: 64 x 8 x 4 = 2048; six arrays, each from a multiple of 1024 on.
    product = shapes(3584, 18944, 1, 3)
    one = 8192 + 12288 + 768
    assert Config(stages=1).shared_memory(product) == one + 2048 + 6 * 1024
    # Two warpgroups have twice as much, and sums of each.
    two = Config(stages=1, warpgroups=2).shared_memory(product)
    assert two == 2 * one + 3 * 2048 + 6 * 1024


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"block_columns": 96}, "block_columns must be one of .* got 96"),
        ({"warpgroups": 0}, r"warpgroups must be in \[1, 8\], got 0"),
        ({"stages": 9}, r"stages must be in \[1, 8\], got 9"),
        ({"split_k": 65}, r"split_k must be in \[1, 64\], got 65"),
    ],
)
def test_bad_settings(setting, match):
    with pytest.raises(ValueError, match=match):
        Config(**setting)
