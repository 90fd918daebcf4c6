"""Small flax linen models."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jeff.program.functional import functional, functional_with_state
from support.case import Case, filled, normal, tokens

__all__ = ["CASES"]

D = 16
LAYERS = 3


class Block(nn.Module):
    """Pre-normalised attention and MLP; every Dense casts its input again."""

    dtype: Any = jnp.bfloat16

    @nn.compact
    def __call__(self, x):
        def dense(name, features):
            return nn.Dense(features, use_bias=False, dtype=self.dtype, name=name)

        h = nn.LayerNorm(name="norm_attention")(x)
        q, k, v = (dense(n, D)(h) for n in "qkv")
        scores = jnp.einsum("bqd,bkd->bqk", q, k).astype(jnp.float32) / D**0.5
        mixed = jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(scores).astype(v.dtype), v)
        x = x + dense("o", D)(mixed).astype(x.dtype)
        h = nn.LayerNorm(name="norm_mlp")(x)
        return x + dense("down", D)(nn.gelu(dense("up", 24)(h))).astype(x.dtype)


class Unrolled(nn.Module):
    """An embedding, two blocks and a head."""

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(32, D, name="embed")(ids)
        for i in range(2):
            x = Block(name=f"layers_{i}")(x)
        return nn.Dense(32, name="head")(nn.LayerNorm(name="norm")(x))


class ScanStep(nn.Module):
    """A block as ``nn.scan`` wants it."""

    @nn.compact
    def __call__(self, x, _):
        return Block(dtype=jnp.float32, name="block")(x), None


class Scanned(nn.Module):
    """Blocks scanned over parameters stacked along `axis`, then a head."""

    axis: int

    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            ScanStep,
            variable_axes={"params": self.axis},
            split_rngs={"params": True},
            length=LAYERS,
        )
        x, _ = layers(name="layers")(x, None)
        return nn.Dense(8, name="head")(x)


class ResNet(nn.Module):
    """A strided residual block with BatchNorm, then dropout and a head."""

    train: bool = True

    @nn.compact
    def __call__(self, x):
        def norm():
            return nn.BatchNorm(use_running_average=not self.train, momentum=0.9)

        h = nn.relu(norm()(nn.Conv(8, (3, 3), use_bias=False)(x)))
        y = nn.relu(norm()(nn.Conv(12, (3, 3), (2, 2), use_bias=False)(h)))
        y = nn.Conv(12, (3, 3), use_bias=False)(y)
        x = y + nn.Conv(12, (1, 1), (2, 2), use_bias=False)(h)
        x = jnp.mean(nn.relu(norm()(x)), axis=(1, 2))
        x = nn.Dropout(0.25, deterministic=not self.train)(x)
        return nn.Dense(4)(x)


class Recurrent(nn.Module):
    """An LSTM that concatenates its gates' kernels, and a head on its last output."""

    cell: Any

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4, name="head")(nn.RNN(self.cell(D, name="cell"))(x)[:, -1])


class Partitioned(nn.Module):
    """A dense layer whose kernel carries partition names."""

    @nn.compact
    def __call__(self, x):
        init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
        return nn.Dense(8, kernel_init=init, name="dense")(x)


class Attention(nn.Module):
    """flax's own multi-head attention, built of DenseGeneral."""

    @nn.compact
    def __call__(self, x):
        return nn.MultiHeadDotProductAttention(num_heads=2, name="attention")(x)


def _variables(model, x):
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return filled(0, jax.eval_shape(model.init, keys, x))


def _program(model, x):
    return functional(model, variables=_variables(model, x))


def transformer() -> Case:
    """Two unrolled blocks: float32 parameters, bfloat16 products."""
    ids = tokens(1, 2, 6, vocabulary=32)
    apply, params = _program(Unrolled(), ids)
    names = ("q", "k", "v", "o", "up", "down")
    linears = {f"layers_{i}.{n}.kernel": 1 for i in range(2) for n in names}
    return Case(
        apply=apply,
        params=params,
        inputs=(ids,),
        linears={**linears, "head.kernel": 1},
        lookups={"embed.embedding": 1},
        marks=frozenset({"transformer", "bfloat16", "lookup", "shared_input"}),
    )


