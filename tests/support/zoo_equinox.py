"""Small equinox models: layers act on one vector and are mapped over the others."""

import equinox as eqx
import jax

from jeff.program.functional import functional
from support.case import Case, filled, normal

__all__ = ["CASES"]

D = 16


class Attention(eqx.Module):
    """equinox's multi-head attention and an MLP, mapped over tokens by hand."""

    attention: eqx.nn.MultiheadAttention
    norm: eqx.nn.LayerNorm
    mlp: eqx.nn.MLP

    def __init__(self, key):
        key_attention, key_mlp = jax.random.split(key)
        self.attention = eqx.nn.MultiheadAttention(2, D, key=key_attention)
        self.norm = eqx.nn.LayerNorm(D)
        self.mlp = eqx.nn.MLP(D, D, 24, 1, key=key_mlp)

    def __call__(self, x):
        h = jax.vmap(self.norm)(x)
        x = x + self.attention(h, h, h)
        return x + jax.vmap(self.mlp)(x)


class Normalised(eqx.Module):
    """A convolution with BatchNorm, whose state the caller threads through."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm

    def __init__(self, key):
        self.conv = eqx.nn.Conv2d(3, 8, 3, key=key)
        self.norm = eqx.nn.BatchNorm(8, axis_name="batch", mode="batch")

    def __call__(self, x, state):
        return self.norm(self.conv(x), state)


def _program(model, *sizes):
    abstract = eqx.filter_eval_shape(model, *sizes, key=jax.random.key(0))
    apply, params = functional(abstract)
    return apply, filled(0, params)


def mlp() -> Case:
    """equinox's MLP mapped over the batch."""
    single, params = _program(eqx.nn.MLP, D, 8, 24, 1)

    def apply(params, x):
        return jax.vmap(single, in_axes=(None, 0))(params, x)

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(1, 6, D),),
        linears={"layers.0.weight": 1, "layers.1.weight": 1},
        marks=frozenset({"vmap"}),
    )


def attention() -> Case:
    """Attention over tokens, mapped over the batch by another vmap."""
    single, params = _program(Attention)

    def apply(params, x):
        return jax.vmap(lambda v: single(params, v))(x)

    names = ("query_proj", "key_proj", "value_proj", "output_proj")
    linears = {f"attention.{n}.weight": 1 for n in names}
    return Case(
        apply=apply,
        params=params,
        inputs=(normal(1, 2, 5, D),),
        linears={**linears, "mlp.layers.0.weight": 1, "mlp.layers.1.weight": 1},
        marks=frozenset({"vmap", "shared_input"}),
    )


def normalised_train() -> Case:
    """BatchNorm over a named axis bound inside, its state in and out."""
    build = eqx.nn.make_with_state(Normalised)
    model, state = eqx.filter_eval_shape(build, key=jax.random.key(0))
    single, params = functional(model)

    def apply(params, state, x):
        mapped = jax.vmap(
            single, in_axes=(None, 0, None), out_axes=(0, None), axis_name="batch"
        )
        return mapped(params, x, state)

    return Case(
        apply=apply,
        params=filled(0, params),
        inputs=(filled(0, state), normal(1, 3, 3, 6, 6)),
        linears={"conv.weight": 1},
        marks=frozenset({"vmap", "conv", "state"}),
    )


CASES = {f"equinox_{fn.__name__}": fn for fn in (mlp, attention, normalised_train)}
