"""Random parameters of a decoder, packed ones made without ever being dense."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jeff import prng, tree
from jeff.models.decode_bench.workload import Scheme, group_size
from jeff.models.decoder.config import DecoderConfig
from jeff.models.tensors import decoder_tensors, params_like
from jeff.quantize import QTensor
from pallas_kernels import bits as layouts

__all__ = ["ends", "layers", "listed", "weight_bytes"]


def ends(seed: int, config: DecoderConfig, *, dtype: Any) -> dict[str, Any]:
    """Embedding, last norm and output matrix, dense, without the layers.

    Args:
      seed: Of the random numbers.
      config: Sizes.
      dtype: Floating dtype.

    Returns:
      The parameters of a decoder, less ``layers``.
    """
    return _ends(_key(seed, "ends"), config, jnp.dtype(dtype))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _ends(key, config, dtype):
    spec = _spec(config)
    del spec["layers"]
    return tree.map_with_path(lambda name, leaf: _dense(key, name, leaf, dtype), spec)


def layers(
    seed: int, config: DecoderConfig, scheme: Scheme, *, dtype: Any
) -> dict[str, Any]:
    """The layers, stacked: any codes, and scales that keep activations their size.

    Args:
      seed: Of the random numbers.
      config: Sizes.
      scheme: How matrices are kept.
      dtype: Floating dtype of what is dense, and that packed weights decode to.

    Returns:
      One dictionary of stacked leaves.

    Examples:
      >>> from jeff.models.decode_bench.workload import DECODERS, SCHEMES
      >>> toy = DECODERS["toy"]
      >>> packed = layers(0, toy, SCHEMES["w3"], dtype="float32")
      >>> packed["mlp"]["down"]["kernel"]
      QTensor(float32[2, 64, 32], 3 bits, scales bfloat16[2, 2, 32])
    """
    return _layers(_key(seed, "layers"), config, scheme, jnp.dtype(dtype))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _layers(key, config, scheme, dtype):
    group = group_size(config) if scheme.grouped else None

    def make(name, leaf):
        shape = (config.layers, *leaf.shape)
        if scheme.bits is None or not name.endswith("kernel"):
            return _dense(key, name, jax.ShapeDtypeStruct(shape, dtype), dtype)
        return _packed(prng.named_key(key, name), shape, scheme.bits, group, dtype)

    return tree.map_with_path(make, _spec(config)["layers"][0])


def listed(seed: int, config: DecoderConfig, *, dtype: Any) -> list[dict[str, Any]]:
    """Dense layers one by one, to be unrolled.

    Args:
      seed: Of the random numbers.
      config: Sizes.
      dtype: Floating dtype.

    Returns:
      A dictionary per layer.
    """
    keys = jax.random.split(_key(seed, "layers"), config.layers)
    return [_layer(key, config, jnp.dtype(dtype)) for key in keys]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _layer(key, config, dtype):
    spec = _spec(config)["layers"][0]
    return tree.map_with_path(lambda name, leaf: _dense(key, name, leaf, dtype), spec)


def weight_bytes(params: Any) -> int:
    """Bytes of the weights that every token needs: all but the rows of an embedding.

    Args:
      params: Parameters of a decoder.

    Examples:
      >>> weight_bytes({"embed": jnp.ones((8, 4)), "head": jnp.ones((4, 8))})
      128
    """
    read = dict(params)
    if "head" in params:  # else the embedding is the output matrix, and is read
        del read["embed"]
    return sum(a.nbytes for a in jax.tree.leaves(read))


def _key(seed: int, name: str) -> jax.Array:
    """A key of XLA's own generator, which is fast to compile and to draw from."""
    return prng.named_key(jax.random.key(seed, impl="rbg"), name)


def _spec(config: DecoderConfig) -> dict[str, Any]:
    """Shapes of a decoder of one layer."""
    one = dataclasses.replace(config, layers=1)
    return params_like(decoder_tensors(one))["decoder"]


def _dense(key, name, leaf, dtype) -> jax.Array:
    if name.endswith("norm"):
        return jnp.ones(leaf.shape, dtype)
    if name.endswith("bias"):
        return jnp.zeros(leaf.shape, dtype)
    into = leaf.shape[-1] if name == "embed" else leaf.shape[-2]
    most = (3 / into) ** 0.5  # of variance 1 / into
    draw = prng.named_key(key, name)
    return jax.random.uniform(draw, leaf.shape, dtype, minval=-most, maxval=most)


def _packed(key, shape, bits, group, dtype) -> QTensor:
    """A stack of matrices of random words; symmetric per channel if `group` is None."""
    count, size, columns = shape
    keys = jax.random.split(key, 3)
    groups = 1 if group is None else size // group
    # Of uniform codes less uniform zero points, or less their middle.
    spread = math.sqrt((4**bits - 1) / (12 if group is None else 6))
    scale = jax.random.uniform(
        keys[1], (count, groups, columns), minval=0.5, maxval=1.5
    )
    zero = None
    if group is not None:
        zero = jax.random.randint(keys[2], scale.shape, 0, 2**bits).astype(jnp.uint8)
    return QTensor(
        packed=jax.random.bits(keys[0], (count, size * bits // 32, columns)),
        scale=(scale / (spread * math.sqrt(size * 13 / 12))).astype(jnp.bfloat16),
        zero=zero,
        bits=bits,
        stride=layouts.default_stride(size),
        contract=(-2,),
        pad=0,
        dense_dtype=dtype,
    )
