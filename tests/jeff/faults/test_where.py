import pytest

from jeff.faults import where

ITEMS = {"layers.0.up": 1, "layers.0.down": 2, "head": 3}


def test_patterns_predicates_and_names_choose():
    def choose(w):
        return where.chosen(w, ITEMS, lambda name, item: item != 3, "leaf")

    assert choose(None) == ["layers.0.up", "layers.0.down"]
    assert choose(r"up$|head") == ["layers.0.up", "head"]
    assert choose(lambda name, item: item == 2) == ["layers.0.down"]
    assert choose(["head"]) == ["head"] == choose(("head",))


@pytest.mark.parametrize(
    ("w", "error", "message"),
    [
        (["layers.0.upp"], ValueError, "no leaf; nearest: layers.0.up"),
        ("layers.0.upp", ValueError, "chooses no leaf; nearest: layers.0.up"),
        (
            lambda name, item: False,
            ValueError,
            "chooses no leaf; there are layers.0.up",
        ),
        ("(", ValueError, r"where='\(' is no pattern"),
        (3, TypeError, "where must be a pattern"),
        ([3], TypeError, "where must be a pattern"),
    ],
)
def test_what_matches_nothing_is_refused(w, error, message):
    with pytest.raises(error, match=message):
        where.chosen(w, ITEMS, lambda name, item: True, "leaf")
