import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_blocks
from support.case import normal

from jeff.mbq import Batch, sensitivity

BATCHES = mbq_blocks.batches(2)
DOWNS = [f"layers.{i}.down" for i in range(mbq_blocks.LAYERS)]


def by_hand(params, batch):
    """Mean absolute gradient of each modality at every ``down``, by probes."""
    (x,) = batch.inputs

    def loss(probes):
        h = x
        for p, probe in zip(params["layers"], probes, strict=True):
            n = h * jax.lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-6) * p["norm"]
            gated = jax.nn.silu(n @ p["gate"]) * (n @ p["up"])
            h = h + gated @ p["down"] + probe
        return mbq_blocks.loss(h @ params["head"], batch.targets)

    grads = jax.grad(loss)([jnp.zeros(x.shape)] * mbq_blocks.LAYERS)
    token = [np.abs(np.asarray(g)).mean(-1) for g in grads]
    return {
        m: [np.mean([t[b][mask[b]].mean() for b in range(len(mask))]) for t in token]
        for m, mask in batch.masks.items()
    }


def test_against_probes():
    params = mbq_blocks.make_params()
    got = sensitivity(mbq_blocks.gated(), params, BATCHES, mbq_blocks.loss, sites=DOWNS)
    want = [by_hand(params, b) for b in BATCHES]
    assert sorted(got) == DOWNS
    for layer, name in enumerate(DOWNS):
        for m in ("vision", "language"):
            mean = np.mean([w[m][layer] for w in want])
            np.testing.assert_allclose(got[name][m], mean, rtol=1e-5)


def test_a_scanned_site_has_one_number_per_layer():
    params = mbq_blocks.make_params()
    rows = sensitivity(
        mbq_blocks.gated(), params, BATCHES, mbq_blocks.loss, sites=DOWNS
    )
    stacked = sensitivity(
        mbq_blocks.scanned,
        mbq_blocks.stack(params),
        BATCHES,
        mbq_blocks.loss,
        sites=["layers.down"],
    )
    for m, got in stacked["layers.down"].items():
        assert got.shape == (mbq_blocks.LAYERS,)
        np.testing.assert_allclose(got, [rows[n][m] for n in DOWNS], rtol=1e-5)


def toy(rows=(1, 4)):
    """A linear program with two sites of ``[*rows, .]`` and one of pooled rows."""
    params = {n: normal(i, 3, 3) for i, n in enumerate(("a", "b", "pooled"))}

    def apply(p, x):
        h = (x @ p["a"]) @ p["b"]
        return h, h.mean(axis=-2) @ p["pooled"]

    vision = np.array([[True, True, False, False]])
    masks = {"vision": vision, "language": ~vision}
    return apply, params, Batch((normal(9, *rows, 3),), masks)


def total(y, _):
    return sum(jnp.sum(part) for part in y)


def test_all_sites_that_have_tokens():
    apply, params, batch = toy()
    assert sorted(sensitivity(apply, params, [batch], total)) == ["a", "b"]
    apply, params, batch = toy(rows=(4,))  # the tokens of the batch in one axis
    assert sorted(sensitivity(apply, params, [batch], total)) == ["a", "b"]


def test_three_modalities():
    apply, params, batch = toy()
    masks = {m: np.eye(4, dtype=bool)[i : i + 1] for i, m in enumerate("xyz")}
    weight = jnp.array([[[1.0], [2.0], [-3.0], [0.0]]])
    seen = sensitivity(
        apply,
        params,
        [batch._replace(masks=masks, targets=weight)],
        lambda y, w: (w * y[0]).sum(),
        sites=["b"],
    )["b"]
    np.testing.assert_allclose([seen["x"], seen["y"], seen["z"]], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": []}, "batches is empty"),
        ({"masks": {}}, "batches[0].masks is empty: name the modalities"),
        ({"sites": ["pooled"]}, "masks have shape (1, 4), but the output of site"),
        ({"params": {}}, "apply does not run with these params and inputs: KeyError"),
        ({"sites": ["nope"]}, "no site 'nope'; nearest: "),
        (
            {
                "masks": {
                    "vision": np.zeros((1, 4), bool),
                    "language": np.eye(4)[:1] > 0,
                }
            },
            "masks['vision'] has no token in any batch; leave the modality out",
        ),
        ({"loss": lambda y, _: y[1]}, "loss must return one scalar, got shape (1, 3)"),
    ],
)
def test_bad_input(change, message):
    apply, params, batch = toy()
    batch = batch._replace(masks=change.get("masks", batch.masks))
    with pytest.raises(ValueError, match=re.escape(message)):
        sensitivity(
            apply,
            change.get("params", params),
            change.get("batches", [batch]),
            change.get("loss", total),
            sites=change.get("sites"),
        )


def test_sites_as_one_string_are_said():
    apply, params, batch = toy()
    with pytest.raises(TypeError, match="sites must be a collection of names, got 'b'"):
        sensitivity(apply, params, [batch], total, sites="b")
