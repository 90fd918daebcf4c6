"""Fields of another type are named, all at once."""

import pytest

from jeff.models.json_fields import check_fields, section


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("an int", [0, -3, None], [True, 1.0, "1", [1]]),
        ("a number", [1, 0.5], [True, "1", {}]),
        ("a bool", [True, False], [0, "false"]),
        ("a string", ["", "x"], [1, ["x"]]),
        ("a list of ints", [[], [1, 2], (1,)], [1, [1.0], [True], "12"]),
        ("a list of numbers", [[1, 0.5]], [["1"], 1]),
        ("a list of strings", [["a"]], ["a", [1]]),
        ("a list of pairs of ints", [[[1, 2]]], [[[1]], [1, 2], [[1, "2"]], 1]),
        ("an int or a list of ints", [1, [1, 2]], ["1", [None], 1.0]),
    ],
)
def test_kinds(kind, good, bad):
    for value in good:
        check_fields({"field": value}, {"field": kind})
    for value in bad:
        with pytest.raises(ValueError, match=f"field must be {kind}, got"):
            check_fields({"field": value}, {"field": kind})


def test_all_wrong_fields_are_named_with_where_they_stand():
    wrong = "text.a must be an int, got '1'; text.b must be a bool, got 0"
    with pytest.raises(ValueError, match=wrong):
        check_fields({"a": "1", "b": 0}, {"a": "an int", "b": "a bool"}, within="text")
    with pytest.raises(ValueError, match=r"a\.b must be an object, got \[\]"):
        section({"b": []}, "b", within="a")
