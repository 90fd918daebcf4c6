import re
import xml.etree.ElementTree

import numpy as np
import pytest

from jeff.cli import plots
from jeff.cli.plots import svg
from jeff.evaluate import Figure, Series

_CASES = {
    "lines": [Series("a", [1, 2, 3], [1, 4, 9], [0.5, 3, 8], [2, 5, 10])],
    "lines_long": [Series("a", np.arange(500), np.arange(500) ** 0.5)],
    "one_point": [Series("a", [1], [2])],
    "scatter": [Series("a", [1, 2], [3, 4], [2, 3], [4, 5]), Series("b", [1], [1])],
    "bars": [
        Series("a", ["rtn", "mbq"], [-1, 2], [-2, 1], [0, 3]),
        Series("b", ["rtn", "mbq"], [0, 0]),
    ],
    "bars_many": [Series("a", [f"layers.{i}.attn" for i in range(12)], range(12))],
    "heatmap": [Series("a", [0, 1, 2], [0.1, 0, 0.5]), Series("b", [2, 1], [1, 0.2])],
    "histograms": [Series("a", [0, 1, 2], [5, 0]), Series("b", [0, 2, 4], [1, 1])],
}


@pytest.mark.parametrize("case", _CASES)
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_every_kind_gives_valid_svg_with_its_words(case, scale):
    kind = {"one_point": "lines"}.get(case, case.split("_")[0])
    series = _CASES[case]
    if scale == "log" and case in ("lines_long", "bars"):
        pytest.skip("holds zeros or negative values")
    figure = Figure(
        kind=kind, title="t", x_label="x <unit>", y_label="y & z", series=series,
        y_scale=scale,
    )  # fmt: skip
    text = svg(figure, name="case")
    root = xml.etree.ElementTree.fromstring(text)
    words = {e.text for e in root.iter() if e.text and e.text.strip()}
    assert {"x <unit>", "y & z"} <= words
    if len(series) > 1:
        assert {"a", "b"} <= words
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert ids and all(i.startswith("case-") for i in ids)
    assert "#0102" not in text and "var(--soft)" in text
    assert svg(figure, name="case") == text  # same figure, same bytes


def test_a_heat_map_has_a_cell_per_value_and_refuses_other_columns():
    def drawn(x, rows):
        series = [Series(f"r{i}", x, [0.5] * len(x)) for i in range(rows)]
        return Figure(kind="heatmap", title="t", x_label="", y_label="", series=series)

    text = svg(drawn([3, 5], 30), name="n")
    box = xml.etree.ElementTree.fromstring(text).get("viewBox").split()
    assert float(box[3]) > 400  # as high as its rows need
    with pytest.raises(ValueError, match="columns must be different whole numbers"):
        drawn([0.5], 1)
    with pytest.raises(ValueError, match="columns must be different whole numbers"):
        drawn([1, 1], 1)


def test_bars_have_their_heights():
    figure = Figure(
        kind="bars", title="t", x_label="x", y_label="y",
        series=[Series("a", ["p", "q"], [1.0, 3.0])],
    )  # fmt: skip
    root = xml.etree.ElementTree.fromstring(svg(figure, name="n"))
    heights = []
    for path in root.iter("{http://www.w3.org/2000/svg}path"):
        if "fill: #3566e0" in (path.get("style") or ""):
            ys = [float(v) for v in path.get("d").replace("z", "").split()[2::3]]
            heights.append(max(ys) - min(ys))
    assert len(heights) == 2 and heights[1] == pytest.approx(3 * heights[0], rel=1e-4)


@pytest.mark.parametrize(("low", "bottom"), [(0.1, 0.0), (-0.5, -0.5)])
def test_an_interval_below_zero_is_inside_the_axes(monkeypatch, low, bottom):
    limits = []
    tidy = plots._tidy

    def spy(axes, figure):
        tidy(axes, figure)
        limits.append(axes.get_ylim()[0])

    monkeypatch.setattr(plots, "_tidy", spy)
    series = [Series("a", ["p", "q"], [1.0, 2.0], [low, 1.0], [2.0, 3.0])]
    svg(Figure(kind="bars", title="t", x_label="", y_label="", series=series), name="n")
    assert limits[0] <= bottom and (low < 0 or limits[0] == 0)


def _extents(figure):
    """Rough horizontal extents of the words of a drawing, and its width, in points."""
    root = xml.etree.ElementTree.fromstring(svg(figure, name="n"))
    width = float(root.get("viewBox").split()[2])
    found = {}
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        place = re.search(r"translate\(([\d.]+) ", text.get("transform") or "")
        x = float(text.get("x") or (place.group(1) if place else 0))
        half = 5.5 * len(text.text or "") / 2
        anchored = "middle" in (text.get("style") or "")
        found[text.text] = (x - half, x + half) if anchored else (x, x + 2 * half)
    return found, width


def test_a_long_legend_is_broken_into_rows_that_fit():
    names = ["vision, output", "language, output", "vision, down", "language, down"]
    figure = Figure(
        kind="lines", title="t", x_label="x", y_label="y",
        series=[Series(name, [0, 1], [1, 2]) for name in names],
    )  # fmt: skip
    found, width = _extents(figure)
    assert all(0 <= found[name][0] and found[name][1] <= width for name in names)


def test_long_categories_are_broken_then_turned():
    def drawn(categories):
        series = [Series("a", categories, range(len(categories)))]
        figure = Figure(kind="bars", title="t", x_label="", y_label="", series=series)
        return svg(figure, name="n")

    def words(text):
        return {e.text for e in xml.etree.ElementTree.fromstring(text).iter()}

    short = drawn(["rtn", "awq", "two words"])
    assert "rotate(-35" not in short and "two words" in words(short)
    names = ("w3 rtn", "w3 awq", "w3 mbq", "w4a8 rtn", "w4a8 smoothquant", "w4a8 mbq")
    broken = drawn(names)
    assert "rotate(-35" not in broken and {"w4a8", "smoothquant"} <= words(broken)
    turned = drawn([f"layers.{i}.attention query" for i in range(4)])
    assert "rotate(-35" in turned and "layers.0.attention query" in words(turned)


def test_one_entry_is_seen_on_a_logarithmic_axis():
    series = [Series("a", [0, 1, 2], [1, 100])]
    figure = Figure(
        kind="histograms", title="t", x_label="", y_label="", y_scale="log",
        series=series,
    )  # fmt: skip
    root = xml.etree.ElementTree.fromstring(svg(figure, name="n"))
    outline = next(
        p.get("d")
        for p in root.iter("{http://www.w3.org/2000/svg}path")
        if "fill: none; stroke: #3566e0" in (p.get("style") or "")
    )
    ys = sorted({float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", outline)})
    assert len(ys) >= 3 and ys[-1] - ys[-2] > 5  # points above the bottom of the axis
