"""Small programs that look weights up: experts and embeddings."""

import jax
import jax.numpy as jnp
from jax import lax

from support.case import Case, normal, tokens

__all__ = ["CASES"]

D = 16


def moe_ragged() -> Case:
    """Mixture of experts: tokens sorted by expert, then two ragged products."""
    experts = 4
    params = {
        "router": normal(0, D, experts),
        "up": normal(1, experts, D, 24),
        "down": normal(2, experts, 24, D),
    }

    def apply(params, x):
        logits = x @ params["router"]
        expert = jnp.argmax(logits, -1)
        order = jnp.argsort(expert)
        sizes = jnp.sum(jax.nn.one_hot(expert, experts, dtype=jnp.int32), axis=0)
        h = jax.nn.silu(lax.ragged_dot(x[order], params["up"], sizes))
        y = lax.ragged_dot(h, params["down"], sizes)[jnp.argsort(order)]
        return y * jnp.max(jax.nn.softmax(logits), -1, keepdims=True)

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 8, D),),
        linears={"router": 1, "up": 1, "down": 1},
        marks=frozenset({"experts", "ragged"}),
    )


def moe_gather() -> Case:
    """Mixture of experts: each token gathers the weights of its expert."""
    experts = 4
    params = {"router": normal(0, D, experts), "w": normal(1, experts, D, D)}

    def apply(params, x):
        logits = x @ params["router"]
        w = params["w"][jnp.argmax(logits, -1)]
        y = jnp.einsum("bk,bkn->bn", x, w)
        return y * jnp.max(jax.nn.softmax(logits), -1, keepdims=True)

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 8, D),),
        linears={"router": 1, "w": 1},
        marks=frozenset({"experts", "gathered"}),
    )


def moe_vmapped() -> Case:
    """Mixture of experts written for one token and mapped over tokens."""
    experts = 4
    params = {"router": normal(0, D, experts), "w": normal(1, experts, D, D)}

    def apply(params, x):
        def token(x):
            logits = x @ params["router"]
            return x @ params["w"][jnp.argmax(logits)] * jnp.max(jax.nn.softmax(logits))

        return jax.vmap(token)(x)

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 8, D),),
        linears={"router": 1, "w": 1},
        marks=frozenset({"experts", "gathered"}),
    )


def moe_batched() -> Case:
    """Every expert on every slot: a product with a batch axis in the weight."""
    params = {"w": normal(0, 4, D, 24)}

    def apply(params, x):
        return jnp.einsum("ebk,ekn->ebn", x, params["w"])

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(1, 4, 3, D),),
        linears={"w": 1},
        marks=frozenset({"experts", "batched"}),
    )


def tied_embedding() -> Case:
    """One leaf looked up at the bottom and multiplied at the top."""
    params = {"embedding": normal(0, 32, D), "mid": normal(1, D, D)}

    def apply(params, ids):
        x = jnp.take(params["embedding"], ids, axis=0)
        x = jnp.tanh(x @ params["mid"])
        return x @ params["embedding"].T

    return Case(
        apply=apply,
        params=params,
        inputs=(tokens(2, 2, 5, vocabulary=32),),
        linears={"embedding": 1, "mid": 1},
        lookups={"embedding": 1},
        marks=frozenset({"tied", "lookup"}),
    )


CASES = {
    f"plain_{fn.__name__}": fn
    for fn in (moe_ragged, moe_gather, moe_vmapped, moe_batched, tied_embedding)
}
