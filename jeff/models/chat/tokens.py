"""Chats as padded tokens: image tokens expanded, answers labelled."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jeff.models.chat.format import ChatFormat
from jeff.models.chat.text import Chat, end_of_answer, render

__all__ = [
    "IGNORED",
    "Padded",
    "Prepared",
    "check_request",
    "check_tokens",
    "expand",
    "masks",
    "pad",
    "tokenize",
]

IGNORED = -100
"""The label of a token that is no answer."""


class Padded(NamedTuple):
    """A batch of tokens.

    Attributes:
      tokens: int32 ``[batch, slots]``, 0 at padding.
      valid: bool ``[batch, slots]``, false at padding.
      labels: int32 ``[batch, slots]``: the answer's tokens where they stand, -100
        elsewhere.
    """

    tokens: np.ndarray
    valid: np.ndarray
    labels: np.ndarray


class Prepared(NamedTuple):
    """A batch for a vision-language model.

    Attributes:
      inputs: What the model's ``apply`` takes, arrays by name.
      labels: int32 ``[B, N]``, the answers' tokens where they stand, -100 elsewhere.
    """

    inputs: dict[str, Any]
    labels: np.ndarray


def tokenize(
    chat: Chat, form: ChatFormat, tokenizer: Any, *, answer: str | None = None
) -> tuple[list[int], list[int]]:
    """One chat as tokens, as the model meets it when it generates.

    The prompt is tokenized by itself, with what makes the model answer at its end; the
    answer follows, with the end of the turn. So a calibration sample has the very
    prompt tokens of a generation.

    Args:
      chat: The messages; the last one asks.
      form: The format.
      tokenizer: A `tokenizers.Tokenizer`, or anything with
        ``encode(text, add_special_tokens=False).ids``.
      answer: The answer to learn from, if any.

    Returns:
      Tokens of the prompt, with one image token for each picture, and of the answer.

    Raises:
      TypeError: As `check_chat`, or if the tokenizer cannot encode.
      ValueError: As `render`, or if the answer is empty.

    Examples:
      >>> class Letters:
      ...     def encode(self, text, add_special_tokens=True):
      ...         return type("Encoding", (), {"ids": [ord(c) for c in text]})
      >>> tokenize([{"role": "user", "content": "ab"}],
      ...          ChatFormat(template="{{ messages[-1].content }}"), Letters(),
      ...          answer="c")
      ([97, 98], [99])
    """
    if not callable(getattr(tokenizer, "encode", None)):
        raise TypeError(f"tokenizer must have encode, got {tokenizer!r}")
    if answer is not None and not answer.strip():
        raise ValueError("the answer is empty")

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    prompt = encode(render(chat, form))
    return prompt, [] if answer is None else encode(answer + end_of_answer(form))


def expand(tokens: Sequence[int], image_token: int, counts: Sequence[int]) -> list[int]:
    """Every image token, repeated for the features of its picture.

    Args:
      tokens: A prompt, with one image token for each picture.
      image_token: Which token that is.
      counts: Features of each picture.

    Returns:
      The longer prompt.

    Raises:
      ValueError: If there are more or fewer image tokens than pictures.

    Examples:
      >>> expand([5, 9, 6, 9], 9, [2, 1])
      [5, 9, 9, 6, 9]
      >>> expand([5], 9, [2])
      Traceback (most recent call last):
        ...
      ValueError: the prompt has 0 image tokens for 1 pictures
    """
    found = sum(token == image_token for token in tokens)
    if found != len(counts):
        raise ValueError(
            f"the prompt has {found} image tokens for {len(counts)} pictures"
        )
    longer: list[int] = []
    pictures = iter(counts)
    for token in tokens:
        longer += [token] * (next(pictures) if token == image_token else 1)
    return longer


def pad(
    rows: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    side: str = "right",
    length: int | None = None,
) -> Padded:
    """Prompts with their answers as one batch.

    Args:
      rows: Tokens of prompt and answer of each sample.
      side: Where padding stands: ``"right"``, or ``"left"`` as generation wants it.
      length: Slots of the batch; those of the longest sample if ``None``.

    Returns:
      The batch.

    Raises:
      ValueError: If there are no rows, a sample has no token or more than `length`, or
        `side` is neither word.

    Examples:
      >>> batch = pad([([5, 6], [7]), ([5], [])], side="left")
      >>> print(batch.tokens, batch.labels)
      [[5 6 7]
       [0 0 5]] [[-100 -100    7]
       [-100 -100 -100]]
    """
    if side not in ("left", "right"):
        raise ValueError(f"side must be 'left' or 'right', got {side!r}")
    sizes = [len(prompt) + len(answer) for prompt, answer in rows]
    if not sizes or min(sizes) == 0:
        raise ValueError("the prompt is empty: there is no token")
    slots = max(sizes) if length is None else length
    if max(sizes) > slots:
        raise ValueError(f"length must be at least {max(sizes)} slots, got {slots}")
    shape = (len(rows), slots)
    batch = Padded(
        np.zeros(shape, np.int32),
        np.zeros(shape, bool),
        np.full(shape, IGNORED, np.int32),
    )
    for i, ((prompt, answer), size) in enumerate(zip(rows, sizes, strict=True)):
        start = slots - size if side == "left" else 0
        batch.tokens[i, start : start + size] = [*prompt, *answer]
        batch.valid[i, start : start + size] = True
        batch.labels[i, start + len(prompt) : start + size] = answer
    return batch


def check_request(chats: Sequence[Chat], answers: Sequence[str] | None) -> None:
    """Refuses what is no batch of chats, or has not one answer for each.

    Args:
      chats: The samples.
      answers: One per chat, or ``None``.

    Raises:
      TypeError: If `chats` is one chat.
      ValueError: If there is no chat, or not as many answers as chats.

    Examples:
      >>> check_request([[{"role": "user", "content": "a"}]], [])
      Traceback (most recent call last):
        ...
      ValueError: 1 chats need as many answers, got 0
    """
    if isinstance(chats, Mapping) or any(isinstance(c, Mapping) for c in chats):
        raise TypeError("chats must be a list of chats, got a single one")
    if not len(chats):
        raise ValueError("the prompt is empty: there is no chat")
    if answers is not None and len(answers) != len(chats):
        raise ValueError(f"{len(chats)} chats need as many answers, got {len(answers)}")


def check_tokens(tokens: Any, valid: Any, config: Any) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of a vision-language model as arrays, checked.

    Args:
      tokens: int ``[batch, slots]``.
      valid: bool ``[batch, slots]``, false at padding.
      config: The model, with ``decoder.vocabulary`` and ``video_token``.

    Returns:
      Both as NumPy arrays.

    Raises:
      TypeError: If `tokens` are no integers.
      ValueError: If shapes differ, a row has no token, or a token is unknown or that
        of a video.
    """
    tokens, valid = np.asarray(tokens), np.asarray(valid).astype(bool)
    if tokens.dtype.kind not in "iu":
        raise TypeError(f"tokens must be integers, got {tokens.dtype}")
    if tokens.ndim != 2 or valid.shape != tokens.shape:
        raise ValueError(
            "tokens and valid must have one shape [batch, slots], "
            f"got {tokens.shape} and {valid.shape}"
        )
    if not valid.any(axis=1).all() or not len(tokens):
        row = int(np.argmin(valid.any(axis=1))) if len(tokens) else 0
        raise ValueError(f"the prompt is empty: tokens[{row}] has no valid token")
    used = tokens[valid]
    if (used == config.video_token).any():
        raise ValueError(
            f"tokens hold video_token {config.video_token}: videos are not supported"
        )
    if used.min() < 0 or used.max() >= config.decoder.vocabulary:
        raise ValueError(
            f"tokens must be in [0, {config.decoder.vocabulary}), "
            f"got {used.min()} to {used.max()}"
        )
    return tokens, valid


