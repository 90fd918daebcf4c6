"""How a checkpoint writes chats: the template and special tokens of its folder."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from jeff.io.checkpoint import read_json
from jeff.models.chat.template import compile_template

__all__ = ["CHATML", "ChatFormat", "chat_format"]

CHATML = """\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string %}
{{ message['content'] }}
{%- else %}
{%- for part in message['content'] %}
{%- if part['type'] == 'image' %}
{{ image_text }}
{%- else %}
{{ part['text'] }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
"""What stands in for the template of a checkpoint that has none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """How chats become text.

    Attributes:
      template: A Jinja program over ``messages`` and ``add_generation_prompt``.
      image_text: What stands for a picture where the template has no word for it: in
        ChatML, and in templates that know strings only.
      variables: Further names and texts that the template may use, such as
        ``bos_token``.

    Raises:
      ValueError: If the template is no Jinja program.

    Examples:
      >>> ChatFormat(template="{% nothing %}")
      Traceback (most recent call last):
        ...
      ValueError: the chat template is broken in line 1: unknown tag 'nothing'
    """

    template: str = CHATML
    image_text: str = ""
    variables: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Compiles the template, so that a broken one is told now."""
        compile_template(self.template)


def chat_format(folder: str | os.PathLike[str], *, image_text: str = "") -> ChatFormat:
    """The format of a checkpoint's folder.

    Args:
      folder: Read are ``chat_template.jinja``, else ``chat_template.json``, else
        ``tokenizer_config.json``; ChatML if none has a template.
      image_text: As in `ChatFormat`.

    Returns:
      The format, with the special tokens of ``tokenizer_config.json`` as variables.

    Raises:
      ValueError: If a file is no JSON object or a template no Jinja program.
    """
    place = pathlib.Path(folder)
    config = _json(place / "tokenizer_config.json")
    variables = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            value = value.get("content")
        if name.endswith("_token") and isinstance(value, str):
            variables[name] = value
    jinja = place / "chat_template.jinja"
    if jinja.exists():
        found = jinja.read_text(encoding="utf-8")
    else:
        found = _json(place / "chat_template.json").get("chat_template")
        found = found or config.get("chat_template")
    if isinstance(found, list):  # several, each with a name
        named = {entry["name"]: entry["template"] for entry in found}
        found = named.get("default", next(iter(named.values()), None))
    return ChatFormat(
        template=found or CHATML,
        image_text=image_text,
        variables=tuple(sorted(variables.items())),
    )


def _json(file: pathlib.Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}
