"""The networks that ship in the wheel, ready to run."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jeff import tree
from jeff.data import embedded
from jeff.models import tiny_vlm

__all__ = ["load_tiny_vlm", "load_vision", "vqa_features"]

_BATCH = 16  # images a call; 8 to 32 run equally fast on a 2-core CPU


def load_tiny_vlm() -> tiny_vlm.TinyVLM:
    """The trained decoder.

    Returns:
      A module with float32 parameters (stored in float16).

    Raises:
      ValueError: If the weight file is corrupt or does not fit the module.

    Examples:
      >>> import jax.numpy as jnp
      >>> vqa = embedded.load_vqa().test
      >>> model, vision = load_tiny_vlm(), vqa_features(vqa.images[:1])
      >>> question = tiny_vlm.tokenize(["what color is the shape?"])
      >>> tiny_vlm.VOCABULARY[int(model(vision, question).argmax())]
      'red'
    """
    config = tiny_vlm.TinyVLMConfig()
    graph, state = nnx.split(
        nnx.eval_shape(lambda: tiny_vlm.TinyVLM(config, rngs=nnx.Rngs(0)))
    )
    leaves, treedef = tree.flatten(state)
    arrays = embedded.load_weights("tiny_vlm")
    wrong = [
        name
        for name in sorted(leaves.keys() | arrays.keys())
        if name not in arrays
        or name not in leaves
        or arrays[name].shape != leaves[name].shape
    ]
    if wrong:
        raise ValueError(f"tiny_vlm.safetensors does not fit the module: {wrong[0]}")
    params = [jnp.asarray(arrays[name], leaf.dtype) for name, leaf in leaves.items()]
    return nnx.merge(graph, treedef.unflatten(params))


def load_vision() -> dict[str, Any]:
    """The frozen vision stage, for `tiny_vlm.vision_tokens`.

    Returns:
      ``encoder`` (`efficientnet.features` up to stage 5) and ``tokens`` (mean and
      standard deviation of each channel over the training images), float32.

    Raises:
      ValueError: If the weight file is corrupt.

    Examples:
      >>> load_vision()["encoder"]["blocks"][1]["expand"]["kernel"].shape
      (16, 96)
    """
    params: dict[str, Any] = {}
    for name, array in embedded.load_weights("efficientnet_lite0_features").items():
        *parents, leaf = name.split(".")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = jnp.asarray(array, jnp.float32)
    blocks = params["encoder"]["blocks"]
    params["encoder"]["blocks"] = [blocks[str(i)] for i in range(len(blocks))]
    return params


def vqa_features(images: np.ndarray) -> jax.Array:
    """Vision tokens of any number of images, in compiled batches of one shape.

    Args:
      images: uint8 ``[images, height, width, 3]``, such as `embedded.VQAPart.images`.

    Returns:
      float32 ``[images, 16, 112]``.

    Raises:
      TypeError: If `images` is not uint8.
      ValueError: If `images` has another shape or is empty.

    Examples:
      >>> vqa_features(embedded.load_vqa().test.images[:2]).shape
      (2, 16, 112)
    """
    if not len(images):
        raise ValueError("images is empty")
    params = load_vision()
    count = len(images)
    missing = -count % _BATCH
    padded = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
    batches = padded.reshape(-1, _BATCH, *images.shape[1:])
    return jnp.concatenate([_encode(params, batch) for batch in batches])[:count]


_encode = jax.jit(tiny_vlm.vision_tokens)
