"""Settings of the kernel."""

import pytest

from pallas_kernels.dequant_matmul import cases
from pallas_kernels.dequant_matmul.config import (
    SHARED_MEMORY,
    Config,
    Shapes,
    candidates,
    heuristic,
)


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
    assert heuristic(product) in found
    assert all(c.shared_memory(product) <= SHARED_MEMORY for c in found)


def test_few_columns_are_shared_by_warpgroups():
    wide, narrow = shapes(3584, 18944, 1, 3), shapes(18944, 3584, 1, 3)
    assert heuristic(wide) == Config(warpgroups=1, stages=3)
    assert heuristic(narrow) == Config(warpgroups=4, stages=2)
    assert heuristic(shapes(16384, 512, 1, 3)).split_k > 1


def test_shared_memory_by_hand():
    # x: 8 x 512 x 2 = 8192; words: 48 x 64 x 4 = 12288; scales: 4 x 64 x 3 = 768;
    # sums of one warpgroup and the result: 2 x 64 x 8 x 4 = 4096; 1024 to spare.
    product = shapes(3584, 18944, 1, 3)
    assert Config(stages=1).shared_memory(product) == 8192 + 12288 + 768 + 4096 + 1024


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
