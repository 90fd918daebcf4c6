"""What comes out: packed weights that run, and the bytes they take."""

import jax
import numpy as np
import pytest
from support import mbq_blocks

import jeff
from jeff import mbq, quantize, tree
from jeff.quantize import QTensor, QuantConfig

W3 = QuantConfig(bits=3, group_size=16)
PLAIN = mbq.BalanceConfig(weights=W3, reweight="none")
BATCHES = mbq_blocks.batches()


def test_bytes_are_those_stored():
    result = mbq.rtn(mbq_blocks.gated(), mbq_blocks.make_params(), BATCHES, PLAIN)
    report = result.report
    stored = [q for q in tree.flatten(result.params)[0].values() if hasattr(q, "codes")]
    leaves = [a for q in stored for a in jax.tree.leaves(q)]
    assert report.stored_bytes == sum(a.nbytes for a in leaves)
    weights = sum(q.size for q in stored)
    assert report.dense_bytes == 2 * weights == 2 * 3 * 3 * 32 * 64
    # three bits per weight; per group of 16 a float32 scale and a uint8 zero point
    assert report.stored_bytes == weights * 3 // 8 + weights // 16 * 5


def fake_quantized(result):
    return jax.tree.map(
        lambda leaf: leaf.decode() if isinstance(leaf, QTensor) else leaf,
        result.params,
        is_leaf=lambda leaf: isinstance(leaf, QTensor),
    )


@pytest.mark.parametrize("layout", ["unrolled", "scanned"])
def test_the_rewritten_program_is_the_dense_one_of_decoded_weights(layout):
    apply, params = mbq_blocks.gated(), mbq_blocks.make_params()
    if layout == "scanned":
        apply, params = mbq_blocks.scanned, mbq_blocks.stack(params)
    result = mbq.mbq(apply, params, BATCHES, PLAIN)
    (x,) = BATCHES[0].inputs
    want = jax.jit(apply)(fake_quantized(result), x)
    got = jax.jit(jeff.rewrite(apply, *result.rules))(result.params, x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    if layout == "scanned":  # the packed leaf itself is stacked, and steps through
        leaf = result.params["layers"]["up"]
        assert leaf.shape == (3, 32, 64) and leaf.packed.shape[0] == 3
    packed = jax.jit(jeff.rewrite(apply, *result.rules, quantize.fused))
    np.testing.assert_allclose(packed(result.params, x), want, rtol=1e-4, atol=1e-4)
    assert not np.allclose(want, jax.jit(apply)(params, x), atol=1e-3)


def test_activations_are_quantized_by_the_returned_rule():
    config = mbq.BalanceConfig(
        weights=QuantConfig(bits=4, symmetric=True),
        activation_bits=8,
        reweight="none",
    )
    result = mbq.rtn(mbq_blocks.gated(), mbq_blocks.make_params(), BATCHES, config)
    assert len(result.rules) == 1
    (x,) = BATCHES[0].inputs
    dense = fake_quantized(result)
    h = x
    for p in dense["layers"]:
        n = h * jax.lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-6) * p["norm"]
        n = quantize.fake_quant_activations(n, bits=8)
        hidden = jax.nn.silu(n @ p["gate"]) * (n @ p["up"])
        h = h + quantize.fake_quant_activations(hidden, bits=8) @ p["down"]
    got = jax.jit(jeff.rewrite(mbq_blocks.gated(), *result.rules))(result.params, x)
    want = h @ dense["head"]
    assert np.sqrt(((got - want) ** 2).mean() / (want**2).mean()) < 5e-3  # a code flips
