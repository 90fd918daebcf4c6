import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.case import normal

from jeff import mbq, quantize
from jeff.io.tensor_record import to_tensors
from jeff.mbq.blocks import file as block_file
from jeff.mbq.blocks.finished import FinishedBlock
from jeff.mbq.rounding.entries import Rounded
from jeff.quantize import QuantConfig

CONFIGS = [
    QuantConfig(bits=3, group_size=16),
    QuantConfig(bits=4, symmetric=True),
    QuantConfig(bits=2, zero_point="float", scale_dtype="bfloat16"),
    QuantConfig(bits=8, group_size=8, scale_dtype="float16"),
]


@pytest.mark.parametrize(
    ("config", "dtype"),
    list(zip(CONFIGS, ["float32", "bfloat16"] * 2, strict=True)),
)
def test_there_and_back(config, dtype):
    w = quantize.quantize(normal(0, 2, 48, 8).astype(dtype), config)
    groups = mbq.GroupReport(
        3, ("a", "b"), "b", (), float("nan"), {"vision": 0.25}, np.zeros(0),
        np.ones(4, np.float32), 1e-7, "why",
    )  # fmt: skip
    clip = mbq.ClipReport(3, "a", np.arange(6, dtype=np.uint8).reshape(2, 3), 0.5, 0.1)
    block = FinishedBlock(
        {"layers.0.a": Rounded(w, 7)},
        {"norm": jnp.ones(4, dtype), "odd/name": jnp.float32(3.0)},
        (groups,),
        (clip,),
        ("a line", "ä"),
    )
    again = block_file.from_bytes(block_file.to_bytes(block, {}), {})
    got, want = again.rounded["layers.0.a"], block.rounded["layers.0.a"]
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(block), strict=True):
        assert np.asarray(one).dtype == np.asarray(other).dtype
        np.testing.assert_array_equal(one, other)
    assert again.groups[0].sites == ("a", "b") and again.notes == block.notes
    assert set(again.folded) == {"norm", "odd/name"}
    assert block_file.to_bytes(again, {}) == block_file.to_bytes(block, {})


def test_other_files_are_refused():
    odd = [{"a": 1}, 3, {"place": {}}, {"place": {}, "rounded": []}]
    files = [to_tensors({"a": np.ones(2)}, record) for record in odd]
    for data in (b"", b"\0" * 20, *files):
        with pytest.raises(ValueError, match="not |no attribute"):
            block_file.from_bytes(data, {})
