"""Rounding entry by entry gives what rounding the whole leaf gives."""

import jax
import numpy as np
import pytest
from support.case import normal

from jeff import quantize
from jeff.mbq.rounding.entries import Rounded, entry_axes, round_entry, round_leaf
from jeff.program import Part
from jeff.quantize import QuantConfig


@pytest.mark.parametrize(
    ("config", "shape", "part"),
    [
        (QuantConfig(bits=3, group_size=16), (3, 64, 5), Part("w", (1,), (0,))),
        (QuantConfig(bits=3, group_size=16), (64, 3, 5), Part("w", (0,), (1,))),
        (QuantConfig(bits=2), (5, 40, 3), Part("w", (1,), (2,))),
        (QuantConfig(bits=4, group_size=32), (2, 4, 8, 5), Part("w", (1, 2), (0,))),
        (QuantConfig(bits=8, per_tensor=True), (2, 3, 32, 5), Part("w", (2,), (0, 1))),
        (QuantConfig(bits=4, symmetric=True), (64, 5), Part("w", (0,), ())),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) else None,
)
def test_entries_give_the_bits_of_the_whole(config, shape, part):
    w = normal(0, *shape)
    got = round_leaf(w, part, config)
    axes = {"contract_axes": part.contract_axes, "stack_axes": part.stack_axes}
    whole = quantize.quantize(w, config, **axes)
    assert repr(got.weight) == repr(whole)
    assert got.weight.contract == whole.contract and got.weight.stride == whole.stride
    jax.tree.map(np.testing.assert_array_equal, got.weight, whole)
    want = quantize.one_sided_groups(w, config, **axes).sum()
    assert got == Rounded(got.weight, int(want))


def test_axes_of_an_entry():
    assert entry_axes((0, 1, 3), None) == (0, 1, 3)
    assert entry_axes((0, 1, 3), 0) == (0, 2)


def test_the_leaf_whose_scale_overflows_is_named():
    part = Part("layers.w", (1,), (0,))
    config = QuantConfig(bits=3, group_size=16, scale_dtype="float16")
    w = normal(0, 2, 16, 3).at[1].multiply(1e7)
    with pytest.raises(ValueError, match="layer 'layers.w': a scale overflows scale_d"):
        round_leaf(w, part, config)
    assert round_entry(w[0], part, 0, config).clipped == 0
