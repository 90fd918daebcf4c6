"""Limits, and GPTQ under them, against the same steps by hand.

`groups=[]` leaves the scales out; `methods/test_mbq.py` holds those against the
original.
"""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_blocks
from support.case import normal

from jeff import mbq, quantize
from jeff.mbq.clip.block import StackClip
from jeff.mbq.clip.search import shrunk
from jeff.quantize import QuantConfig

# With integer zero points a last bit would decide some limits (see `clip_search`).
W3 = QuantConfig(bits=3, group_size=16, zero_point="float")
CLIP = mbq.BalanceConfig(weights=W3, reweight="answer", clip=True)
BOTH = dataclasses.replace(CLIP, rounding="gptq", weighted_hessian=True)
PARAMS, BATCHES = mbq_blocks.make_params(), mbq_blocks.batches(2)
NAMES = ("gate", "up", "down")
args = functools.partial(mbq.mbq, mbq_blocks.gated(), PARAMS, groups=[])


codes = jax.jit(lambda q: q.codes())


def together():
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *BATCHES)


@functools.cache
def run(config, layout="unrolled"):
    apply, params = mbq_blocks.gated(), PARAMS
    if layout == "scanned":
        apply, params = mbq_blocks.scanned, mbq_blocks.stack(params)
    data = [together()] if layout == "one batch" else BATCHES
    return mbq.mbq(apply, params, data, config, groups=[])


def limits_of(w, rows):
    """The search in NumPy and float64, ``[groups, out]``."""
    w, rows = np.asarray(w, np.float64), np.asarray(rows, np.float64)
    w, rows = w.reshape(-1, 16, w.shape[1]), rows.reshape(len(rows), -1, 16)
    peak, errors = np.abs(w).max(axis=1), []
    for i in range(10):
        limit = (peak * (1 - i / 20))[:, None]
        c = np.clip(w, -limit, limit)
        low = c.min(axis=1, keepdims=True)
        step = (c.max(axis=1, keepdims=True) - low) / 7
        change = np.round((c - low) / step) * step + low - w
        errors.append((np.einsum("tgk,gko->tgo", rows, change) ** 2).mean(axis=0))
    return peak * (1 - np.argmin(errors, axis=0) / 20)


@jax.jit
def inputs_of(p, x):
    """Inputs of gate and up, and of down, in one block; and its output."""
    h = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * p["norm"]
    hidden = jax.nn.silu(h @ p["gate"]) * (h @ p["up"])
    return h, hidden, x + hidden @ p["down"]


def clips_of(result, block):
    """Limits in 20ths by the name of the weight."""
    clips = [c for c in result.report.clips if c.block == block]
    return {c.leaf.split(".")[-1]: c for c in clips}


def test_limits_are_those_of_the_answers_tokens():
    """Behind the clean prefix; there are few tokens, so all are looked at."""
    result, batch = run(CLIP), together()
    x, answer = batch.inputs[0], batch.masks["language"]
    for i, p in enumerate(PARAMS["layers"]):
        h, hidden, x = inputs_of(p, x)
        clips = clips_of(result, i)
        assert set(clips) == set(NAMES)
        for name, clip in clips.items():
            want = limits_of(p[name], (hidden if name == "down" else h)[answer])
            got = shrunk(p[name], jnp.asarray(clip.steps))
            assert clip.steps.dtype == np.uint8 and got.shape == want.shape
            assert (np.abs(got / want - 1) < 1e-5).mean() > 0.98
            stored = result.params["layers"][i][name]
            again = quantize.quantize(mbq.clip_weight(p[name], got), W3)
            np.testing.assert_array_equal(codes(stored), codes(again))
            assert clip.after < clip.before and 0 < clip.clipped < 1
    assert len(result.report.clips) == 9


