import dataclasses
from typing import Annotated, Literal, Optional

import pytest

from jeff.cli import BadInput
from jeff.cli.settings import assign


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    count: int = 1
    rate: float = 0.5
    exact: bool = False
    name: str = "a"
    mode: Literal["fast", 3] = "fast"
    limit: int | None = None
    label: Optional[str] = "x"  # noqa: UP045 - the older spelling is understood too
    rates: tuple[float, ...] = ()
    shape: tuple[int, int] = (1, 2)
    noted: Annotated[int, "a note"] = 0
    either: int | str = 0
    nested: dict = dataclasses.field(default_factory=dict)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("count=-3", -3),
        ("rate=1e-3", 1e-3),
        ("rate=2", 2.0),
        ("exact=true", True),
        ("exact=False", False),
        ("exact=0", False),
        ("name=b=c", "b=c"),
        ("name=", ""),
        ("mode=3", 3),
        ("limit=4", 4),
        ("limit=none", None),
        ("label=None", None),
        ("rates=0.1,0.2", (0.1, 0.2)),
        ("rates=(0.1, 0.2)", (0.1, 0.2)),
        ("rates=", ()),
        ("shape=3,4", (3, 4)),
        ("noted=5", 5),
        ("either=6", 6),
        ("either=six", "six"),
    ],
)
def test_values_by_field_type(text, value):
    field = text.partition("=")[0]
    found = getattr(assign(_Settings(), [text]), field)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count=1.5", "'1.5' is not an integer"),
        ("rate=fast", "'fast' is not a number"),
        ("exact=maybe", "'maybe' is not true or false"),
        ("mode=slow", "'slow' is not one of fast, 3"),
        ("limit=x", "'x' is not an integer"),
        ("rates=0.1,x", "'x' is not a number"),
        ("shape=1,2,3", "'1,2,3' has 3 items, needs 2"),
        ("nested=1", "fields of type dict cannot be set"),
    ],
)
def test_errors_name_field_and_value(text, message):
    with pytest.raises(BadInput) as caught:
        assign(_Settings(), [text])
    assert str(caught.value).startswith(f"argument --set {text}: ")
    assert message in str(caught.value)


def test_later_changes_win_and_the_original_stays():
    settings = _Settings()
    assert assign(settings, ["count=2", "count=3"]).count == 3
    assert settings.count == 1 and assign(settings, []) == settings
