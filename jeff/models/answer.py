"""An answer of a published model to one prompt: text and pictures in, text out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import base, program, quantize
from jeff.models import chat, decoder
from jeff.models.chat import tokens as chat_tokens
from jeff.models.generation import generate
from jeff.models.registry import Model, architecture

__all__ = ["Answer", "answer", "model_rules", "prompt_inputs"]


class Answer(NamedTuple):
    """What a model said.

    Attributes:
      text: The words; ``None`` if there is no tokenizer.
      tokens: The tokens, without the one that ended them.
      prompt_tokens: How many tokens the prompt has, those of pictures included.
      stopped: Whether a stop token ended it, and not the limit.
    """

    text: str | None
    tokens: tuple[int, ...]
    prompt_tokens: int
    stopped: bool


def answer(
    model: Model,
    inputs: Mapping[str, Any],
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Answer:
    """Generates the answer to one prompt, with packed weights where they stand.

    Args:
      model: From `jeff.models.registry.load`, quantized or not. Layers that are listed
        are stacked here, and are then in memory twice: load with ``stacked=True``.
      inputs: The prompt, from `prompt_inputs`.
      max_new_tokens: The most tokens to generate.
      temperature: Divides the scores before a draw; 0 takes the likeliest token.
      top_k: Draw from that many likeliest tokens only.
      top_p: Draw from the likeliest tokens that together have this probability.
      seed: Of the draws.

    Returns:
      The answer.

    Raises:
      TypeError: As `jeff.models.generation.generate`.
      ValueError: Likewise.
    """
    rules = model_rules(model)
    params = {**model.params, "decoder": _stacked(model.params["decoder"])}
    sequence = jax.jit(program.rewrite(model.embed, *rules))(params, inputs)
    vocabulary = model.config.decoder.vocabulary
    generated = generate(
        params["decoder"],
        sequence,
        config=model.config.decoder,
        max_new_tokens=max_new_tokens,
        key=jax.random.key(seed) if temperature > 0 else None,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop_tokens=[t for t in model.stop_tokens if t < vocabulary],
        rules=rules,
    )
    length = int(generated.lengths[0])
    tokens = tuple(int(t) for t in generated.tokens[0, :length])
    return Answer(
        text=None if model.tokenizer is None else model.tokenizer.decode(list(tokens)),
        tokens=tokens,
        prompt_tokens=int(np.asarray(sequence.valid).sum()),
        stopped=length < max_new_tokens,
    )


def model_rules(model: Model) -> tuple[base.Rule, ...]:
    """How the packed weights of a model are multiplied.

    Args:
      model: The model.

    Returns:
      Rules of `jeff.rewrite`: products of integers if the model was made for quantized
      activations, else products with packed weights.
    """
    if model.activation_bits is None:
        return (quantize.fused,)
    return (quantize.integer_dots(model.activation_bits),)


def prompt_inputs(
    model: Model,
    prompt: "str | Sequence[int]",
    pictures: Sequence[Any] = (),
    *,
    raw: bool = False,
) -> dict[str, Any]:
    """One prompt as the inputs of a model.

    Args:
      model: The model.
      prompt: Words, or tokens as they are (for checkpoints without a tokenizer).
      pictures: Pictures before the words, for vision-language models; anything that
        `jeff.models.vision.pictures.to_rgb` takes.
      raw: Continue the words themselves instead of answering them in the model's chat
        template.

    Returns:
      What ``model.embed`` and ``model.apply`` take.

    Raises:
      TypeError: If something is no picture.
      ValueError: If words are given and the model has no tokenizer, the prompt is
        empty, has unknown tokens or is no text, or pictures are given to a text model,
        with tokens or with `raw`.
    """
    module = architecture(model.architecture)
    sees = hasattr(module, "read_processor")
    if pictures and not sees:
        raise ValueError(f"a {model.architecture} model reads no pictures")
    if pictures and (raw or not isinstance(prompt, str)):
        raise ValueError("pictures need a prompt of words in the model's chat template")
    if not isinstance(prompt, str):
        return _of_tokens(model, module, list(prompt))
    if not prompt.strip():
        raise ValueError("the prompt is empty")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            "the prompt is no text: it has a lone surrogate, "
            f"{prompt[error.start]!r}, at character {error.start}; is it in UTF-8?"
        ) from None
    if model.tokenizer is None:
        why = "; ".join(model.notes)
        raise ValueError(
            f"{model.folder}: a prompt of words needs a tokenizer ({why}); give tokens"
        )
    if raw:
        return _of_tokens(model, module, model.tokenizer.encode(prompt).ids)
    question = chat.question(prompt, pictures)
    if sees:
        processor = module.read_processor(
            model.folder, config=model.config, tokenizer=model.tokenizer
        )
        return module.prepare([question], processor).inputs
    tokens, _ = chat_tokens.tokenize(question, model.chat, model.tokenizer)
    return _of_tokens(model, module, tokens)


def _stacked(params: dict[str, Any]) -> dict[str, Any]:
    """The decoder with stacked layers, one of which is compiled, if they are alike."""
    try:
        return decoder.stack_layers(params)
    except ValueError:
        return params


def _of_tokens(model: Model, module: Any, tokens: Sequence[int]) -> dict[str, Any]:
    """Tokens without pictures."""
    vocabulary = model.config.decoder.vocabulary
    if not len(tokens):
        raise ValueError("the prompt is empty: it has no token")
    if min(tokens) < 0 or max(tokens) >= vocabulary:
        raise ValueError(
            f"tokens must be in [0, {vocabulary}), got {min(tokens)} to {max(tokens)}"
        )
    row = np.asarray([tokens], np.int32)
    if not hasattr(module, "layout"):
        return {"tokens": jnp.asarray(row)}
    none = np.zeros((0, 3), int) if model.architecture == "qwen2_vl" else [()]
    return module.layout(row, np.ones(row.shape, bool), none, config=model.config)
