"""Small flax nnx models."""

import jax
import jax.numpy as jnp
from flax import nnx

from jeff.program.functional import functional, functional_with_state
from support.case import Case, filled, normal, tokens

__all__ = ["CASES"]

D = 16
LAYERS = 3
_LINEARS = ("q", "k", "v", "o", "gate", "up", "down")


def _in_float32(norm, x):
    return norm(x.astype(jnp.float32)).astype(x.dtype)


class Mlp(nnx.Module):
    """Two dense layers with a nonlinearity between them."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(D, 32, rngs=rngs)
        self.second = nnx.Linear(32, 8, rngs=rngs)

    def __call__(self, x):
        return self.second(nnx.relu(self.first(x)))


class Block(nnx.Module):
    """A decoder block: grouped-query attention and a gated MLP, pre-normalised."""

    def __init__(self, rngs: nnx.Rngs, *, heads=4, groups=2, dtype=jnp.float32):
        def linear(n, m):
            return nnx.Linear(n, m, use_bias=False, dtype=dtype, rngs=rngs)

        self.heads, self.groups, self.size = heads, groups, D // heads
        self.norm_attention = nnx.RMSNorm(D, rngs=rngs)
        self.norm_mlp = nnx.RMSNorm(D, rngs=rngs)
        self.q, self.o = linear(D, D), linear(D, D)
        self.k = linear(D, groups * self.size)
        self.v = linear(D, groups * self.size)
        self.gate, self.up, self.down = linear(D, 24), linear(D, 24), linear(24, D)

    def __call__(self, x):
        x = x + self.attention(_in_float32(self.norm_attention, x))
        h = _in_float32(self.norm_mlp, x)
        return x + self.down(nnx.silu(self.gate(h)) * self.up(h))

    def attention(self, x):
        """Causal attention; each key-value head serves several query heads."""
        batch, length, _ = x.shape
        q = self.q(x).reshape(batch, length, self.groups, -1, self.size)
        k = self.k(x).reshape(batch, length, self.groups, self.size)
        v = self.v(x).reshape(batch, length, self.groups, self.size)
        scores = jnp.einsum("bqghd,bkgd->bghqk", q, k).astype(jnp.float32)
        causal = jnp.tril(jnp.ones((length, length), bool))
        scores = jnp.where(causal, scores / self.size**0.5, -1e30)
        weights = jax.nn.softmax(scores).astype(v.dtype)
        mixed = jnp.einsum("bghqk,bkgd->bqghd", weights, v)
        return self.o(mixed.reshape(batch, length, D))


class Unrolled(nnx.Module):
    """A language model whose blocks are a list."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(32, D, rngs=rngs)
        self.layers = nnx.List([Block(rngs) for _ in range(2)])
        self.norm = nnx.RMSNorm(D, rngs=rngs)
        self.head = nnx.Linear(D, 32, use_bias=False, rngs=rngs)

    def __call__(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class Scanned(nnx.Module):
    """The same with stacked blocks, bfloat16 activations and a tied head."""

    def __init__(self, rngs: nnx.Rngs):
        @nnx.split_rngs(splits=LAYERS)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def stack(rngs):
            return Block(rngs, dtype=jnp.bfloat16)

        self.embed = nnx.Embed(32, D, dtype=jnp.bfloat16, rngs=rngs)
        self.layers = stack(rngs)
        self.norm = nnx.RMSNorm(D, rngs=rngs)

    def __call__(self, ids):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def run(x, layer):
            return layer(x)

        x = run(self.embed(ids), self.layers)
        return self.embed.attend(_in_float32(self.norm, x))


class Convolutional(nnx.Module):
    """Convolution, BatchNorm and dropout in training mode, then a dense layer."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.25, rngs=rngs)
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        return self.head(self.dropout(jnp.mean(x, axis=(1, 2))))


class Recurrent(nnx.Module):
    """An LSTM over time and a dense layer on its last output."""

    def __init__(self, rngs: nnx.Rngs):
        self.rnn = nnx.RNN(nnx.OptimizedLSTMCell(8, D, rngs=rngs))
        self.head = nnx.Linear(D, 4, rngs=rngs)

    def __call__(self, x):
        return self.head(self.rnn(x)[:, -1])


class Adapted(nnx.Module):
    """A linear layer with a low-rank adapter beside it."""

    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.LoRALinear(D, D, lora_rank=2, rngs=rngs)

    def __call__(self, x):
        return self.linear(x)


class General(nnx.Module):
    """flax's own multi-head attention: kernels ``[D, H, hd]`` and ``[H, hd, D]``."""

    def __init__(self, rngs: nnx.Rngs):
        self.attention = nnx.MultiHeadAttention(
            num_heads=2, in_features=D, decode=False, rngs=rngs
        )

    def __call__(self, x):
        return self.attention(x)


def _program(model, *, evaluate=False):
    abstract = nnx.eval_shape(lambda: model(nnx.Rngs(0)))
    if evaluate:
        abstract.eval()
    apply, params = functional(abstract)
    return apply, filled(0, params)


def mlp() -> Case:
    """Two dense layers."""
    apply, params = _program(Mlp)
    return Case(
        apply=apply,
        params=params,
        inputs=(normal(1, 6, D),),
        linears={"first.kernel": 1, "second.kernel": 1},
    )


def transformer() -> Case:
    """Two unrolled blocks with grouped-query attention, float32."""
    apply, params = _program(Unrolled)
    linears = {f"layers.{i}.{n}.kernel": 1 for i in range(2) for n in _LINEARS}
    return Case(
        apply=apply,
        params=params,
        inputs=(tokens(1, 2, 6, vocabulary=32),),
        linears={**linears, "head.kernel": 1},
        lookups={"embed.embedding": 1},
        marks=frozenset({"transformer", "lookup", "shared_input"}),
    )


def transformer_scanned() -> Case:
    """Three scanned blocks, float32 parameters, bfloat16 products, tied embedding."""
    apply, params = _program(Scanned)
    return Case(
        apply=apply,
        params=params,
        inputs=(tokens(1, 2, 6, vocabulary=32),),
        linears={**{f"layers.{n}.kernel": 1 for n in _LINEARS}, "embed.embedding": 1},
        lookups={"embed.embedding": 1},
        marks=frozenset(
            {"transformer", "scan", "bfloat16", "tied", "lookup", "shared_input"}
        ),
    )


def convolutional_train() -> Case:
    """BatchNorm and dropout in training mode: state and keys go in and come out."""
    abstract = nnx.eval_shape(lambda: Convolutional(nnx.Rngs(0)))
    apply, params, state = functional_with_state(abstract)
    return Case(
        apply=apply,
        params=filled(0, params),
        inputs=(filled(0, state), normal(1, 4, 6, 6, 3)),
        linears={"conv.kernel": 1, "head.kernel": 1},
        marks=frozenset({"conv", "state", "dropout"}),
    )


def convolutional_eval() -> Case:
    """The same in evaluation mode, its state among the leaves of params."""
    apply, params = _program(Convolutional, evaluate=True)
    return Case(
        apply=apply,
        params=params,
        inputs=(normal(1, 4, 6, 6, 3),),
        linears={"conv.kernel": 1, "head.kernel": 1},
        marks=frozenset({"conv", "integer_leaf", "unused"}),
    )


def lstm() -> Case:
    """An LSTM: one product with the input, one with the state, in a scan."""
    apply, params = _program(Recurrent)
    return Case(
        apply=apply,
        params=params,
        inputs=(normal(1, 2, 5, 8),),
        linears={
            "rnn.cell.dense_i.kernel": 1,
            "rnn.cell.dense_h.kernel": 1,
            "head.kernel": 1,
        },
        marks=frozenset({"scan", "scan_const"}),
    )


def lora() -> Case:
    """flax's LoRALinear: the factors act on the activation."""
    apply, params = _program(Adapted)
    return Case(
        apply=apply,
        params=params,
        inputs=(normal(1, 4, D),),
        linears={
            "linear.kernel": 1,
            "linear.lora.lora_a": 1,
            "linear.lora.lora_b": 1,
        },
        marks=frozenset({"shared_input"}),
    )


def attention_general() -> Case:
    """flax's multi-head attention, with kernels of three axes."""
    apply, params = _program(General)
    names = ("query", "key", "value", "out")
    return Case(
        apply=apply,
        params=params,
        inputs=(normal(1, 2, 5, D),),
        linears={f"attention.{n}.kernel": 1 for n in names},
        marks=frozenset({"shared_input", "reshaped"}),
    )


CASES = {
    f"nnx_{fn.__name__}": fn
    for fn in (
        mlp,
        transformer,
        transformer_scanned,
        convolutional_train,
        convolutional_eval,
        lstm,
        lora,
        attention_general,
    )
}
