"""The methods against outputs of the original programs, through the public functions.

The gates are those of ``tests/golden/README.md``. The file of grouped-query attention
was made by a program that does not scale the output projection there: the groups are
named by hand to do the same.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_toy

import jeff
from jeff import mbq
from jeff.quantize import QTensor, QuantConfig

LAYERS = "model.layers"
GROUPS = {  # linears of a group, and whether the original scales it with shared heads
    "self_attn.q_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
W4A8 = mbq.BalanceConfig(weights=QuantConfig(bits=4, symmetric=True), activation_bits=8)


class Golden:
    """One golden file with the program it was made from."""

    def __init__(self, which):
        self.meta, self.z = mbq_toy.load(which)
        self.params = mbq_toy.make_params(self.meta)
        batch = mbq_toy.make_batch(self.z)
        self.inputs = batch
        self.batch = mbq.Batch(
            inputs=(batch,),
            masks={"vision": batch["vision_mask"], "language": batch["caption_mask"]},
            targets=batch["labels"],
        )
        shared_heads = self.meta["kv"] < self.meta["heads"]
        self.groups = [
            mbq.GroupSpec(sites=tuple(f"{LAYERS}.0.{n}.weight" for n in names))
            for first, names in GROUPS.items()
            if not (shared_heads and first == "self_attn.o_proj")
        ]
        self.run = functools.cache(self._run)

    def config(self, tag):
        """The settings of a tag such as ``w3_mae_rw``."""
        width, loss, kind = tag.split("_")
        w3 = QuantConfig(bits=3, group_size=self.meta["group"])
        return mbq.BalanceConfig(
            weights=w3 if width == "w3" else W4A8.weights,
            activation_bits=None if width == "w3" else 8,
            loss=loss,
            reweight={"rw": "ratio_floor", "plain": "none"}[kind],
        )

    def _run(self, method, tag):
        return getattr(mbq, method)(
            mbq_toy.apply,
            self.params,
            [self.batch],
            self.config(tag),
            loss=total_loss,
            groups=self.groups,
        )

    def key(self, sites):
        """``model.layers.I.LINEAR``, the name of a group in the file."""
        return sites[0].removesuffix(".weight")

    def check_logits(self, prefix, quantized):
        """Logits at every second position after the image, and the loss."""
        logits = run_program(quantized.rules)(quantized.params, self.inputs)
        want = self.z[f"{prefix}quant_logits"]
        got = np.asarray(logits)[:, self.meta["v0"] + self.meta["nv"] :: 2]
        loss = answer_loss(logits, self.inputs["labels"])
        if "w3" in prefix:
            np.testing.assert_allclose(got, want, atol=1e-4)
            np.testing.assert_allclose(loss, self.z[f"{prefix}quant_loss"], atol=1e-4)
        else:
            assert np.sqrt(((got - want) ** 2).mean() / (want**2).mean()) < 0.03
            np.testing.assert_allclose(loss, self.z[f"{prefix}quant_loss"], atol=1e-2)


def token_losses(logits, labels):
    """Next-token losses ``[B, N - 1]``, zero outside the answer, and the answer."""
    target = labels[:, 1:]
    answer = target != mbq_toy.IGNORED
    log_p = jax.nn.log_softmax(logits[:, :-1])
    at = jnp.where(answer, target, 0)[..., None]
    nll = -jnp.take_along_axis(log_p, at, axis=-1)[..., 0]
    return jnp.where(answer, nll, 0.0), answer.astype(jnp.float32)


def total_loss(logits, labels):
    """Sum over samples of each sample's mean loss over its answer."""
    nll, answer = token_losses(logits, labels)
    return (nll.sum(axis=1) / answer.sum(axis=1)).sum()


def answer_loss(logits, labels):
    """Mean over all answer tokens of the batch together."""
    nll, answer = token_losses(logits, labels)
    return nll.sum() / answer.sum()


_ACTIVATIONS = mbq.quantized_activations(8)


@functools.cache
def compiled(quantized_activations):
    rules = (_ACTIVATIONS,) if quantized_activations else ()
    return jax.jit(jeff.rewrite(mbq_toy.apply, *rules))


def run_program(rules):
    """The program, compiled once for all results with the same kind of rules."""
    assert len(rules) <= 1
    return compiled(bool(rules))


@functools.cache
def golden(which):
    return Golden(which)


def check_group(z, key, group, *, gap=2e-3):
    """One group's search against the stored one."""
    curve = np.abs(group.losses / z[f"{key}/loss"] - 1)
    assert curve.max() < 5e-3 and np.median(curve) < 1e-3, key
    stored = int(z[f"{key}/alpha20"])
    if round(group.exponent * 20) != stored:
        assert group.losses[stored] <= group.losses.min() * (1 + gap), key
        return
    np.testing.assert_allclose(group.scale, z[f"{key}/scale"], rtol=2e-6, err_msg=key)


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


@pytest.mark.slow
def test_scanned_layers_choose_the_same():
    case = golden("mha")
    tag = "w3_mae_rw"
    stacked = mbq.mbq(
        mbq_toy.apply_scanned,
        mbq_toy.stack_layers(case.params),
        [case.batch],
        case.config(tag),
        loss=total_loss,
    )
    groups = case.run("mbq", tag).report.groups
    for one, other in zip(stacked.report.groups, groups, strict=True):
        assert (one.block, one.exponent) == (other.block, other.exponent)
        np.testing.assert_allclose(one.scale, other.scale, rtol=1e-5)
    leaf = stacked.params["model"]["layers"]["mlp"]["down_proj"]["weight"]
    assert isinstance(leaf, QTensor) and leaf.shape[0] == case.meta["layers"]
    logits = jax.jit(jeff.rewrite(mbq_toy.apply_scanned))(stacked.params, case.inputs)
    stored = np.asarray(logits)[:, case.meta["v0"] + case.meta["nv"] :: 2]
    np.testing.assert_allclose(stored, case.z[f"{tag}/quant_logits"], atol=1e-4)
