"""Quantizing LLaVA-OneVision: what is scaled together, and by whose gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import llava_tiny

import jeff
from jeff import mbq
from jeff.models import decoder
from jeff.models import llava_onevision as llava
from jeff.models.vision import siglip
from jeff.quantize import QTensor, QuantConfig

W3 = mbq.BalanceConfig(weights=QuantConfig(bits=3, group_size=32), grid=2)
W4A8 = mbq.BalanceConfig(weights=QuantConfig(bits=4, symmetric=True), activation_bits=8)


@pytest.fixture(scope="module")
def case():
    return llava_tiny.load()


@pytest.fixture(scope="module")
def batch(case):
    labels = case.stored["labels"]
    return mbq.Batch((case.inputs,), llava.masks(case.inputs, labels), labels)


@pytest.fixture(scope="module")
def text(case, batch):
    """The decoder alone, from the embeddings on: the same gradients, half the work."""
    apply = functools.partial(decoder.apply, config=case.config.decoder)
    x = jnp.asarray(case.stored["hidden_states"][0])
    sequence = decoder.Sequence(x, case.inputs["positions"], case.inputs["valid"])
    return apply, case.params["decoder"], batch._replace(inputs=(sequence,)), case.loss


@pytest.fixture(scope="module")
def balanced(text):
    apply, params, batch, loss = text
    return mbq.mbq(apply, params, [batch], W3, loss=loss)


def test_sensitivities_are_the_originals(case, text, balanced):
    del balanced  # has compiled the gradients already
    apply, params, batch, loss = text
    # Each sample's modalities apart, and every other token of them.
    masks = {}
    for name, mask in batch.masks.items():
        for sample in range(2):
            for odd in range(2):
                own = np.zeros_like(mask)
                own[sample, odd::2] = mask[sample, odd::2]
                masks[f"{name} {sample} {odd}"] = own
    apart = batch._replace(masks=masks)
    got = mbq.sensitivity(apply, params, [apart], loss, sites=set(llava_tiny.SITES))
    for ours, theirs in llava_tiny.SITES.items():
        tokens = case.stored[f"sens_tokens/{theirs}"]
        for name, mask in masks.items():
            want = tokens[mask].mean()
            np.testing.assert_allclose(got[ours][name], want, rtol=1e-4, atol=1e-12)
        pooled = case.stored[f"sens/{theirs}"]
        for name, want in zip(("vision", "language"), pooled, strict=True):
            counts = {k: m.sum() for k, m in masks.items() if k.startswith(name)}
            total = sum(float(got[ours][k]) * n for k, n in counts.items())
            mean = total / sum(counts.values())
            np.testing.assert_allclose(mean, want, rtol=1e-4, atol=1e-12)


def test_decoder_is_balanced_and_every_fold_is_exact(balanced):
    assert not balanced.report.notes
    folds = {group.fold for group in balanced.report.groups if group.block == 0}
    at = "layers.0."
    assert folds == {
        (f"{at}attention_norm",),
        (f"{at}attention.value.kernel", f"{at}attention.value.bias"),
        (f"{at}mlp_norm",),
        (f"{at}mlp.up.kernel",),
    }
    assert len(balanced.report.groups) == 8
    assert max(group.change for group in balanced.report.groups) <= 1e-6
    assert all(0 < g.ratios["vision"] < 0.2 for g in balanced.report.groups)
    # Grouped queries: two heads of 16 channels share the scales of their values.
    (output,) = (
        g for g in balanced.report.groups if "output" in g.sites[0] and g.block == 0
    )
    shared = output.scale.reshape(2, 2, 16)
    np.testing.assert_array_equal(shared[:, 0], shared[:, 1])


def test_quantized_decoder_runs_packed(case, text, balanced):
    apply, _, batch, loss = text
    down = balanced.params["layers"][1]["mlp"]["down"]["kernel"]
    assert isinstance(down, QTensor)
    run = jax.jit(jeff.rewrite(apply, *balanced.rules))
    got = float(loss(run(balanced.params, *batch.inputs), batch.targets))
    assert 1e-3 < abs(got - float(case.stored["loss"])) < 1.0


def test_rtn_finds_the_blocks_of_tower_and_decoder(case, batch):
    got = mbq.rtn(case.apply, case.params, [batch], W3)
    kinds = jax.tree.leaves(got.params, is_leaf=lambda x: isinstance(x, QTensor))
    assert sum(isinstance(leaf, QTensor) for leaf in kinds) == 2 * 6 + 2 * 7
    assert isinstance(got.params["vision"]["layers"][0]["mlp"]["up"]["kernel"], QTensor)
    assert not isinstance(got.params["projector"]["up"]["kernel"], QTensor)
    assert got.report.notes == ()


def test_smoothquant_on_the_tower_says_what_cannot_be_folded(case):
    def tower(params, pixels):
        return siglip.hidden_states(params, pixels, config=case.config.vision)[0]

    pixels = case.inputs["pixel_values"].reshape(-1, 3, 42, 42)
    got = mbq.smoothquant(tower, case.params["vision"], [mbq.Batch((pixels,))], W4A8)
    first = {g.sites: g for g in got.report.groups if g.block == 0}
    at = "layers.0."
    attention = tuple(f"{at}attention.{n}.kernel" for n in ("query", "key", "value"))
    folded = {sites: group.fold for sites, group in first.items() if group.fold}
    norms = {
        attention: tuple(f"{at}attention_norm.{n}" for n in ("scale", "bias")),
        (f"{at}mlp.up.kernel",): tuple(f"{at}mlp_norm.{n}" for n in ("scale", "bias")),
    }
    assert folded == norms
    assert max(group.change for group in got.report.groups) <= 1e-6
    assert "tanh" in first[(f"{at}mlp.down.kernel",)].note
    assert "norm" in first[(f"{at}attention.output.kernel",)].note
    assert isinstance(got.params["layers"][1]["mlp"]["up"]["kernel"], QTensor)


def test_tower_tokens_need_masks_of_their_own(case, batch):
    with pytest.raises(ValueError, match="masks must have a token.*vision.*where"):
        mbq.mbq(case.apply, case.params, [batch], W3, loss=case.loss)
