"""The toy decoder of `mbq_toy` once more, in NumPy and with a hook on every linear."""

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "LINEARS",
    "Linear",
    "Toy",
    "Weights",
    "attention",
    "block",
    "capture",
    "linear",
    "mlp",
]

HEADS, ROPE_BASE, EPS, MASKED, IGNORED = 4, 10000.0, 1e-6, -1e9, -100
LINEARS = tuple(f"self_attn.{n}_proj" for n in "qkvo") + tuple(
    f"mlp.{n}_proj" for n in ("gate", "up", "down")
)
Weights = dict[str, np.ndarray]  # of one block, by torch name
Linear = Callable[[Weights, str, np.ndarray], np.ndarray]


def linear(p: Weights, name: str, x: np.ndarray) -> np.ndarray:
    """The layer called `name` on ``[..., in]``."""
    y = x @ p[f"{name}.weight"].T
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def rms_norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Root-mean-square normalisation over the last axis."""
    mean = (x * x).mean(axis=-1, keepdims=True, dtype=x.dtype)
    return x / np.sqrt(mean + x.dtype.type(EPS)) * weight


def attention(
    p: Weights, x: np.ndarray, mask: np.ndarray, run: Linear = linear
) -> np.ndarray:
    """The attention module on normalised input ``[B, N, d]``."""
    batch, n, d = x.shape
    size = d // HEADS
    q, k, v = (
        run(p, f"self_attn.{name}_proj", x).reshape(batch, n, -1, size)
        for name in "qkv"
    )
    frequency = ROPE_BASE ** -(np.arange(size // 2) / (size // 2))
    angle = (np.arange(n)[:, None, None] * frequency).astype(x.dtype)

    def rotated(a: np.ndarray) -> np.ndarray:
        left, right = np.split(a, 2, axis=-1)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], -1)

    q, k = rotated(q), rotated(k)
    k, v = (np.repeat(a, HEADS // a.shape[2], axis=2) for a in (k, v))
    scores = np.einsum("bqhd,bkhd->bhqk", q, k, optimize=True)
    scores = scores / x.dtype.type(np.sqrt(size))
    allowed = np.tril(np.ones((n, n), bool)) & mask[:, None, None, :]
    scores = np.where(allowed, scores, x.dtype.type(MASKED))
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = e / e.sum(axis=-1, keepdims=True)
    y = np.einsum("bhqk,bkhd->bqhd", weights, v, optimize=True)
    return run(p, "self_attn.o_proj", y.reshape(batch, n, d))


def mlp(p: Weights, x: np.ndarray, run: Linear = linear) -> np.ndarray:
    """The gated MLP on normalised input ``[B, N, d]``."""
    gate = run(p, "mlp.gate_proj", x)
    gate = gate / (1 + np.exp(-gate))
    return run(p, "mlp.down_proj", gate * run(p, "mlp.up_proj", x))


def block(
    p: Weights, x: np.ndarray, mask: np.ndarray, run: Linear = linear
) -> np.ndarray:
    """One decoder block on ``[B, N, d]``."""
    x = x + attention(p, rms_norm(x, p["input_layernorm.weight"]), mask, run)
    return x + mlp(p, rms_norm(x, p["post_attention_layernorm.weight"]), run)


def capture(
    p: Weights, x: np.ndarray, mask: np.ndarray, run: Linear = linear
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The block's output and the input of every linear in it."""
    seen: dict[str, np.ndarray] = {}

    def recording(p: Weights, name: str, x: np.ndarray) -> np.ndarray:
        seen[name] = x
        return run(p, name, x)

    return block(p, x, mask, recording), seen


class Toy:
    """The toy decoder as NumPy arrays: blocks by torch name, first input, head."""

    def __init__(self, params: Any, batch: Any, dtype: Any = np.float32):
        """Takes the trees of `mbq_toy.make_params` and `mbq_toy.make_batch`."""
        model = params["model"]
        self.blocks = [_flat(layer, dtype) for layer in model["layers"]]
        self.norm = np.asarray(model["norm"]["weight"], dtype)
        self.head = np.asarray(params["lm_head"]["weight"], dtype)
        self.mask = np.asarray(batch["attention_mask"])
        self.labels = np.asarray(batch["labels"])
        self.vision = np.asarray(batch["vision_mask"])
        self.answer = np.asarray(batch["caption_mask"])
        projector = _flat(model["projector"], dtype)
        ids, feats = np.asarray(batch["input_ids"]), batch["vision_feats"]
        self.x0 = np.asarray(model["embed_tokens"]["weight"], dtype)[ids]
        seen = np.asarray(feats, dtype) @ projector["weight"].T + projector["bias"]
        self.x0[ids == 0] = seen.reshape(-1, seen.shape[-1])

    def logits(self, blocks: list[Weights], run: Linear = linear) -> np.ndarray:
        """Logits ``[B, N, vocab]`` with other weights in the blocks."""
        x = self.x0
        for p in blocks:
            x = block(p, x, self.mask, run)
        return rms_norm(x, self.norm) @ self.head.T

    def loss(self, logits: np.ndarray) -> float:
        """Mean next-token cross entropy over all answer tokens of the batch."""
        z = logits[:, :-1].astype(np.float64)
        z = z - z.max(axis=-1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
        b, t = np.nonzero(self.labels[:, 1:] != IGNORED)
        return float(-log_p[b, t, self.labels[b, t + 1]].mean())


def _flat(tree: Any, dtype: Any, prefix: str = "") -> Weights:
    leaves: Weights = {}
    for name, leaf in tree.items():
        if isinstance(leaf, dict):
            leaves |= _flat(leaf, dtype, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = np.asarray(leaf, dtype)
    return leaves
