"""Small programs written with nothing but JAX: products, loops and branches."""

import jax
import jax.numpy as jnp
from jax import lax

from support.case import Case, normal

__all__ = ["CASES"]

D = 16


def mlp() -> Case:
    """Two dense layers in nested lists and dictionaries."""
    params = {
        "layers": [
            {"kernel": normal(0, D, 32), "bias": normal(1, 32)},
            {"kernel": normal(2, 32, 8), "bias": normal(3, 8)},
        ]
    }

    def apply(params, x):
        first, second = params["layers"]
        x = jax.nn.relu(x @ first["kernel"] + first["bias"])
        return x @ second["kernel"] + second["bias"]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(4, 6, D),),
        linears={"layers.0.kernel": 1, "layers.1.kernel": 1},
    )


def pytree_io() -> Case:
    """A dictionary in, a dictionary out, and an integer output beside it."""
    params = {"w": normal(0, D, D)}

    def apply(params, batch, *, scale=1.0):
        y = batch["x"] @ params["w"] * scale
        return {"y": y, "top": jnp.argmax(y, -1), "count": batch["count"] + 1}

    return Case(
        apply=apply,
        params=params,
        inputs=({"x": normal(1, 3, D), "count": jnp.int32(3)},),
        linears={"w": 1},
        marks=frozenset({"pytree"}),
    )


def weight_left() -> Case:
    """Einsums with the weight as the first operand, in two orders of its axes."""
    params = {"kn": normal(0, D, 24), "nk": normal(1, 8, 24)}

    def apply(params, x):
        h = jnp.einsum("kn,btk->btn", params["kn"], x)
        return jnp.einsum("nk,btk->btn", params["nk"], h)

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(2, 2, 5, D),),
        linears={"kn": 1, "nk": 1},
        marks=frozenset({"weight_left"}),
    )


def attention_general() -> Case:
    """Attention with kernels ``[D, H, hd]`` and ``[H, hd, D]``, as DenseGeneral's."""
    heads, size = 2, 8
    params = {
        "q": normal(0, D, heads, size),
        "k": normal(1, D, heads, size),
        "v": normal(2, D, heads, size),
        "out": normal(3, heads, size, D),
    }

    def apply(params, x):
        q, k, v = (jnp.einsum("btd,dhe->bthe", x, params[n]) for n in "qkv")
        scores = jnp.einsum("bqhe,bkhe->bhqk", q, k) / size**0.5
        mixed = jnp.einsum("bhqk,bkhe->bqhe", jax.nn.softmax(scores), v)
        return jnp.einsum("bqhe,hed->bqd", mixed, params["out"])

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(4, 2, 5, D),),
        linears={"q": 1, "k": 1, "v": 1, "out": 1},
        marks=frozenset({"shared_input", "reshaped"}),
    )


def qkv_split_after() -> Case:
    """One fused product, split into queries, keys and values afterwards."""
    params = {"qkv": normal(0, D, 3 * D), "out": normal(1, D, D)}

    def apply(params, x):
        q, k, v = jnp.split(x @ params["qkv"], 3, axis=-1)
        mixed = jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2) / D**0.5) @ v
        return mixed @ params["out"]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(2, 2, 5, D),),
        linears={"qkv": 1, "out": 1},
    )


def qkv_split_before() -> Case:
    """A fused kernel split into three weights before three products."""
    params = {"qkv": normal(0, D, 3 * D), "out": normal(1, D, D)}

    def apply(params, x):
        wq, wk, wv = jnp.split(params["qkv"], 3, axis=-1)
        q, k, v = x @ wq, x @ wk, x @ wv
        mixed = jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2) / D**0.5) @ v
        return mixed @ params["out"]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(2, 2, 5, D),),
        linears={"qkv": 3, "out": 1},
        marks=frozenset({"sliced", "shared_input"}),
    )


def kernels_concatenated() -> Case:
    """Three kernels concatenated into one before a single product."""
    params = {n: normal(i, D, 8) for i, n in enumerate("qkv")}

    def apply(params, x):
        return x @ jnp.concatenate([params["q"], params["k"], params["v"]], axis=1)

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(5, 4, D),),
        linears={"q": 1, "k": 1, "v": 1},
        marks=frozenset({"concatenated"}),
    )


def mixed_precision() -> Case:
    """Float32 weights, bfloat16 products; each product casts the same input again."""
    params = {n: normal(i, D, D) for i, n in enumerate(("q", "k", "v"))}

    def dense(w, x):
        return x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)

    def apply(params, x):
        q, k = dense(params["q"], x), dense(params["k"], x)
        v = jax.jit(dense)(params["v"], x)
        return (q * jax.nn.sigmoid(k) + v).astype(jnp.float32)

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(4, 4, D),),
        linears={"q": 1, "k": 1, "v": 1},
        marks=frozenset({"bfloat16", "shared_input"}),
    )


def precision() -> Case:
    """A product with a stated precision and a wider accumulator."""
    params = {"w": normal(0, D, D, dtype=jnp.bfloat16)}

    def apply(params, x):
        return lax.dot_general(
            x,
            params["w"],
            (((1,), (0,)), ((), ())),
            precision=lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(1, 4, D, dtype=jnp.bfloat16),),
        linears={"w": 1},
        marks=frozenset({"bfloat16", "precision"}),
    )


def nested_vmap() -> Case:
    """A product of vectors, mapped over tokens, then over the batch."""
    params = {"w": normal(0, D, 8), "stack": normal(1, 3, 8, 8)}

    def apply(params, x):
        h = jax.vmap(jax.vmap(lambda v: params["w"].T @ v))(x)  # [batch, tokens, 8]
        return jax.vmap(lambda w: h @ w)(params["stack"])

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(2, 2, 5, D),),
        linears={"w": 1, "stack": 1},
        marks=frozenset({"vmap"}),
    )


def closure_and_unused() -> Case:
    """A weight in a closure, which is no parameter, and a leaf nobody reads."""
    captured = normal(0, D, D)
    params = {"w": normal(1, D, D), "unused": normal(2, 4, 4)}

    def apply(params, x):
        return jnp.tanh(x @ captured) @ params["w"]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"w": 1},
        marks=frozenset({"closure", "unused"}),
    )


def barriers() -> Case:
    """A weight behind a barrier, a stopped gradient and a reduced-precision round."""
    params = {"frozen": normal(0, D, D), "fenced": normal(1, D, D)}

    def apply(params, x):
        x = jnp.tanh(x @ lax.stop_gradient(params["frozen"]))
        return x @ lax.optimization_barrier(params["fenced"])

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(2, 4, D),),
        linears={"frozen": 1, "fenced": 1},
        marks=frozenset({"barrier"}),
    )


CASES = {
    f"plain_{fn.__name__}": fn
    for fn in (
        mlp,
        pytree_io,
        weight_left,
        attention_general,
        qkv_split_after,
        qkv_split_before,
        kernels_concatenated,
        mixed_precision,
        precision,
        nested_vmap,
        closure_and_unused,
        barriers,
    )
}
