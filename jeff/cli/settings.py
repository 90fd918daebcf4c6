"""``--preset NAME`` and ``--set field=value``: settings from text, by field type."""

import dataclasses
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal

from jeff.cli.errors import BadInput, nearest, one_line
from jeff.evaluate import Study

__all__ = ["assign", "choose", "parse_value"]


def choose(
    study: Study, preset: str | None, changes: Iterable[str], *, system: str
) -> tuple[str, Any]:
    """The settings of a run.

    Args:
      study: The study.
      preset: Name of a preset; ``None`` is the study's first.
      changes: Texts ``field=value``.
      system: The system's name, for error messages.

    Returns:
      Name of the preset and the settings.

    Raises:
      BadInput: If the preset or a field is unknown or a value does not fit.

    Examples:
      >>> from jeff.mbq.study import STUDY
      >>> name, settings = choose(STUDY, "full", ["weight_bits=4"], system="mbq")
      >>> name, settings.trials, settings.weight_bits
      ('full', 20, 4)
    """
    name = next(iter(study.presets)) if preset is None else preset
    if name not in study.presets:
        raise BadInput(
            f"argument --preset: {system} has no preset {name!r}; "
            f"{nearest(name, study.presets)}"
        )
    return name, assign(study.presets[name], changes, system=system)


def assign(settings: Any, changes: Iterable[str], *, system: str = "it") -> Any:
    """A frozen dataclass with fields replaced by values read from text.

    Understood field types: int, float, bool (true/false), str, ``Literal``, tuples
    (items separated by commas) and unions with ``None`` (the word none).

    Args:
      settings: The dataclass instance.
      changes: Texts ``field=value``.
      system: Whose settings these are, for error messages.

    Returns:
      A new instance, checked by its own ``__post_init__``.

    Raises:
      BadInput: If a text has no ``=``, a field is unknown, or a value does not fit.

    Examples:
      >>> import dataclasses
      >>> @dataclasses.dataclass(frozen=True, kw_only=True)
      ... class Settings:
      ...     bits: int = 4
      ...     rates: tuple[float, ...] = (0.1,)
      >>> assign(Settings(), ["bits=3", "rates=0.5,1e-3"])
      Settings(bits=3, rates=(0.5, 0.001))
    """
    kinds = typing.get_type_hints(type(settings))
    known = [f.name for f in dataclasses.fields(settings) if f.init]
    values = {}
    for change in changes:
        field, equals, text = change.partition("=")
        if not equals:
            raise BadInput(f"argument --set: {change!r} is not field=value")
        if field not in known:
            raise BadInput(
                f"argument --set: {system} has no field {field!r}; "
                f"{nearest(field, known)}"
            )
        try:
            values[field] = parse_value(text, kinds[field])
        except ValueError as error:
            raise BadInput(f"argument --set {change}: {error}") from error
    try:
        return dataclasses.replace(settings, **values)
    except (TypeError, ValueError) as error:
        raise BadInput(f"argument --set: {one_line(error)}") from error


def parse_value(text: str, kind: Any) -> Any:
    """The value of a type that a text spells.

    Args:
      text: What was typed.
      kind: A type that `assign` understands.

    Returns:
      The value.

    Raises:
      ValueError: If the text spells none, or the type is another.

    Examples:
      >>> parse_value("0.5, 1", tuple[float, ...]), parse_value("yes", bool)
      ((0.5, 1.0), True)
    """
    origin, parameters = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return parse_value(text, parameters[0])
    if origin is Literal:
        return _literal(text, parameters)
    if origin in (typing.Union, types.UnionType):
        return _union(text, parameters)
    if origin is tuple or kind is tuple:
        return _tuple(text, parameters or (str, ...))
    if kind is bool:
        return _boolean(text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            word = "an integer" if kind is int else "a number"
            raise ValueError(f"{text!r} is not {word}") from None
    if kind is str:
        return text
    name = getattr(kind, "__name__", str(kind))
    raise ValueError(f"fields of type {name} cannot be set from the command line")


def _literal(text: str, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if str(choice) == text:
            return choice
    raise ValueError(f"{text!r} is not one of {', '.join(map(str, choices))}")


def _union(text: str, kinds: tuple[Any, ...]) -> Any:
    if type(None) in kinds and text.lower() == "none":
        return None
    problems = []
    for kind in (k for k in kinds if k is not type(None)):
        try:
            return parse_value(text, kind)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError(" and ".join(problems))


def _tuple(text: str, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    items = [item.strip() for item in text.strip("()").split(",") if item.strip()]
    if kinds[-1] is Ellipsis:
        return tuple(parse_value(item, kinds[0]) for item in items)
    if len(items) != len(kinds):
        raise ValueError(f"{text!r} has {len(items)} items, needs {len(kinds)}")
    pairs = zip(items, kinds, strict=True)
    return tuple(parse_value(item, kind) for item, kind in pairs)


def _boolean(text: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False}
    words["0"] = False
    if text.lower() not in words:
        raise ValueError(f"{text!r} is not true or false")
    return words[text.lower()]