def masks(inputs: Mapping[str, Any], labels: Any) -> dict[str, np.ndarray]:
    """Which tokens are of which modality, for `jeff.mbq.Batch`.

    A batch may be without pictures or without answers: what a whole calibration set
    must have, `jeff.mbq` checks.

    Args:
      inputs: Of a vision-language model: ``valid`` bool ``[B, N]`` and, where there are
        pictures, ``feature_index`` ``[B, N]`` or ``[B, N, ...]``, -1 for text.
      labels: int ``[B, N]``, -100 outside of the answer.

    Returns:
      ``vision`` (image tokens) and ``language`` (answer tokens), bool ``[B, N]``;
      padding and the question are in neither.

    Raises:
      ValueError: If an answer token is padding or an image token, or shapes differ.

    Examples:
      >>> inputs = {"valid": np.ones((1, 4), bool),
      ...           "feature_index": np.array([[-1, 0, -1, -1]])}
      >>> found = masks(inputs, np.array([[-100, -100, -100, 3]]))
      >>> print(found["vision"], found["language"])
      [[False  True False False]] [[False False False  True]]
    """
    labels, valid = np.asarray(labels), np.asarray(inputs["valid"])
    if labels.shape != valid.shape:
        raise ValueError(f"labels must have shape {valid.shape}, got {labels.shape}")
    index = np.asarray(inputs.get("feature_index", np.full(valid.shape, -1)))
    vision = index.reshape(*valid.shape, -1)[..., 0] >= 0
    language = labels != IGNORED
    if (language & (vision | ~valid)).any():
        raise ValueError("labels must be -100 at image tokens and at padding")
    return {"vision": vision, "language": language}
