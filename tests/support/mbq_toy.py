"""The toy vision-language decoder of the MBQ golden fixtures, as plain JAX functions.

A pre-norm decoder (rotary attention with key-value heads shared by query heads, gated
MLP) whose embeddings at token id 0 are replaced by projected vision features.
Weights are ``(out, in)`` as in torch, so that names and shapes are those of the
fixtures: ``model.layers.I.self_attn.q_proj.weight`` and so on.
"""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from support import golden_rule

__all__ = [
    "GOLDEN",
    "apply",
    "apply_scanned",
    "layer_names",
    "load",
    "loss",
    "make_batch",
    "make_params",
    "make_taps",
    "output_gradients",
    "run_block",
    "sample_loss",
    "stack_layers",
]

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
HEADS = 4  # query heads; the number of key-value heads follows from k_proj
ROPE_BASE = 10000.0
EPS = 1e-6
MASKED = -1e9
IGNORED = -100  # label of a token that is not part of the answer

_LAYER_SHAPES = {
    "input_layernorm.weight": ("d",),
    "self_attn.q_proj.weight": ("d", "d"),
    "self_attn.q_proj.bias": ("d",),
    "self_attn.k_proj.weight": ("kv_d", "d"),
    "self_attn.k_proj.bias": ("kv_d",),
    "self_attn.v_proj.weight": ("kv_d", "d"),
    "self_attn.v_proj.bias": ("kv_d",),
    "self_attn.o_proj.weight": ("d", "d"),
    "post_attention_layernorm.weight": ("d",),
    "mlp.gate_proj.weight": ("ff", "d"),
    "mlp.up_proj.weight": ("ff", "d"),
    "mlp.down_proj.weight": ("d", "ff"),
}


