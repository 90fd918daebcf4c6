"""Tiny block models on which a whole method call takes a second, not ten."""

import functools

import jax
import jax.numpy as jnp

from jeff import mbq
from support.case import normal

__all__ = [
    "LAYERS",
    "D",
    "batches",
    "block",
    "gated",
    "loss",
    "make_params",
    "scanned",
    "stack",
]

D, HIDDEN, LAYERS = 32, 64, 3


def _norm(scale, x):
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale


def block(p, x, activation=jax.nn.silu):
    """One block: a norm, a gated MLP, a residual."""
    h = _norm(p["norm"], x)
    return x + (activation(h @ p["gate"]) * (h @ p["up"])) @ p["down"]


def make_params(seed=0):
    """Parameters of `gated`, with outlier channels in the norms."""

    def layer(i):
        at = 100 * seed + 10 * i
        return {
            "norm": jnp.ones(D).at[i::11].set(6.0),
            "gate": normal(at + 1, D, HIDDEN),
            "up": normal(at + 2, D, HIDDEN),
            "down": normal(at + 3, HIDDEN, D),
        }

    return {"layers": [layer(i) for i in range(LAYERS)], "head": normal(9, D, 8)}


@functools.cache
def gated(activation=jax.nn.silu):
    """``apply(params, x)``: gated MLP blocks in sequence, then a head."""

    def apply(params, x):
        for p in params["layers"]:
            x = block(p, x, activation)
        return x @ params["head"]

    return apply


def scanned(params, x):
    """The same with ``lax.scan`` over the layers of `stack`."""
    x, _ = jax.lax.scan(lambda x, p: (block(p, x), None), x, params["layers"])
    return x @ params["head"]


def stack(params):
    """The params of `scanned`."""
    layers = jax.tree.map(lambda *xs: jnp.stack(xs), *params["layers"])
    return {**params, "layers": layers}


def batches(count=1, samples=2, tokens=12):
    """Calibration data; the first two thirds of the tokens are vision."""
    made = []
    for i in range(count):
        vision = jnp.broadcast_to(jnp.arange(tokens) < 8, (samples, tokens))
        answer = jnp.broadcast_to(jnp.arange(tokens) >= 9, (samples, tokens))
        made.append(
            mbq.Batch(
                inputs=(normal(50 + i, samples, tokens, D) * 5,),
                masks={"vision": vision, "language": answer},
                targets=normal(70 + i, samples, tokens, 8),
            )
        )
    return made


def loss(y, target):
    """A loss to which answer tokens matter more; the sum over samples."""
    weight = jnp.where(jnp.arange(y.shape[1]) >= 8, 1.0, 0.2)[:, None]
    return (weight * (y - target) ** 2).mean((1, 2)).sum()
