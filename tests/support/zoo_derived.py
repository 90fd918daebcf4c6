"""Small programs with derived weights, and with derivatives of their own."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from support.case import Case, normal

__all__ = ["CASES"]

D = 16


def lora() -> Case:
    """A frozen kernel plus a low-rank sum, added before the product."""
    params = {"w": normal(0, D, D), "a": normal(1, D, 2), "b": normal(2, 2, D)}

    def apply(params, x):
        return x @ (params["w"] + 0.5 * (params["a"] @ params["b"]))

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={},
        derived=(frozenset({"w", "a", "b"}),),
        marks=frozenset({"derived"}),
    )


def lora_apart() -> Case:
    """The same low-rank sum with its two factors applied to the activation."""
    params = {"w": normal(0, D, D), "a": normal(1, D, 2), "b": normal(2, 2, D)}

    def apply(params, x):
        return x @ params["w"] + 0.5 * (x @ params["a"] @ params["b"])

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"w": 1, "a": 1, "b": 1},
        marks=frozenset({"shared_input"}),
    )


def weight_norm() -> Case:
    """Direction and gain: ``g * v / |v|`` per output channel."""
    params = {
        "v": normal(0, D, D),
        "g": jnp.asarray(np.linspace(0.5, 1.5, D, dtype=np.float32)),
    }

    def apply(params, x):
        v = params["v"]
        return x @ (v * (params["g"] / jnp.linalg.norm(v, axis=0)))

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={},
        derived=(frozenset({"v", "g"}),),
        marks=frozenset({"derived"}),
    )


def masked() -> Case:
    """A kernel times a mask that is an integer leaf of params."""
    mask = (np.arange(D * D).reshape(D, D) % 3 > 0).astype(np.int8)
    params = {"w": normal(0, D, D), "mask": jnp.asarray(mask)}

    def apply(params, x):
        return x @ (params["w"] * params["mask"].astype(jnp.float32))

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={},
        derived=(frozenset({"w", "mask"}),),
        marks=frozenset({"derived", "integer_leaf"}),
    )


def scaled() -> Case:
    """A constant times the kernel (equalised learning rate)."""
    params = {"w": normal(0, D, D)}

    def apply(params, x):
        return x @ (params["w"] * 0.25)

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={},
        derived=(frozenset({"w"}),),
        marks=frozenset({"derived"}),
    )


@jax.custom_vjp
def _doubled(x, w):
    return jnp.tanh(x @ w)


def _doubled_forward(x, w):
    y = jnp.tanh(x @ w)
    return y, (x, w, y)


def _doubled_backward(saved, cotangent):
    x, w, y = saved
    g = 2.0 * cotangent * (1.0 - y * y)  # twice the true gradient, on purpose
    return g @ w.T, x.T @ g


_doubled.defvjp(_doubled_forward, _doubled_backward)


def custom_vjp_doubled() -> Case:
    """A product inside a ``custom_vjp`` whose gradient is twice the true one."""
    params = {"inside": normal(0, D, D), "after": normal(1, D, D)}

    def apply(params, x):
        return _doubled(x, params["inside"]) @ params["after"]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"inside": 1, "after": 1},
        marks=frozenset({"custom_vjp"}),
    )


@jax.custom_jvp
def _rounded(x, w):
    return jnp.round(8.0 * (x @ w)) / 8.0


@_rounded.defjvp
def _rounded_jvp(primals, tangents):
    (x, w), (dx, dw) = primals, tangents
    return _rounded(x, w), 3.0 * (dx @ w + x @ dw)  # three times, on purpose


def custom_jvp_tripled() -> Case:
    """A product inside a ``custom_jvp`` with a straight-through, tripled derivative."""
    params = {"inside": normal(0, D, D), "after": normal(1, D, D)}

    def apply(params, x):
        return jax.nn.relu(_rounded(x, params["inside"])) @ params["after"]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"inside": 1, "after": 1},
        marks=frozenset({"custom_jvp"}),
    )


def remat_block() -> Case:
    """Two blocks whose activations are recomputed in the backward pass."""
    params = [
        {"up": normal(2 * i, D, 32), "down": normal(2 * i + 1, 32, D)} for i in (0, 1)
    ]

    @jax.checkpoint
    def block(p, x):
        return x + jax.nn.gelu(x @ p["up"]) @ p["down"]

    def apply(params, x):
        for p in params:
            x = block(p, x)
        return x

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(9, 4, D),),
        linears={"0.up": 1, "0.down": 1, "1.up": 1, "1.down": 1},
        marks=frozenset({"remat"}),
    )


def remat_in_scan() -> Case:
    """Scanned layers, each recomputed in the backward pass."""
    params = {"up": normal(0, 3, D, 24), "down": normal(1, 3, 24, D)}

    @jax.checkpoint
    def layer(x, p):
        return x + jnp.tanh(x @ p["up"]) @ p["down"], None

    def apply(params, x):
        return jax.lax.scan(layer, x, params)[0]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(9, 4, D),),
        linears={"up": 1, "down": 1},
        marks=frozenset({"remat", "scan"}),
    )


def _square_kernel(x_ref, y_ref):
    y_ref[...] = x_ref[...] * x_ref[...]


@jax.custom_vjp
def _square(x):
    return pl.pallas_call(
        _square_kernel,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        grid=(x.shape[0] // 2,),
        in_specs=[pl.BlockSpec((2, x.shape[1]), lambda i: (i, 0))],
        out_specs=pl.BlockSpec((2, x.shape[1]), lambda i: (i, 0)),
        interpret=True,
    )(x)


_square.defvjp(lambda x: (_square(x), x), lambda x, g: (2.0 * x * g,))


def pallas_inside() -> Case:
    """A Pallas kernel (interpreted) with its own derivative between two products."""
    params = {"before": normal(0, D, D), "after": normal(1, D, D)}

    def apply(params, x):
        return _square(x @ params["before"]) @ params["after"]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"before": 1, "after": 1},
        marks=frozenset({"pallas", "custom_vjp"}),
    )


CASES = {
    f"plain_{fn.__name__}": fn
    for fn in (
        lora,
        lora_apart,
        weight_norm,
        masked,
        scaled,
        custom_vjp_doubled,
        custom_jvp_tripled,
        remat_block,
        remat_in_scan,
        pallas_inside,
    )
}
