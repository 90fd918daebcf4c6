"""Figures drawn as SVG text that takes its inks from the page's style sheet."""

import io
import itertools
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.axes
import matplotlib.colors
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from jeff.evaluate import Figure, Series

__all__ = ["svg"]

# Distinct in hue and in lightness, also for the color-blind (after Okabe and Ito).
_PALETTE = (
    "#3566e0",
    "#e8743b",
    "#15a38b",
    "#b5479d",
    "#8a94a6",
    "#d3a518",
    "#56b4e9",
    "#7a5ad6",
)

# Colors that stand for a variable of the page, so that a dark page has light axes.
_INK, _SOFT, _GRID = "#010203", "#040506", "#070809"
_VARIABLES = {_INK: "var(--ink)", _SOFT: "var(--soft)", _GRID: "var(--line)"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, sharp, in the page's font
    "svg.hashsalt": "jeff",  # the same figure gives the same bytes
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _SOFT,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _SOFT,
    "ytick.labelcolor": _SOFT,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 2.0,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "figure.facecolor": "none",
}


def svg(figure: Figure, *, name: str) -> str:
    """Draws a figure.

    Args:
      figure: What to draw.
      name: Unique on the page; keeps the ids inside two drawings apart.

    Returns:
      An ``<svg>`` element, without XML prologue.

    Examples:
      >>> from jeff.evaluate import Series
      >>> line = Series("loss", [0, 1, 2], [3.0, 2.0, 1.5])
      >>> text = svg(
      ...     Figure(kind="lines", title="t", x_label="step", y_label="loss (nats)",
      ...            series=[line]),
      ...     name="demo",
      ... )
      >>> text.startswith("<svg"), "loss (nats)" in text
      (True, True)
    """
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE}):
        canvas = matplotlib.figure.Figure(figsize=_size(figure), layout="constrained")
        axes = canvas.add_subplot()
        _DRAW[figure.kind](axes, figure)
        axes.set_xlabel(figure.x_label)
        if figure.kind != "heatmap":
            axes.set_ylabel(figure.y_label)
            axes.set_yscale(figure.y_scale)
            if figure.kind != "bars":
                axes.set_xscale(figure.x_scale)
            _tidy(axes, figure)
        out = io.StringIO()
        canvas.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return _embeddable(out.getvalue(), name)


def _lines(axes: matplotlib.axes.Axes, figure: Figure) -> None:
    for i, s in enumerate(figure.series):
        color = _PALETTE[i % len(_PALETTE)]
        marker = "o" if len(s.x) <= 40 else ""
        axes.plot(s.x, s.y, color=color, marker=marker, label=s.name)
        if s.low is not None and s.high is not None:
            axes.fill_between(s.x, s.low, s.high, color=color, alpha=0.15, linewidth=0)


def _scatter(axes: matplotlib.axes.Axes, figure: Figure) -> None:
    for i, s in enumerate(figure.series):
        color = _PALETTE[i % len(_PALETTE)]
        axes.scatter(s.x, s.y, s=22, color=color, alpha=0.75, linewidth=0, label=s.name)
        if s.low is not None and s.high is not None:
            axes.errorbar(
                s.x, s.y, yerr=_errors(s), fmt="none", ecolor=color, alpha=0.6
            )


def _bars(axes: matplotlib.axes.Axes, figure: Figure) -> None:
    categories = figure.series[0].x
    place = np.arange(len(categories))
    width = 0.8 / len(figure.series)
    for i, s in enumerate(figure.series):
        at = place + (i - (len(figure.series) - 1) / 2) * width
        axes.bar(at, s.y, 0.92 * width, color=_PALETTE[i % len(_PALETTE)], label=s.name)
        if s.low is not None and s.high is not None:
            axes.errorbar(
                at, s.y, yerr=_errors(s), fmt="none", ecolor=_INK, capsize=3, lw=1.2
            )
    # Labels side by side have the width of the plot, about 58 letters; two words of a
    # label go one below the other before labels are turned.
    labels = list(categories)
    if _crowded(labels):
        labels = [label.replace(" ", "\n", 1) for label in labels]
    crowded = _crowded(labels)
    axes.set_xticks(
        place,
        categories if crowded else labels,
        rotation=35 if crowded else 0,
        ha="right" if crowded else "center",
    )
    axes.grid(axis="x", visible=False)


