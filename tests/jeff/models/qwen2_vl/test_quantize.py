"""Balanced quantization finds its groups in Qwen2-VL, and folds them exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import qwen2_vl_tiny

import jeff
from jeff import mbq, program
from jeff.mbq.groups.infer import infer_groups
from jeff.models import decoder, qwen2_vl
from jeff.models.qwen2_vl import vision as vision_tower
from jeff.quantize import QuantConfig

W3 = mbq.BalanceConfig(weights=QuantConfig(bits=3, group_size=32), grid=3)


@pytest.fixture(scope="module")
def case():
    return qwen2_vl_tiny.load()


@pytest.fixture(scope="module")
def batch(case):
    """The fixture as one batch: image tokens and answer tokens."""
    labels = case.stored["labels"]
    return mbq.Batch((case.inputs,), qwen2_vl.masks(case.inputs, labels), labels)


@pytest.fixture(scope="module")
def text(case, batch):
    """The decoder alone, from the embeddings on: the same gradients, half the work."""
    apply = functools.partial(decoder.apply, config=case.config.decoder)
    x = jnp.asarray(case.stored["hidden_states"][0])
    sequence = decoder.Sequence(x, case.inputs["positions"], case.inputs["valid"])
    return apply, case.params["decoder"], batch._replace(inputs=(sequence,))


def short(names, prefix):
    return tuple(name.removeprefix(prefix).removesuffix(".kernel") for name in names)


def test_groups_of_tower_and_decoder(case):
    """The fused query, key and value of the tower share one norm; its output matrix is
    folded into the value's third of the fused matrix. Query heads of the decoder that
    share a value head share a scale: 64 inputs, 32 classes."""
    tower, text = program.blocks(case.apply, case.params, case.inputs)
    found = {}
    for stack, prefix in ((tower, "vision.layers.0."), (text, "decoder.layers.0.")):
        assert len(stack.leaves) == 2  # blocks
        found[prefix] = [
            (
                short(group.sites, prefix),
                short(group.fold, prefix),
                len(np.unique(group.share)),
            )
            for group in infer_groups(stack, lambda site: True)
        ]
    assert found["decoder.layers.0."] == [
        (
            ("attention.query", "attention.key", "attention.value"),
            ("attention_norm",),
            64,
        ),
        (("attention.output",), ("attention.value", "attention.value.bias"), 32),
        (("mlp.gate", "mlp.up"), ("mlp_norm",), 64),
        (("mlp.down",), ("mlp.up",), 128),
    ]
    assert found["vision.layers.0."][:3] == [
        (("attention.qkv",), ("attention_norm.scale", "attention_norm.bias"), 32),
        (("attention.output",), ("attention.qkv", "attention.qkv.bias"), 32),
        (("mlp.up",), ("mlp_norm.scale", "mlp_norm.bias"), 32),
    ]


def test_sensitivities_are_the_originals(case, text):
    """Every token as a modality of its own gives the gradient of every token."""
    apply, params, batch = text
    valid = case.inputs["valid"]
    each = np.zeros((valid.sum(), *valid.shape), bool)
    each[(np.arange(valid.sum()), *np.nonzero(valid))] = True
    names = {
        "attention.output": "self_attn.o_proj",
        "mlp.down": "mlp.down_proj",
    }
    sites = {
        f"layers.{i}.{ours}.kernel": f"{i}.{theirs}"
        for i in (0, 1)
        for ours, theirs in names.items()
    }
    tokens_apart = batch._replace(masks={str(i): m for i, m in enumerate(each)})
    got = mbq.sensitivity(apply, params, [tokens_apart], case.loss, sites=[*sites])
    for site, name in sites.items():
        tokens = np.zeros(valid.shape, np.float32)
        tokens[valid] = [float(got[site][str(i)]) for i in range(len(each))]
        want = case.stored[f"sens_tokens/{name}"]
        np.testing.assert_allclose(tokens[valid], want[valid], rtol=1e-4, atol=1e-9)
        both = [tokens[batch.masks[m]].mean() for m in ("vision", "language")]
        np.testing.assert_allclose(both, case.stored[f"sens/{name}"], rtol=1e-4)


def test_mbq_balances_and_folds_the_decoder(case, text):
    apply, params, batch = text
    q = mbq.mbq(apply, params, [batch], W3, loss=case.loss)
    assert len(q.report.groups) == 8
    for group in q.report.groups:
        assert group.fold and not group.note, group.sites
        assert group.change <= 1e-6, group.sites
        assert 0 < group.ratios["vision"] < group.ratios["language"] == 1
    assert isinstance(q.params["head"]["kernel"], jax.Array)
    plain = mbq.rtn(apply, params, [batch], W3)
    run = jax.jit(jeff.rewrite(apply))
    valid = case.inputs["valid"]
    logits = [run(p, *batch.inputs)[valid] for p in (q.params, plain.params)]
    error = [float(abs(y - case.stored["logits"][valid]).mean()) for y in logits]
    assert 0 < error[0] < error[1]


def test_the_tower_is_folded_where_that_is_exact(case):
    """Quick GELU is no multiple of its input, so its fold is left out and reported."""

    def where(site):
        return site.name.endswith(("attention.output.kernel", "mlp.down.kernel"))

    names = ("patches", "patch_position", "patch_segment")
    patches = mbq.Batch(tuple(case.inputs[name] for name in names))
    tower = functools.partial(vision_tower.encode, config=case.config.vision)
    q = mbq.awq(tower, case.params["vision"], [patches], W3, where=where)
    assert [g.block for g in q.report.groups] == [0, 0, 1, 1]
    for value, down in zip(q.report.groups[::2], q.report.groups[1::2], strict=True):
        assert value.fold[0].endswith("qkv.kernel") and value.change <= 1e-6
        assert down.fold == () and (down.scale == 1).all()
        assert "not linear" in down.note and "logistic" in down.note


def test_sites_outside_of_the_decoder_have_no_modalities(case, batch):
    with pytest.raises(ValueError, match="leave the site out with where"):
        mbq.mbq(case.apply, case.params, [batch], W3, loss=case.loss)
