"""The golden runs of MBQ's original program, and the program they were made with.

The file of grouped-query attention was made by a program that does not scale the output
projection there: the groups are named by hand to do the same.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jeff
from jeff import mbq
from jeff.mbq.call.begin import begin
from jeff.mbq.methods.balancing import balance
from jeff.mbq.methods.choosers import searched
from jeff.quantize import QuantConfig
from support import mbq_toy

__all__ = [
    "GROUPS",
    "LAYERS",
    "W4A8",
    "Golden",
    "check_group",
    "golden",
    "run_program",
    "total_loss",
]

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
        width, loss, kind, *distort = tag.split("_")
        w3 = QuantConfig(bits=3, group_size=self.meta["group"])
        return mbq.BalanceConfig(
            weights=w3 if width == "w3" else W4A8.weights,
            activation_bits=None if width == "w3" else 8,
            loss=loss,
            reweight={"rw": "ratio_floor", "plain": "none"}[kind],
            distort=bool(distort),
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

    def stepped(self, method, config, prefix, **options):
        """A run in which every step goes on from the stored scales, not from its own.

        One flipped code would otherwise change all that follows. The scales that were
        found are in the second result, by the name of the group.
        """
        options = {
            "loss": total_loss, "groups": self.groups, "where": None,
            "clip_where": None, "store": None, **options,
        }  # fmt: skip
        plain, found = method == "awq", {}

        def choose(search, group, block, weights, features):
            choice = own(search, group, block, weights, features)
            first = search.groups[group].sites[0]
            name = self.key([search.stack.names[block][first]])
            found[name] = choice.scale
            return choice._replace(scale=jnp.asarray(self.z[f"{prefix(name)}/scale"]))

        args = method, mbq_toy.apply, self.params, [self.batch], config
        with begin(*args, **options) as call:
            own = searched(
                config,
                "mse" if plain else config.loss,
                (lambda *_: (None, {})) if plain else call.weigh,
            )
            done = balance(call.job, choose, call.seen, weigh_clip=call.weigh_clip)
        return done, found

    def scaled_weight(self, tag, name):
        """A weight of the first layer ``[out, in]``, times the stored scales of `tag`.

        The scale of its own input comes first, as in the original.
        """
        layer = self.params["model"]["layers"][0]
        module, linear = name.split(".")
        w = np.asarray(layer[module][linear]["weight"])
        for first, members in GROUPS.items():
            if name in members and f"{tag}/{first}/scale" in self.z:
                w = w * self.z[f"{tag}/{first}/scale"]
        for other, into in (
            ("v_proj", "self_attn.o_proj"),
            ("up_proj", "mlp.down_proj"),
        ):
            if linear == other and f"{tag}/{into}/scale" in self.z:
                w = w / self.z[f"{tag}/{into}/scale"][:, None]
        return w

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


def check_group(z, key, group, *, gap=2e-3, scale=2e-6):
    """One group's search against the stored one."""
    curve = np.abs(group.losses / z[f"{key}/loss"] - 1)
    assert curve.max() < 5e-3 and np.median(curve) < 1e-3, key
    stored = int(z[f"{key}/alpha20"])
    if round(group.exponent * 20) != stored:
        assert group.losses[stored] <= group.losses.min() * (1 + gap), key
        return
    np.testing.assert_allclose(group.scale, z[f"{key}/scale"], rtol=scale, err_msg=key)
