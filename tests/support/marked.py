"""Small programs with marks in them, and a rule that acts there."""

import jax
import jax.numpy as jnp
import numpy as np

import jeff

__all__ = [
    "STACK",
    "X",
    "block",
    "marked",
    "noisy",
    "normal",
    "plain",
    "scanned",
    "written_out",
]

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape, np.float32))


STACK = {"up": normal(3, 4, 6), "down": normal(3, 6, 4)}
X = normal(5, 4)


def block(h, p, name="hidden"):
    hidden = jeff.mark(name, jnp.tanh(h @ p["up"]), macs=4)
    return h + hidden @ p["down"]


def scanned(p, x, reverse=False):
    return jax.lax.scan(lambda h, q: (block(h, q), None), x, p, reverse=reverse)[0]


def written_out(p, x, order=(0, 1, 2), name=lambda i: "hidden"):
    for i in order:
        x = block(x, jax.tree.map(lambda a, i=i: a[i], p), name(i))
    return x


def noisy(site, op, x, w):
    """A rule that draws at marks, and shows that it is only called there."""
    y = op(x, w)
    if site.kind != "mark":
        return y
    assert w is None
    return y + jax.random.normal(site.key(jax.random.key(3)), y.shape)


noisy.marks = True


def plain(x):
    return jnp.sin(x).sum()


def marked(x):
    return jeff.mark("sine", jnp.sin(x)).sum()
