"""Chats as text: a checkpoint's own template, or ChatML, and then tokens.

A chat is a list of messages ``{"role": ..., "content": ...}``; a content is a string,
or a list of parts ``{"type": "text", "text": ...}`` and ``{"type": "image", "image":
picture}``. Templates are Jinja programs that come with a checkpoint; they run in
Jinja's sandbox, which lets them reach nothing but the messages.
"""

from jeff.models.chat.format import CHATML, ChatFormat, chat_format
from jeff.models.chat.text import (
    check_chat,
    end_of_answer,
    pictures_in,
    question,
    render,
)

__all__ = [
    "CHATML",
    "ChatFormat",
    "chat_format",
    "check_chat",
    "end_of_answer",
    "pictures_in",
    "question",
    "render",
]