def _scanned(axis: int, *marks: str) -> Case:
    x = normal(1, 2, 5, D)
    apply, params = _program(Scanned(axis), x)
    names = ("q", "k", "v", "o", "up", "down")
    linears = {f"layers.block.{n}.kernel": 1 for n in names}
    return Case(
        apply=apply,
        params=params,
        inputs=(x,),
        linears={**linears, "head.kernel": 1},
        marks=frozenset({"transformer", "scan", "shared_input", *marks}),
    )


def scan_axis_0() -> Case:
    """Scanned blocks, kernels ``[L, K, N]``."""
    return _scanned(0)


def scan_axis_1() -> Case:
    """Scanned blocks, kernels ``[K, L, N]``, transposed before the scan."""
    return _scanned(1, "transposed_stack")


def _resnet_linears() -> dict[str, int]:
    return {**{f"Conv_{i}.kernel": 1 for i in range(4)}, "Dense_0.kernel": 1}


def resnet_train() -> Case:
    """BatchNorm state in and out, and a dropout key as an ordinary input."""
    x, model = normal(1, 2, 8, 8, 3), ResNet()
    step, params, state = functional_with_state(model, variables=_variables(model, x))

    def apply(params, state, key, x):
        return step(params, state, x, rngs={"dropout": key})

    return Case(
        apply=apply,
        params=params,
        inputs=(state, jax.random.key(3), x),
        linears=_resnet_linears(),
        marks=frozenset({"conv", "state", "dropout"}),
    )


def resnet_eval() -> Case:
    """The same in evaluation mode, its statistics among the leaves of params."""
    x = normal(1, 2, 8, 8, 3)
    apply, params = _program(ResNet(train=False), x)
    return Case(
        apply=apply,
        params=params,
        inputs=(x,),
        linears=_resnet_linears(),
        marks=frozenset({"conv"}),
    )


def lstm() -> Case:
    """An LSTM cell with one kernel per gate."""
    x = normal(1, 2, 5, 8)
    apply, params = _program(Recurrent(nn.LSTMCell), x)
    gates = [f"cell.{side}{gate}.kernel" for side in "ih" for gate in "ifgo"]
    return Case(
        apply=apply,
        params=params,
        inputs=(x,),
        linears={**dict.fromkeys(gates, 1), "head.kernel": 1},
        marks=frozenset({"scan", "scan_const", "shared_input"}),
    )


def lstm_fused() -> Case:
    """An LSTM cell that concatenates the kernels of its gates before two products."""
    x = normal(1, 2, 5, 8)
    model = Recurrent(nn.OptimizedLSTMCell)
    apply, params = _program(model, x)
    gates = [f"cell.{side}{gate}.kernel" for side in "ih" for gate in "ifgo"]
    return Case(
        apply=apply,
        params=params,
        inputs=(x,),
        linears={**dict.fromkeys(gates, 1), "head.kernel": 1},
        marks=frozenset({"scan", "scan_const", "concatenated"}),
    )


def partitioned() -> Case:
    """A kernel in a box that carries partition names."""
    x = normal(1, 4, D)
    apply, params = _program(Partitioned(), x)
    return Case(
        apply=apply,
        params=params,
        inputs=(x,),
        linears={"dense.kernel": 1},
        marks=frozenset({"boxed"}),
    )


def attention_general() -> Case:
    """flax's multi-head attention, kernels ``[D, H, hd]`` and ``[H, hd, D]``."""
    x = normal(1, 2, 5, D)
    apply, params = _program(Attention(), x)
    names = ("query", "key", "value", "out")
    return Case(
        apply=apply,
        params=params,
        inputs=(x,),
        linears={f"attention.{n}.kernel": 1 for n in names},
        marks=frozenset({"shared_input", "reshaped"}),
    )


CASES = {
    f"linen_{fn.__name__}": fn
    for fn in (
        transformer,
        scan_axis_0,
        scan_axis_1,
        resnet_train,
        resnet_eval,
        lstm,
        lstm_fused,
        partitioned,
        attention_general,
    )
}
