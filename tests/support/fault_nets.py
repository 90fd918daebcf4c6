"""Small classifiers for fault campaigns, with their examples."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff.sweep import Examples, examples

__all__ = ["BATCH", "Net", "linear", "mlp", "residual", "scanned"]

BATCH = 8


class Net(NamedTuple):
    """A program, its params and ten examples."""

    apply: Any
    params: Any
    data: Examples


def _weights(seed: int, **shapes: tuple[int, ...]) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(
            (rng.standard_normal(s) / np.prod(s[:-1]) ** 0.5).astype(np.float32)
        )
        for name, s in shapes.items()
    }


def _made(apply, params, *shape) -> Net:
    x = np.random.default_rng(9).standard_normal((10, *shape)).astype(np.float32)
    labels = np.arange(10) % 5
    return Net(apply, params, examples(apply, params, x, labels, batch=BATCH))


@functools.cache
def residual() -> Net:
    """Two residual stages of convolutions, 6x6 images of two channels, five classes."""

    def conv(x, w, stride=1):
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def apply(p, x):
        x = jax.nn.relu(conv(x, p["stem"]) + p["shift"])
        x = jax.nn.relu(x + conv(jax.nn.relu(conv(x, p["first"])), p["second"]))
        x = jax.nn.relu(conv(x, p["down"], 2) + conv(x, p["short"], 2))
        return x.mean((1, 2)) @ p["head"]

    params = _weights(
        0, stem=(3, 3, 2, 4), first=(3, 3, 4, 4), second=(3, 3, 4, 4),
        down=(3, 3, 4, 6), short=(1, 1, 4, 6), head=(6, 5), shift=(4,),
    )  # fmt: skip
    return _made(apply, params, 6, 6, 2)


@functools.cache
def mlp() -> Net:
    """Two layers, twelve inputs, five classes."""

    def apply(p, x):
        return jax.nn.relu(x @ p["up"]) @ p["down"]

    return _made(apply, _weights(1, up=(12, 16), down=(16, 5)), 12)


@functools.cache
def linear() -> Net:
    """One layer, twelve inputs, five classes."""
    return _made(lambda p, x: x @ p["w"], _weights(2, w=(12, 5)), 12)


@functools.cache
def scanned() -> Net:
    """One layer and three in a scan; five inputs, four classes, six examples."""

    def apply(p, x):
        h = x @ p["into"]
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), h, p["layers"])[0]

    params = {"into": jnp.ones((5, 4)) / 9, "layers": jnp.ones((3, 4, 4)) / 7}
    x = np.ones((6, 5), np.float32)
    return Net(apply, params, examples(apply, params, x, batch=6))