def test_gptq_under_the_limits():
    """Scales of the clipped weights; what is made good is the error of the others."""
    result, batch = run(BOTH), together()
    x, tokens = batch.inputs[0], batch.masks["language"].astype(jnp.float32)
    for i, p in enumerate(PARAMS["layers"]):
        hessians = [
            mbq.activation_hessian(a, tokens).value for a in inputs_of(p, x)[:2]
        ]
        q = {}
        for name, clip in clips_of(result, i).items():
            limits = shrunk(p[name], jnp.asarray(clip.steps))
            ranges = mbq.clip_weight(p[name], limits)
            h = hessians[name == "down"]
            q[name] = mbq.gptq_quantize(p[name], h, W3, ranges=ranges)
            got = result.params["layers"][i][name]
            assert (codes(got) != codes(q[name])).mean() < 0.01
            np.testing.assert_array_equal(
                got.scale, quantize.quantize(ranges, W3).scale
            )
        x = inputs_of(p | {n: w.decode() for n, w in q.items()}, x)[2]
    # The limits are those that rounding to nearest gets.
    for one, other in zip(result.report.clips, run(CLIP).report.clips, strict=True):
        np.testing.assert_array_equal(one.steps, other.steps)


@pytest.mark.parametrize("layout", ["one batch", "scanned"])
def test_batches_and_scanned_layers_find_the_same(layout):
    clips = run(CLIP, layout).report.clips
    for a, b in zip(clips, run(CLIP).report.clips, strict=True):
        assert a.block == b.block and (a.steps != b.steps).mean() < 0.02
        np.testing.assert_allclose([a.before, a.after], [b.before, b.after], rtol=1e-3)


def test_clip_where_decides():
    result = args(BATCHES, CLIP, clip_where=lambda site: site.name.endswith("0.down"))
    assert [c.leaf for c in result.report.clips] == ["layers.0.down"]


def test_weights_of_many_shapes():
    """Transposed heads, experts, and what cannot be clipped; each by hand."""
    x = normal(0, 2, 40, 32) @ normal(1, 32, 32)
    params = {
        "heads": normal(2, 8, 2, 16),
        "experts": normal(5, 2, 32, 8),
        "halves": normal(6, 32, 8),
    }

    def apply(p, x):
        y = jnp.einsum("bthd,nhd->btn", x.reshape(2, 40, 2, 16), p["heads"])
        y += x[..., :16] @ p["halves"][:16]
        return y + jnp.einsum("etk,ekn->etn", x, p["experts"])

    config = dataclasses.replace(CLIP, reweight="none", clip_tokens=40)
    result = mbq.awq(apply, params, [mbq.Batch((x,))], config, groups=[])
    (note,) = result.report.notes
    assert note.startswith("halves: not clipped, its input channels do not match")
    found = {c.leaf: c.steps for c in result.report.clips}
    assert set(found) == {"heads", "experts"} and found["experts"].shape == (2, 2, 8)
    heads = params["heads"].reshape(8, 32).T
    clipped = mbq.clip_weight(heads, shrunk(heads, found["heads"]))
    want = codes(quantize.quantize(clipped, W3))
    np.testing.assert_array_equal(codes(result.params["heads"]).reshape(8, 32).T, want)
    pairs = [(heads, x.reshape(-1, 32)[::2], found["heads"])]
    pairs += [(params["experts"][e], x[e], found["experts"][e]) for e in range(2)]
    for w, rows, steps in pairs:
        assert (np.abs(shrunk(w, steps) / limits_of(w, rows) - 1) < 1e-5).mean() > 0.9


GPTQ_ONLY = 'has no effect in {} with rounding="nearest"'
REFUSED = [
    ("awq", {"act_order": True}, GPTQ_ONLY.format("awq")),
    ("mbq", {"weighted_hessian": True}, GPTQ_ONLY.format("mbq")),
    ("smoothquant", {"damping": 0.5}, GPTQ_ONLY.format("smoothquant")),
    ("rtn", {"damping": 0.5}, "config.damping=0.5 has no effect in rtn"),
    ("rtn", {"clip": True}, "config.clip=True has no effect in rtn"),
    ("rtn", {"rounding": "gptq"}, "config.rounding='gptq' has no effect in rtn"),
    ("smoothquant", {"distort": True}, "config.distort=True has no effect in smooth"),
    ("gptq", {"clip": True}, "config.clip=True has no effect in gptq"),
    ("gptq", {"distort": True}, "config.distort=True has no effect in gptq"),
]


