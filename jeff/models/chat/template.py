"""Compiling chat templates: Jinja in its sandbox, with what templates expect of it."""

import datetime
import functools
import json
from typing import Any

__all__ = ["compile_template"]


@functools.lru_cache(maxsize=16)
def compile_template(source: str) -> Any:
    """A template, compiled once.

    Beside Jinja itself, published templates use ``raise_exception(words)``,
    ``strftime_now(format)``, ``tojson`` without HTML escapes, ``break`` and
    ``continue``, and ``generation`` blocks (which mark answers, and print their body).

    Args:
      source: The Jinja program.

    Returns:
      A `jinja2.Template` of an immutable sandbox.

    Raises:
      ValueError: If it is no Jinja program; the line is named.

    Examples:
      >>> answer = "{% generation %}{{ x | tojson }}{% endgeneration %}"
      >>> compile_template(answer).render(x={"a": "<b>"})
      '{"a": "<b>"}'
      >>> compile_template("{% nothing %}")
      Traceback (most recent call last):
        ...
      ValueError: the chat template is broken in line 1: unknown tag 'nothing'
    """
    import jinja2
    import jinja2.ext
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _now
    try:
        return environment.from_string(source)
    except (jinja2.TemplateSyntaxError, SyntaxError) as error:
        words = getattr(error, "message", None) or getattr(error, "msg", "")
        words = words.removeprefix("Encountered ").rstrip(".")
        raise ValueError(
            f"the chat template is broken in line {error.lineno}: {words}"
        ) from None


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(words: str) -> None:
    import jinja2

    raise jinja2.TemplateError(words)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
