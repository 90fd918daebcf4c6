"""Chats with pictures as the inputs of Qwen2-VL: all of the work before the model."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from jeff.models.chat import tokens as chat_tokens
from jeff.models.chat.format import ChatFormat, chat_format
from jeff.models.chat.text import Chat, pictures_in
from jeff.models.chat.tokens import Prepared
from jeff.models.qwen2_vl.config import Config
from jeff.models.qwen2_vl.layout import layout, with_patches
from jeff.models.qwen2_vl.pictures import (
    PictureConfig,
    picture_config_from_json,
    picture_grid,
    picture_patches,
)
from jeff.models.vision.pictures import read_preprocessor_json, to_rgb

__all__ = ["IMAGE_TEXT", "Processor", "prepare", "read_processor"]

IMAGE_TEXT = "<|vision_start|><|image_pad|><|vision_end|>"
"""A picture in the text of a chat; the middle token is repeated for its features."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processor:
    """What turns chats into inputs.

    Attributes:
      config: The model.
      tokenizer: A `tokenizers.Tokenizer`, or anything that encodes like one.
      pictures: How pictures become patches.
      form: How chats become text.

    Raises:
      ValueError: If `pictures` has patches of another size than the model.
    """

    config: Config
    tokenizer: Any
    pictures: PictureConfig = PictureConfig()
    form: ChatFormat = ChatFormat(image_text=IMAGE_TEXT)

    def __post_init__(self) -> None:
        """Checks that model and pictures fit."""
        for name in ("patch", "frames", "merge"):
            ours, model = (
                getattr(self.pictures, name),
                getattr(self.config.vision, name),
            )
            if ours != model:
                raise ValueError(f"pictures.{name} must be {model}, got {ours}")


def read_processor(
    folder: str | os.PathLike[str], *, config: Config, tokenizer: Any
) -> Processor:
    """The processor of a checkpoint.

    Args:
      folder: Read are ``preprocessor_config.json`` or else ``processor_config.json``,
        if there is one, and the chat template (`jeff.models.chat.chat_format`).
      config: The model.
      tokenizer: A `tokenizers.Tokenizer`.

    Returns:
      The processor.

    Raises:
      ValueError: If a file is broken or asks for what is not supported.
    """
    settings = read_preprocessor_json(folder)
    return Processor(
        config=config,
        tokenizer=tokenizer,
        pictures=picture_config_from_json(settings),
        form=chat_format(folder, image_text=IMAGE_TEXT),
    )


def prepare(
    chats: Sequence[Chat],
    processor: Processor,
    *,
    answers: Sequence[str] | None = None,
    side: str = "left",
    length: int | None = None,
    patches: int | None = None,
) -> Prepared:
    """Chats as inputs, with the answers to learn from if there are any.

    Everything about the request is checked before the first picture is resized.

    Args:
      chats: The samples; pictures stand in the messages
        (`jeff.models.chat.question`).
      processor: From `read_processor`.
      answers: One per chat, for calibration.
      side: Where padding stands; generation wants it on the left.
      length: Pad to this many tokens, so that batches have equal shapes.
      patches: Pad to this many patches, for the same reason.

    Returns:
      The inputs and the labels.

    Raises:
      TypeError: If a chat is malformed, something is no picture or `chats` is one chat.
      ValueError: If a prompt or an answer is empty, a picture has no pixels or is too
        narrow, there is a video, image tokens do not stand for the pictures, there are
        not as many answers as chats, or a batch does not fit into `length` or
        `patches`; the sample is named.
    """
    chat_tokens.check_request(chats, answers)
    rows, pictures, grids = [], [], []
    for i, chat in enumerate(chats):
        answer = None if answers is None else answers[i]
        try:
            row, own = _tokens(chat, answer, processor)
            grids += [picture_grid(picture, processor.pictures) for picture in own]
        except (TypeError, ValueError) as error:
            raise type(error)(f"chats[{i}]: {error}") from None
        rows.append(row)
        pictures += own
    batch = chat_tokens.pad(rows, side=side, length=length)
    arrays = layout(
        batch.tokens, batch.valid, grids, config=processor.config, patches=patches
    )
    pixels, _ = picture_patches(pictures, processor.pictures)
    inputs = with_patches(arrays, pixels, config=processor.config)
    return Prepared(inputs, batch.labels)


def _tokens(chat, answer, processor: Processor):
    """``((prompt, answer), pictures)`` of a sample, checked."""
    settings = processor.pictures
    prompt, reply = chat_tokens.tokenize(
        chat, processor.form, processor.tokenizer, answer=answer
    )
    pictures = [to_rgb(picture) for picture in pictures_in(chat)]
    grids = [picture_grid(picture, settings) for picture in pictures]
    counts = [rows * columns // settings.merge**2 for _, rows, columns in grids]
    image, video = processor.config.image_token, processor.config.video_token
    if image in reply or video in reply:
        raise ValueError("the answer has tokens of pictures or videos")
    return (chat_tokens.expand(prompt, image, counts), reply), pictures
