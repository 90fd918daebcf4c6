"""The methods against outputs of the original programs, through the public functions.

The gates are those of ``tests/golden/README.md``.
"""

import numpy as np
import pytest
from support import mbq_toy
from support.mbq_golden import LAYERS, check_group, golden, total_loss

from jeff import mbq
from jeff.quantize import QTensor, QuantConfig

RUNS = [
    ("mha", "w3_mae_rw"),
    ("mha", "w3_mae_plain"),
    ("mha", "w3_mse_rw"),
    ("mha", "w3_mse_plain"),
    ("mha", "w4a8_mae_rw"),
    ("gqa", "w3_mae_rw"),
]


@pytest.mark.parametrize(("which", "tag"), RUNS)
def test_search(which, tag):
    case = golden(which)
    report = case.run("mbq", tag).report
    searched = {
        name.removesuffix("/loss")
        for name in case.z
        if name.startswith(f"{tag}/") and name.endswith("/loss")
    }
    assert {f"{tag}/{case.key(g.sites)}" for g in report.groups} == searched
    for group in report.groups:
        assert group.note == "" and group.change < 1e-6
        check_group(case.z, f"{tag}/{case.key(group.sites)}", group)


@pytest.mark.parametrize(("which", "tag"), RUNS)
def test_quantized_program(which, tag):
    case = golden(which)
    case.check_logits(f"{tag}/", case.run("mbq", tag))


@pytest.mark.parametrize("which", ["mha", "gqa"])
def test_sensitivities_and_ratios(which):
    """The original divides its loss by the number of samples; the ratios are equal."""
    case = golden(which)
    report = case.run("mbq", "w3_mae_rw").report
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        seen = report.sensitivities[f"{LAYERS}.0.{name}.weight"]
        for layer in range(case.meta["layers"]):
            got = [seen[m][layer] for m in ("vision", "language")]
            want = case.z[f"sens/layers.{layer}.{name}/mean_vis_ans"] * case.meta["B"]
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-12)
    for group in report.groups:
        want = case.z[f"w3_mae_rw/{case.key(group.sites)}/ratio"]
        np.testing.assert_allclose(group.ratios["vision"], want, rtol=1e-4)
        assert group.ratios["language"] == 1.0


@pytest.mark.parametrize("tag", ["w3_mae_rw", "w4a8_mae_rw"])
def test_round_to_nearest(tag):
    case = golden("mha")
    case.check_logits(f"rtn_{tag.split('_')[0]}/", case.run("rtn", tag))


def test_smoothquant():
    case = golden("mha")
    quantized = case.run("smoothquant", "w4a8_mae_rw")
    norms = {}
    for group in quantized.report.groups:
        if group.fold:
            (norm,) = group.fold
            norms[norm.removesuffix(".weight")] = group.scale
        else:
            assert group.note == "its input does not come from a norm"
    stored = [n.split("/")[1] for n in case.z if "smoothquant/" in n and "/scale" in n]
    assert sorted(norms) == sorted(stored)
    for norm, scale in norms.items():
        want = case.z[f"smoothquant/{norm}/scale"]
        np.testing.assert_allclose(scale, want, rtol=2e-6)
    case.check_logits("smoothquant/w4a8_", quantized)


@pytest.mark.parametrize("which", ["mha", "gqa"])
def test_awq(which):
    """The stored run scales the first layer only; later layers are searched alike."""
    case = golden(which)
    groups = [g for g in case.run("awq", "w3_mae_rw").report.groups if g.block == 0]
    assert (
        len(groups)
        == len(case.groups)
        == sum(
            name.startswith("awq_w3/") and name.endswith("/scale") for name in case.z
        )
    )
    for group in groups:
        name = case.key(group.sites).removeprefix(f"{LAYERS}.0.")
        check_group(case.z, f"awq_w3/{name}", group)
        assert group.ratios == {}


def test_distort():
    """Candidates see the quantized prefix; every step goes on from the stored scales.

    In W4A8 one flipped activation code changes what follows. (Of the four stored runs
    this one holds the others' parts: quantized activations, and shared heads.)
    """
    case, tag = golden("gqa"), "w4a8_mae_rw_distort"
    quantized, found = case.stepped("mbq", case.config(tag), lambda n: f"{tag}/{n}")
    assert len(quantized.report.groups) == len(case.groups) * case.meta["layers"]
    for group in quantized.report.groups:
        name = case.key(group.sites)
        check_group(
            case.z,
            f"{tag}/{name}",
            group._replace(scale=found[name]),
            gap=4e-3,
            scale=2e-3,
        )
    case.check_logits(f"{tag}/", quantized)


def test_clip():
    """The stored run clips the first layer, on 60 tokens; no queries, no keys."""
    case, tag = golden("gqa"), "awq_w3"
    first = f"{LAYERS}.0."
    config = mbq.BalanceConfig(
        weights=QuantConfig(bits=3, group_size=case.meta["group"]),
        clip=True,
        clip_tokens=60,
    )
    quantized, _ = case.stepped(
        "awq",
        config,
        lambda n: f"{tag}/{n.removeprefix(first)}",
        where=lambda site: site.name.startswith(first),
    )
    stored = {n.split("/")[1] for n in case.z if n.endswith("/clip_max") and tag in n}
    seen = {}
    for clip in quantized.report.clips:
        name = clip.leaf.removeprefix(first).removesuffix(".weight")
        w = case.scaled_weight(tag, name)
        peak = np.abs(w).reshape(w.shape[0], -1, case.meta["group"]).max(axis=2)
        limits = peak * (1 - clip.steps.T.astype(np.float32) / 20)
        want = case.z[f"{tag}/{name}/clip_max"]
        assert limits.shape == want.shape
        seen[name] = (np.abs(limits / want - 1) < 1e-5).mean()
        assert 0 < clip.after < clip.before and 0.1 < clip.clipped < 1
    assert set(seen) == stored and len(stored) == 5
    assert min(seen.values()) >= 0.98, seen
    layers = quantized.params["model"]["layers"]
    assert isinstance(layers[0]["mlp"]["up_proj"]["weight"], QTensor)
    assert not isinstance(layers[1]["mlp"]["up_proj"]["weight"], QTensor)


@pytest.mark.parametrize("which", ["mha", "gqa"])
def test_everything_inferred(which):
    """Named groups and inferred ones agree; shared heads are then searched too."""
    case = golden(which)
    tag = "w3_mae_rw"
    inferred = mbq.mbq(
        mbq_toy.apply,
        case.params,
        [case.batch],
        case.config(tag),
        loss=total_loss,
    )
    named = {g.sites: g for g in case.run("mbq", tag).report.groups}
    found = {g.sites: g for g in inferred.report.groups}
    outputs = {(f"{LAYERS}.{i}.self_attn.o_proj.weight",) for i in range(3)}
    assert set(found) - set(named) == (outputs if which == "gqa" else set())
    for sites, group in named.items():
        assert found[sites].exponent == group.exponent
        np.testing.assert_allclose(found[sites].scale, group.scale, rtol=1e-6)
    head = case.meta["d"] // case.meta["heads"]
    for sites in outputs:
        group = found[sites]
        assert group.fold[0].endswith("self_attn.v_proj.weight") and group.change < 1e-6
        per_head = group.scale.reshape(case.meta["kv"], -1, head)
        assert (per_head == per_head[:, :1]).all()  # query heads of one value head
        assert len(np.unique(group.scale)) > 1 or group.exponent == 0
        assert group.losses.min() <= group.losses[0]