@pytest.mark.parametrize(("method", "changes", "message"), REFUSED)
def test_options_that_would_do_nothing(method, changes, message):
    config = mbq.BalanceConfig(weights=W3, **changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        getattr(mbq, method)(mbq_blocks.gated(), PARAMS, BATCHES, config)


@pytest.mark.parametrize("method", ["rtn", "smoothquant", "gptq"])
def test_clip_where_without_clipping(method):
    config = mbq.BalanceConfig(weights=W3)
    with pytest.raises(ValueError, match=f"clip_where has no effect in {method}"):
        getattr(mbq, method)(
            mbq_blocks.gated(), PARAMS, BATCHES, config, clip_where=lambda site: True
        )


def test_rows_that_fill_up_are_not_searched(monkeypatch):
    """One batch has 12 tokens of the kind, 15 have one: 27 rows, not 16 times 12."""
    rows, search = [], StackClip.search

    def spy(self, name, w, xs, shares, config):
        rows.append([x.shape[-2] for x in xs] + [a.size for a in shares])
        assert all((np.asarray(a) > 0).all() for a in shares)
        return search(self, name, w, xs, shares, config)

    monkeypatch.setattr(StackClip, "search", spy)
    x = np.asarray(normal(0, 16, 1, 12, 16))
    few = np.zeros((16, 1, 12), bool)
    few[0], few[1:, 0, 3] = True, True
    batches = [mbq.Batch((a,), {"language": m}) for a, m in zip(x, few, strict=True)]
    args_ = (lambda p, x: x @ p["w"]), {"w": normal(1, 16, 4)}, batches, CLIP
    mbq.mbq(*args_, groups=[])
    assert rows == [[27, 27]]


def test_bad_clip_where():
    with pytest.raises(
        ValueError, match="clip_where accepts no site that is quantized"
    ):
        args(BATCHES, CLIP, clip_where=lambda site: False)
    plain = dataclasses.replace(CLIP, clip=False)
    with pytest.raises(
        ValueError, match="clip_where has no effect without config.clip"
    ):
        args(BATCHES, plain, clip_where=lambda site: True)
    with pytest.raises(
        TypeError, match="clip_where must be a function of a site, got 3"
    ):
        args(BATCHES, CLIP, clip_where=3)


def test_tokens_must_fit_every_input():
    """The search weighs tokens at the inputs, not only where scales are judged."""
    masks = {m: v[:, 1:] for m, v in BATCHES[0].masks.items()}
    with pytest.raises(
        ValueError, match=r"input of site 'layers\.0\.gate'.*clip=False"
    ):
        args([BATCHES[0]._replace(masks=masks)], CLIP)


def test_smoothed_weights_rounded_by_gptq():
    """The scales are SmoothQuant's, and GPTQ's Hessians those of the folded block."""
    config = mbq.BalanceConfig(weights=W3, rounding="gptq")
    first = lambda site: site.name.startswith("layers.0.")  # noqa: E731
    result = mbq.smoothquant(
        mbq_blocks.gated(), PARAMS, BATCHES[:1], config, where=first
    )
    x, p = BATCHES[0].inputs[0], PARAMS["layers"][0]
    scale = jnp.asarray(result.report.groups[0].scale)
    folded = {n: p[n] * scale[:, None] for n in ("gate", "up")}
    p = p | folded | {"norm": p["norm"] / scale}
    hessians = [mbq.activation_hessian(a).value for a in inputs_of(p, x)[:2]]
    for name in NAMES:
        want = mbq.gptq_quantize(p[name], hessians[name == "down"], W3)
        got = result.params["layers"][0][name]
        assert (codes(got) != codes(want)).mean() < 0.01
    np.testing.assert_allclose(result.params["layers"][0]["norm"], p["norm"], rtol=1e-6)
