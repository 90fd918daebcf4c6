"""Small decoders and their prompts, shared by the tests of `jeff.models`."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import tree
from jeff.io import checkpoint
from jeff.models import decoder, tensors

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CONFIG = decoder.DecoderConfig(
    vocabulary=48, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, hidden=64,
    qkv_bias=True,
)  # fmt: skip
VALID = np.arange(6) >= np.asarray([[0], [4], [2]])
"""Three prompts of 6, 2 and 4 tokens, padded on the left."""


@functools.cache
def params():
    """Random parameters of `CONFIG`, biases and norms included."""
    rng = np.random.default_rng(0)

    def draw(name, like):
        noise = rng.standard_normal(like.shape, np.float32)
        if name.endswith("norm"):
            return jnp.asarray(1 + 0.2 * noise)
        return jnp.asarray(noise * np.float32(like.shape[-1] ** -0.5))

    shapes = tensors.params_like(tensors.decoder_tensors(CONFIG))["decoder"]
    return tree.map_with_path(draw, shapes)


def prompt(given=None):
    """The three prompts as a sequence."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, CONFIG.vocabulary, VALID.shape, np.int32)
    tokens = np.where(VALID, tokens, 0)
    return text(given or params(), tokens, VALID)


@functools.cache
def vision_language(name):
    """``(config, params, sequence, stored)`` of the text side of a golden model."""
    folder = GOLDEN / name
    if not folder.exists():
        pytest.skip(f"golden folder {name} is absent from tests/golden")
    prefix, sections = {
        "llava_onevision_tiny": ("language_model.", None),
        "qwen2_vl_tiny": ("", (2, 3, 3)),
    }[name]
    config = decoder.DecoderConfig(
        vocabulary=160, width=64, layers=2, heads=4, kv_heads=2, head_dim=16,
        hidden=128, qkv_bias=True, rope_sections=sections,
    )  # fmt: skip
    table = tensors.decoder_tensors(config, prefix=prefix)
    known = {row.name for row in table}
    read = checkpoint.read_checkpoint(folder).tensors
    made = tensors.to_params(
        table, tensors.renamed(read, lambda n: n if n in known else None)
    )
    with np.load(folder / "io.npz") as file:
        stored = {n: file[n] for n in file.files}
    valid = stored["attention_mask"].astype(bool)
    count = np.maximum(np.cumsum(valid, axis=1, dtype=np.int32) - 1, 0)
    sequence = decoder.Sequence(
        jnp.asarray(stored["hidden_states"][0]),
        jnp.asarray(stored.get("position_ids", count)),
        jnp.asarray(valid),
    )
    return config, made["decoder"], sequence, stored


# Compiled once per configuration and shape, whichever test is first.
apply = jax.jit(decoder.apply, static_argnames="config")
prefill = jax.jit(decoder.prefill, static_argnames=("config", "length", "dtype"))
step = jax.jit(decoder.step, static_argnames="config")
text = jax.jit(decoder.text)
stack_layers = jax.jit(decoder.stack_layers)