def _crowded(labels: Sequence[str]) -> bool:
    """Whether two neighbors would touch."""
    widths = [max(map(len, label.split("\n"))) for label in labels]
    pairs = [(a + b) / 2 + 1 for a, b in itertools.pairwise(widths)]
    return max(pairs, default=widths[0]) * len(labels) > 58


def _histograms(axes: matplotlib.axes.Axes, figure: Figure) -> None:
    for i, s in enumerate(figure.series):
        color = _PALETTE[i % len(_PALETTE)]
        axes.stairs(s.y, s.x, color=color, fill=True, alpha=0.28)
        axes.stairs(s.y, s.x, color=color, linewidth=1.6, label=s.name)
    axes.grid(axis="x", visible=False)


def _heatmap(axes: matplotlib.axes.Axes, figure: Figure) -> None:
    first = int(min(min(s.x) for s in figure.series))
    width = int(max(max(s.x) for s in figure.series)) - first + 1
    cells = np.full((len(figure.series), width), np.nan)
    for row, s in zip(cells, figure.series, strict=True):
        row[np.array(s.x, int) - first] = s.y
    edges = np.arange(width + 1) + first - 0.5, np.arange(len(cells) + 1) - 0.5
    scale = matplotlib.colors.LogNorm() if figure.y_scale == "log" else None
    drawn = axes.pcolormesh(
        *edges, np.ma.masked_invalid(cells), cmap="cividis", norm=scale
    )
    axes.set_yticks(np.arange(len(cells)), [s.name for s in figure.series])
    axes.tick_params(axis="y", labelsize=7.5)
    axes.invert_yaxis()  # the first row on top
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.grid(visible=False)
    bar = axes.figure.colorbar(drawn, ax=axes, pad=0.02)
    bar.set_label(figure.y_label, color=_SOFT)
    bar.outline.set_visible(False)


_DRAW = {
    "lines": _lines,
    "bars": _bars,
    "histograms": _histograms,
    "scatter": _scatter,
    "heatmap": _heatmap,
}


def _size(figure: Figure) -> tuple[float, float]:
    """Width and height in inches; a heat map grows with its rows."""
    if figure.kind != "heatmap":
        return 5.4, 3.2
    return 5.4, max(2.0, 1.0 + 0.19 * len(figure.series))


def _errors(s: Series) -> np.ndarray:
    """Distances of the interval's ends from the values, ``[2, n]``."""
    return np.abs(np.array([s.low, s.high]) - np.array(s.y))


def _tidy(axes: matplotlib.axes.Axes, figure: Figure) -> None:
    if len(figure.series) > 1:
        longest = max(len(s.name) for s in figure.series)
        axes.figure.legend(
            *axes.get_legend_handles_labels(),
            loc="outside upper left",
            ncols=max(1, min(len(figure.series), 64 // (longest + 6))),
            handlelength=1.2,
            columnspacing=1.4,
        )
    axes.margins(y=0.08)
    if figure.kind in ("bars", "histograms") and figure.y_scale == "linear":
        # An interval that reaches below zero must be seen to do so.
        if all(min(s.y + (s.low or ())) >= 0 for s in figure.series):
            axes.set_ylim(bottom=0)
        else:
            axes.axhline(0, color=_SOFT, linewidth=1.0)
    if figure.kind == "histograms" and figure.y_scale == "log":
        axes.set_ylim(bottom=0.7)  # a bin with one entry is seen, an empty one is not
    if figure.kind == "lines" and figure.x_scale == "linear":
        if all(float(x).is_integer() for s in figure.series for x in s.x):
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))


def _embeddable(text: str, name: str) -> str:
    """The ``<svg>`` element alone, its ids made unique, inks made variables."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", text, count=1)
    for link in ('id="', "url(#", 'href="#'):
        text = text.replace(link, f"{link}{name}-")
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return text.strip()