def load(which: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The meta data and arrays of ``mbq_search_{which}.npz``; skips if absent."""
    path = GOLDEN / f"mbq_search_{which}.npz"
    if not path.exists():
        pytest.skip(f"golden file {path.name} is absent from tests/golden")
    with np.load(path) as z:
        arrays = {name: z[name] for name in z.files}
    return json.loads(bytes(arrays["meta_json"])), arrays


def layer_names(meta: dict[str, Any]) -> list[str]:
    """``model.layers.0``, ``model.layers.1``, ..."""
    return [f"model.layers.{i}" for i in range(meta["layers"])]


def make_params(meta: dict[str, Any]) -> dict[str, Any]:
    """Parameters by the hash rule, a nested dictionary of float32 arrays."""
    sizes = {"d": meta["d"], "ff": meta["ff"], "vocab": meta["vocab"]}
    sizes["kv_d"] = meta["d"] // meta["heads"] * meta["kv"]

    def leaf(name: str, shape: tuple[int, ...]) -> jax.Array:
        x = golden_rule.gauss(name, meta["seed"], shape)
        if len(shape) == 1:
            x = 1 + 0.1 * x if "norm" in name else 0.1 * x
            if "layernorm" in name:
                x[::17] *= 6  # outlier channels, so that scaling has something to win
        elif name != "model.embed_tokens.weight":
            x = x / np.sqrt(shape[1])
        return jnp.asarray(x, jnp.float32)

    def layer(prefix: str) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for name, shape in _LAYER_SHAPES.items():
            *parents, last = name.split(".")
            node = tree
            for part in parents:
                node = node.setdefault(part, {})
            node[last] = leaf(f"{prefix}.{name}", tuple(sizes[s] for s in shape))
        return tree

    def weight(name: str, *shape: int) -> dict[str, jax.Array]:
        return {"weight": leaf(f"{name}.weight", shape)}

    d, vocab = meta["d"], meta["vocab"]
    return {
        "model": {
            "embed_tokens": weight("model.embed_tokens", vocab, d),
            "projector": weight("model.projector", d, meta["dv"])
            | {"bias": leaf("model.projector.bias", (d,))},
            "layers": [layer(name) for name in layer_names(meta)],
            "norm": weight("model.norm", d),
        },
        "lm_head": weight("lm_head", vocab, d),
    }


def make_batch(z: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """The calibration batch of a fixture; see the keys in the body.

    Token ids and vision features come from the hash rule; the stored ids are checked
    against it.

    Raises:
      ValueError: If the stored token ids do not follow the rule.
    """
    meta = json.loads(bytes(z["meta_json"]))
    batch, n, v0, nv = meta["B"], meta["N"], meta["v0"], meta["nv"]
    ids = golden_rule.ints("input_ids", meta["seed"], (batch, n), meta["vocab"] - 1) + 1
    ids[:, v0 : v0 + nv] = 0
    if not np.array_equal(ids, z["in/input_ids"]):
        raise ValueError("the fixture's in/input_ids do not follow the hash rule")
    feats = golden_rule.gauss("vision_feats", meta["seed"], (batch, nv, meta["dv"]))
    return {
        "input_ids": jnp.asarray(ids, jnp.int32),
        "attention_mask": jnp.asarray(z["in/attention_mask"], bool),
        "labels": jnp.asarray(z["in/labels"]),
        "vision_feats": jnp.asarray(feats, jnp.float32),
        "vision_mask": jnp.asarray(z["in/vision_mask"]),
        "caption_mask": jnp.asarray(z["in/caption_mask"]),
    }


def apply(
    params: dict[str, Any],
    batch: dict[str, jax.Array],
    taps: list[dict[str, jax.Array]] | None = None,
) -> jax.Array:
    """Logits ``[B, N, vocab]`` of the decoder.

    Args:
      params: From `make_params`.
      batch: From `make_batch` (labels and modality masks are not used).
      taps: From `make_taps`: zeros added to the outputs of the two output projections
        of every block, so that their gradients are dL/dY.
    """
    x = _embed(params, batch)
    for i, layer in enumerate(params["model"]["layers"]):
        x = run_block(
            layer, x, batch["attention_mask"], None if taps is None else taps[i]
        )
    return _head(params, x)


def apply_scanned(params: dict[str, Any], batch: dict[str, jax.Array]) -> jax.Array:
    """`apply` with ``lax.scan`` over the layers of `stack_layers`."""

    def step(x: jax.Array, layer: dict[str, Any]) -> tuple[jax.Array, None]:
        return run_block(layer, x, batch["attention_mask"]), None

    x, _ = jax.lax.scan(step, _embed(params, batch), params["model"]["layers"])
    return _head(params, x)


def stack_layers(params: dict[str, Any]) -> dict[str, Any]:
    """`params` with the list of layers replaced by one layer of stacked arrays."""
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *params["model"]["layers"])
    return {**params, "model": {**params["model"], "layers": stacked}}


def make_taps(params: dict[str, Any], batch: dict[str, jax.Array]) -> list[dict]:
    """Zero taps ``[B, N, d]`` for every output projection, by name, per layer."""
    shape = (*batch["input_ids"].shape, params["lm_head"]["weight"].shape[1])
    names = ("self_attn.o_proj", "mlp.down_proj")
    return [{n: jnp.zeros(shape) for n in names} for _ in params["model"]["layers"]]


def run_block(
    layer: dict[str, Any],
    x: jax.Array,
    attention_mask: jax.Array,
    taps: dict[str, jax.Array] | None = None,
) -> jax.Array:
    """One decoder block on ``[B, N, d]``; `attention_mask` is false at padding."""
    taps = {} if taps is None else taps
    h = _rms_norm(x, layer["input_layernorm"]["weight"])
    x = x + _attention(layer["self_attn"], h, attention_mask, taps)
    h = _rms_norm(x, layer["post_attention_layernorm"]["weight"])
    return x + _mlp(layer["mlp"], h, taps)


def loss(params: dict[str, Any], batch: dict[str, jax.Array]) -> jax.Array:
    """Mean next-token cross entropy over all answer tokens of the batch together."""
    total, count = _cross_entropy(apply(params, batch), batch["labels"])
    return total.sum() / count.sum()


def sample_loss(
    params: dict[str, Any],
    batch: dict[str, jax.Array],
    taps: list[dict[str, jax.Array]] | None = None,
) -> jax.Array:
    """Mean over samples of each sample's mean cross entropy over its answer tokens."""
    total, count = _cross_entropy(apply(params, batch, taps), batch["labels"])
    return (total / count).mean()


# dL/dY per output projection, layer and token; the same structure as the taps
output_gradients = jax.jit(jax.grad(sample_loss, argnums=2))


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum and number of next-token losses per sample, both ``[B]``."""
    target = labels[:, 1:]
    log_p = jax.nn.log_softmax(logits[:, :-1])
    at = jnp.where(target == IGNORED, 0, target)
    nll = -jnp.take_along_axis(log_p, at[..., None], axis=-1)[..., 0]
    answer = (target != IGNORED).astype(jnp.float32)
    return (nll * answer).sum(axis=1), answer.sum(axis=1)


def _embed(params: dict[str, Any], batch: dict[str, jax.Array]) -> jax.Array:
    ids = batch["input_ids"]
    x = params["model"]["embed_tokens"]["weight"][ids]
    seen = _linear(params["model"]["projector"], batch["vision_feats"])
    is_image = ids == 0
    order = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0)
    placed = jnp.take_along_axis(seen, order[..., None], axis=1)
    return jnp.where(is_image[..., None], placed, x)


def _head(params: dict[str, Any], x: jax.Array) -> jax.Array:
    return (
        _rms_norm(x, params["model"]["norm"]["weight"]) @ params["lm_head"]["weight"].T
    )


def _rms_norm(x: jax.Array, weight: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt((x * x).mean(axis=-1, keepdims=True) + EPS) * weight


def _linear(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    y = x @ p["weight"].T
    return y + p["bias"] if "bias" in p else y


def _rotary(x: jax.Array) -> jax.Array:
    """Rotates ``[B, N, heads, head_dim]`` by position, over the two halves."""
    n, half = x.shape[1], x.shape[-1] // 2
    frequency = ROPE_BASE ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.arange(n, dtype=jnp.float32)[:, None, None] * frequency
    a, b = x[..., :half], x[..., half:]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _attention(
    p: dict[str, Any], x: jax.Array, attention_mask: jax.Array, taps: dict
) -> jax.Array:
    batch, n, d = x.shape
    head_dim = d // HEADS
    q, k, v = (
        _linear(p[name], x).reshape(batch, n, -1, head_dim)
        for name in ("q_proj", "k_proj", "v_proj")
    )
    q, k = _rotary(q), _rotary(k)
    k, v = (jnp.repeat(a, HEADS // a.shape[2], axis=2) for a in (k, v))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.float32(np.sqrt(head_dim))
    causal = jnp.tril(jnp.ones((n, n), bool))
    allowed = causal & attention_mask[:, None, None, :]
    weights = jax.nn.softmax(scores + jnp.where(allowed, 0.0, MASKED), axis=-1)
    heads = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, n, d)
    y = _linear(p["o_proj"], heads)
    return y + taps["self_attn.o_proj"] if taps else y


def _mlp(p: dict[str, Any], x: jax.Array, taps: dict) -> jax.Array:
    hidden = jax.nn.silu(_linear(p["gate_proj"], x)) * _linear(p["up_proj"], x)
    y = _linear(p["down_proj"], hidden)
    return y + taps["mlp.down_proj"] if taps else y
