"""Chats with pictures as the inputs of LLaVA-OneVision: all work before the model."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from jeff.models.chat import tokens as chat_tokens
from jeff.models.chat.format import ChatFormat, chat_format
from jeff.models.chat.text import Chat, pictures_in
from jeff.models.chat.tokens import Prepared
from jeff.models.llava_onevision.config import Config
from jeff.models.llava_onevision.layout import layout, with_tiles
from jeff.models.llava_onevision.pictures import (
    PictureConfig,
    picture_config_from_json,
    picture_tiles,
)
from jeff.models.llava_onevision.tiles import picture_rows
from jeff.models.vision.pictures import read_preprocessor_json, to_rgb

__all__ = ["IMAGE_TEXT", "Processor", "prepare", "read_processor"]

IMAGE_TEXT = "<image>\n"
"""A picture in the text of a chat; the token is repeated for its features."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processor:
    """What turns chats into inputs.

    Attributes:
      config: The model.
      tokenizer: A `tokenizers.Tokenizer`, or anything that encodes like one.
      pictures: How pictures become tiles.
      form: How chats become text.
    """

    config: Config
    tokenizer: Any
    pictures: PictureConfig = PictureConfig()
    form: ChatFormat = ChatFormat(image_text=IMAGE_TEXT)


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
        pictures=picture_config_from_json(settings, config=config),
        form=chat_format(folder, image_text=IMAGE_TEXT),
    )


def prepare(
    chats: Sequence[Chat],
    processor: Processor,
    *,
    answers: Sequence[str] | None = None,
    side: str = "left",
    length: int | None = None,
    tiles: int | None = None,
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
      tiles: Pad every sample to this many tiles, for the same reason.

    Returns:
      The inputs and the labels.

    Raises:
      TypeError: If a chat is malformed, something is no picture or `chats` is one chat.
      ValueError: If there is no chat, a prompt or an answer is empty, a picture has no
        pixels, there is a video, image tokens do not stand for the pictures, there are
        not as many answers as chats, or a batch does not fit into `length` or `tiles`;
        the sample is named.
    """
    chat_tokens.check_request(chats, answers)
    config = processor.config
    rows, pictures, sizes = [], [], []
    for i, chat in enumerate(chats):
        answer = None if answers is None else answers[i]
        try:
            row, own = _tokens(chat, answer, processor)
        except (TypeError, ValueError) as error:
            raise type(error)(f"chats[{i}]: {error}") from None
        rows.append(row)
        pictures.append(own)
        sizes.append([(picture.height, picture.width) for picture in own])
    batch = chat_tokens.pad(rows, side=side, length=length)
    arrays = layout(batch.tokens, batch.valid, sizes, config=config, tiles=tiles)
    pixels = [picture_tiles(own, processor.pictures, config=config) for own in pictures]
    return Prepared(with_tiles(arrays, pixels, sizes, config=config), batch.labels)


def _tokens(chat, answer, processor: Processor):
    """``((prompt, answer), pictures)`` of a sample, checked."""
    config = processor.config
    prompt, reply = chat_tokens.tokenize(
        chat, processor.form, processor.tokenizer, answer=answer
    )
    if {config.image_token, config.video_token} & set(reply):
        raise ValueError("the answer has tokens of pictures or videos")
    if config.video_token in prompt:
        raise ValueError("the prompt has a video token: videos are not supported")
    pictures = [to_rgb(picture) for picture in pictures_in(chat)]
    sizes = [(picture.height, picture.width) for picture in pictures]
    counts = [len(found) for found, _ in picture_rows(sizes, config=config)]
    return (chat_tokens.expand(prompt, config.image_token, counts), reply), pictures
