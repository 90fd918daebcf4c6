"""The whole decoder: random parameters, scores of all tokens, layers as a stack."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jeff import prng, tree
from jeff.models.decoder.block import attend, block, rms_norm
from jeff.models.decoder.config import DecoderConfig, Sequence, check_sequence
from jeff.models.decoder.head import embed, logits
from jeff.models.decoder.rotary import rotary_tables
from jeff.models.tensors import decoder_tensors, params_like

__all__ = [
    "apply",
    "init",
    "stack_layers",
    "stack_layers_in_place",
    "text",
    "unstack_layers",
]


def init(
    key: jax.Array, config: DecoderConfig, *, dtype: Any = jnp.float32
) -> dict[str, Any]:
    """Random parameters: matrices normal with variance one over their inputs.

    Args:
      key: Random key; a leaf's draw depends on it and the leaf's name only.
      config: Sizes.
      dtype: Floating dtype of the parameters.

    Returns:
      The parameters, layers listed.

    Examples:
      >>> config = DecoderConfig(vocabulary=8, width=4, layers=2, heads=2, kv_heads=1,
      ...                        head_dim=2, hidden=4)
      >>> params = init(jax.random.key(0), config)
      >>> params["layers"][1]["attention"]["key"]["kernel"].shape
      (4, 2)
    """

    def draw(name: str, shape: tuple[int, ...]) -> jax.Array:
        if name.endswith("norm"):
            return jnp.ones(shape, dtype)
        if name.endswith("bias"):
            return jnp.zeros(shape, dtype)
        into = config.width if name == "embed" else shape[0]
        noise = jax.random.normal(prng.named_key(key, name), shape, dtype)
        return noise * jnp.asarray(into**-0.5, dtype)

    shapes = params_like(decoder_tensors(config))["decoder"]
    return tree.map_with_path(lambda name, leaf: draw(name, leaf.shape), shapes)


def text(
    params: Mapping[str, Any], tokens: jax.Array, valid: jax.Array | None = None
) -> Sequence:
    """Tokens as a sequence: embedded, and numbered from each row's first valid slot.

    Args:
      params: Parameters of the decoder.
      tokens: int ``[batch, slots]``, padded on either side.
      valid: bool ``[batch, slots]``; all of them if ``None``.

    Returns:
      The sequence; padding has position 0.

    Raises:
      ValueError: If `tokens` is no matrix or `valid` has another shape.

    Examples:
      >>> params = {"embed": jnp.ones((8, 4))}
      >>> padded = jnp.asarray([[0, 0, 5, 7]])
      >>> print(text(params, padded, padded > 0).positions)
      [[0 0 0 1]]
    """
    if tokens.ndim != 2:
        raise ValueError(f"tokens must be [batch, slots], got {tokens.shape}")
    if valid is None:
        valid = jnp.ones(tokens.shape, bool)
    if valid.shape != tokens.shape:
        raise ValueError(f"valid must be {tokens.shape}, got {valid.shape}")
    positions = jnp.maximum(jnp.cumsum(valid, axis=-1, dtype=jnp.int32) - 1, 0)
    return Sequence(embed(params, tokens), positions, valid)


def apply(
    params: Mapping[str, Any], sequence: Sequence, *, config: DecoderConfig
) -> jax.Array:
    """Scores of the next token at every slot.

    A slot sees itself and the valid ones before it. What stands at padding is finite
    and means nothing.

    Args:
      params: Parameters, layers listed or stacked.
      sequence: The batch, padded on either side.
      config: Sizes.

    Returns:
      float32 ``[batch, slots, vocabulary]``.

    Raises:
      ValueError: If a shape does not fit the configuration.
      TypeError: If `sequence.valid` is not bool or positions are not integers.

    Examples:
      >>> config = DecoderConfig(vocabulary=8, width=4, layers=2, heads=2, kv_heads=1,
      ...                        head_dim=2, hidden=4)
      >>> params = init(jax.random.key(0), config)
      >>> prompt = text(params, jnp.asarray([[5, 1, 2]]))
      >>> jax.jit(lambda p, s: apply(p, s, config=config))(params, prompt).shape
      (1, 3, 8)
    """
    check_sequence(sequence, config)
    x, positions, valid = sequence
    rotary = rotary_tables(
        positions,
        head_dim=config.head_dim,
        base=config.rope_base,
        sections=config.rope_sections,
    )
    slots = x.shape[1]
    allowed = jnp.tril(jnp.ones((slots, slots), bool)) & valid[:, None, :]

    def one(x, layer):
        return block(
            layer, x, rotary, lambda q, k, v: attend(q, k, v, allowed), config=config
        )

    layers = params["layers"]
    if isinstance(layers, Mapping):
        x, _ = jax.lax.scan(lambda x, layer: (one(x, layer), None), x, layers)
    else:
        for layer in layers:
            x = one(x, layer)
    return logits(params, rms_norm(x, params["norm"], eps=config.norm_eps))


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """The same parameters with every leaf of the layers stacked, to be scanned.

    Args:
      params: Parameters with layers listed, or stacked already.

    Returns:
      The parameters; leaves under ``layers`` have a leading axis.

    Raises:
      ValueError: If layers differ in shapes, dtypes or how they are stored.

    Examples:
      >>> layer = {"mlp_norm": jnp.ones(4)}
      >>> stack_layers({"layers": [layer, layer]})["layers"]["mlp_norm"].shape
      (2, 4)
    """
    layers = params["layers"]
    if isinstance(layers, Mapping):
        return dict(params)
    columns, structure = _columns(layers)
    stacked = [jnp.stack(column) for column in columns]
    return {**params, "layers": jax.tree.unflatten(structure, stacked)}


def stack_layers_in_place(params: dict[str, Any]) -> None:
    """`stack_layers` for who needs the list no more: it is given up leaf by leaf.

    Only one leaf of all layers is in memory twice at a time, unless something else
    refers to the list.

    Args:
      params: Parameters with layers listed, or stacked already. ``layers`` is replaced,
        and a list there is emptied.

    Raises:
      ValueError: As `stack_layers`; nothing is changed then.

    Examples:
      >>> params = {"layers": [{"mlp_norm": jnp.ones(4)}, {"mlp_norm": jnp.ones(4)}]}
      >>> stack_layers_in_place(params)
      >>> params["layers"]["mlp_norm"].shape
      (2, 4)
    """
    layers = params["layers"]
    if isinstance(layers, Mapping):
        return
    columns, structure = _columns(layers)
    layers.clear()
    stacked = []
    while columns:
        # The pieces go before the next stack is made, not when it is dispatched.
        stacked.append(jax.block_until_ready(jnp.stack(columns.pop(0))))
    params["layers"] = jax.tree.unflatten(structure, stacked)


def _columns(layers: Any) -> tuple[list[list[Any]], Any]:
    """Each leaf of all layers, and the structure of a layer; all must be alike."""
    flat = [jax.tree.flatten(layer) for layer in layers]

    def kind(i: int) -> Any:
        leaves, structure = flat[i]
        return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]

    for i in range(1, len(flat)):
        if kind(i) != kind(0):
            raise ValueError(
                f"layer {i} is not stored as layer 0 is: unequal layers cannot be "
                "stacked"
            )
    columns = zip(*(leaves for leaves, _ in flat), strict=True)
    return [list(column) for column in columns], flat[0][1]


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """The same parameters with layers listed: the inverse of `stack_layers`.

    Args:
      params: Parameters with layers stacked, or listed already.

    Returns:
      The parameters; ``layers`` is a list.

    Examples:
      >>> params = unstack_layers({"layers": {"mlp_norm": jnp.ones((2, 4))}})
      >>> [layer["mlp_norm"].shape for layer in params["layers"]]
      [(4,), (4,)]
    """
    layers = params["layers"]
    if not isinstance(layers, Mapping):
        return dict(params)
    count = len(jax.tree.leaves(layers)[0])
    listed = [jax.tree.map(lambda a, i=i: a[i], layers) for i in range(count)]
    return {**params, "layers": listed}
