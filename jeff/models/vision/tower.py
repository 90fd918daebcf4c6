"""What the vision towers share: rows of their tensor tables, and random parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff import prng, tree
from jeff.models.tensors import Tensor, params_like

__all__ = ["linear_rows", "norm_rows", "random_params"]


def norm_rows(path: str, name: str, width: int) -> list[Tensor]:
    """Scale and bias of a layer norm, as `jeff.models.vision.layer_norm` has them.

    Args:
      path: Where the norm stands in params.
      name: What a checkpoint calls it.
      width: Channels.

    Returns:
      Two rows of a table.

    Examples:
      >>> [row.path for row in norm_rows("vision.norm", "visual.norm", 8)]
      ['vision.norm.scale', 'vision.norm.bias']
    """
    return [
        Tensor(f"{path}.scale", f"{name}.weight", (width,)),
        Tensor(f"{path}.bias", f"{name}.bias", (width,)),
    ]


def linear_rows(path: str, name: str, into: int, out: int) -> list[Tensor]:
    """Kernel and bias of a layer, as `jeff.models.decoder.block.linear` has them.

    Args:
      path: Where the layer stands in params.
      name: What a checkpoint calls it.
      into: Channels it reads.
      out: Channels it writes.

    Returns:
      Two rows of a table.

    Examples:
      >>> [row.shape for row in linear_rows("vision.up", "visual.fc1", 8, 16)]
      [(16, 8), (16,)]
    """
    return [
        Tensor(f"{path}.kernel", f"{name}.weight", (out, into), True),
        Tensor(f"{path}.bias", f"{name}.bias", (out,)),
    ]


def random_params(
    key: jax.Array,
    table: Sequence[Tensor],
    *,
    inputs: Mapping[str, int],
    dtype: Any = jnp.float32,
) -> dict[str, Any]:
    """Random parameters: normal, of variance one over the inputs; norms at identity.

    Args:
      key: Random key; a leaf's draw depends on it and the leaf's name only.
      table: The tensors.
      inputs: How many numbers make one of the output, for leaves where that is not
        the length of the first axis, by the end of their path.
      dtype: Floating dtype of the parameters.

    Returns:
      Params as `jeff.models.tensors.to_params` makes them.

    Examples:
      >>> rows = linear_rows("a", "a", 3, 2)
      >>> random_params(jax.random.key(0), rows, inputs={})["a"]["bias"].tolist()
      [0.0, 0.0]
    """

    def draw(name: str, like: Any) -> jax.Array:
        if name.endswith(("scale", "bias")):
            return jnp.full(like.shape, float(name.endswith("scale")), dtype)
        into = next((n for end, n in inputs.items() if name.endswith(end)), None)
        noise = jax.random.normal(prng.named_key(key, name), like.shape, dtype)
        into = like.shape[0] if into is None else into
        return noise * jnp.asarray(into**-0.5, dtype)

    return tree.map_with_path(draw, params_like(table))
