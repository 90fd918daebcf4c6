"""Chats as text: a checkpoint's own template, or ChatML."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from jeff.models.chat.format import ChatFormat
from jeff.models.chat.template import compile_template

__all__ = ["Chat", "check_chat", "end_of_answer", "pictures_in", "question", "render"]

Chat = Sequence[Mapping[str, Any]]


def question(text: str, pictures: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """A chat of one question, with the pictures before the text.

    Args:
      text: The question.
      pictures: Pictures, see `jeff.models.vision.pictures.to_rgb`.

    Returns:
      A chat.

    Examples:
      >>> question("what is it?")
      [{'role': 'user', 'content': [{'type': 'text', 'text': 'what is it?'}]}]
    """
    parts: list[dict[str, Any]] = [{"type": "image", "image": p} for p in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def check_chat(chat: Chat) -> None:
    """Refuses what no template could be given.

    Args:
      chat: The messages.

    Raises:
      TypeError: If the chat is no list of messages, or a message is of another form.
      ValueError: If there is no message, the last one has no text, or a part is a
        video, an image without its picture, or of an unknown type.

    Examples:
      >>> check_chat(question(" "))
      Traceback (most recent call last):
        ...
      ValueError: the prompt is empty: messages[0] has no text
    """
    if isinstance(chat, str | Mapping) or not isinstance(chat, Sequence):
        raise TypeError(f"a chat must be a list of messages, got {chat!r}")
    if not chat:
        raise ValueError("the prompt is empty: the chat has no message")
    for i, message in enumerate(chat):
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise TypeError(
                f"messages[{i}] must be a dict with role and content, got {message!r}"
            )
        content = message["content"]
        if isinstance(content, str):
            continue
        if not isinstance(content, Sequence):
            raise TypeError(
                f"messages[{i}]['content'] must be a string or a list of parts, "
                f"got {content!r}"
            )
        for part in content:
            _check_part(part, f"messages[{i}]")
    if not _text(chat[-1]["content"]).strip():
        raise ValueError(f"the prompt is empty: messages[{len(chat) - 1}] has no text")


def pictures_in(chat: Chat) -> list[Any]:
    """The pictures of a chat, in order.

    Args:
      chat: The messages.

    Returns:
      What stands under ``image``.

    Examples:
      >>> pictures_in(question("which is red?", ["first", "second"]))
      ['first', 'second']
    """
    return [
        part["image"]
        for message in chat
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part["type"] == "image"
    ]


def render(chat: Chat, form: ChatFormat, *, generate: bool = True) -> str:
    """A chat as the text a model reads.

    Contents are given to the template in the form it understands: some know strings
    only, some lists of parts only. Which, is found by giving it both.

    Args:
      chat: The messages.
      form: The format.
      generate: Whether to end with what makes the model answer.

    Returns:
      The text, with one image token for each picture.

    Raises:
      TypeError: As `check_chat`.
      ValueError: As `check_chat`, or if the template fails; its words are repeated.

    Examples:
      >>> chat = question("what is it?", ["a picture"])
      >>> form = ChatFormat(image_text="<image>\\n")
      >>> print(render(chat, form, generate=False), end="")
      <|im_start|>user
      <image>
      what is it?<|im_end|>
      >>> render(chat, ChatFormat(template="{{ messages[0].content }}",
      ...                         image_text="<image> "))
      '<image> what is it?'
    """
    check_chat(chat)
    strings, parts = _understood(form)
    messages = []
    for message in chat:
        content = message["content"]
        if isinstance(content, str) and not strings:
            content = [{"type": "text", "text": content}]
        elif not isinstance(content, str) and parts:
            content = [{k: v for k, v in p.items() if k != "image"} for p in content]
        elif not isinstance(content, str):
            content = "".join(p.get("text", form.image_text) for p in content)
        messages.append({**message, "content": content})
    return _run(form, messages, generate)


def end_of_answer(form: ChatFormat) -> str:
    """What the template writes after an answer: the end of the turn.

    Args:
      form: The format.

    Returns:
      The text, empty if the template drops answers.

    Examples:
      >>> end_of_answer(ChatFormat())
      '<|im_end|>\\n'
    """
    strings, _ = _understood(form)
    answer: Any = _PROBE if strings else [{"type": "text", "text": _PROBE}]
    user = "?" if strings else [{"type": "text", "text": "?"}]
    chat = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    text = _run(form, chat, False)
    return text.rpartition(_PROBE)[2] if _PROBE in text else ""


_PROBE = "the words of the probe"


@functools.lru_cache(maxsize=64)
def _understood(form: ChatFormat) -> tuple[bool, bool]:
    """Whether the template understands strings, and lists of parts."""
    found = []
    for content in (_PROBE, [{"type": "text", "text": _PROBE}]):
        try:
            text = _run(form, [{"role": "user", "content": content}], False)
        except ValueError:
            text = ""
        # A template for strings prints a list as Python does.
        found.append(_PROBE in text and "'type'" not in text)
    strings, parts = found
    return strings or not parts, parts


def _run(form: ChatFormat, messages: list[Any], generate: bool) -> str:
    try:
        return compile_template(form.template).render(
            **{"tools": None, "documents": None, **dict(form.variables)},
            messages=messages,
            add_generation_prompt=generate,
            image_text=form.image_text,
        )
    except Exception as error:  # somebody else's program: it may fail in any way
        raise ValueError(f"the chat template failed: {error}") from error


def _check_part(part: Any, where: str) -> None:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "video":
        raise ValueError(f"{where} has a video: videos are not supported")
    if kind == "image" and part.get("image") is None:
        raise ValueError(f"{where} has an image part without a picture under 'image'")
    if kind not in ("image", "text") or kind == "text" and "text" not in part:
        raise ValueError(
            f"{where} has a part that is neither text nor an image: {part!r}"
        )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")
