"""The figures of the effect study: loss increase by method, a panel per setting."""

import io as streams
import pathlib
from collections.abc import Sequence

import matplotlib
import mbq_effect_methods as methods
from matplotlib.figure import Figure

from jeff import io
from jeff.evaluate import Measure

__all__ = ["write"]

_STYLE = {"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "mbq_effect"}


def write(
    file: pathlib.Path, model: str, measures: Sequence[Measure], settings: Sequence[str]
) -> None:
    """Draws a model's loss increases with their intervals.

    Args:
      file: SVG to write.
      model: Name of the model.
      measures: The record's measures.
      settings: Settings that were measured.
    """
    rows = {
        setting: [
            m
            for m in measures
            if m.name.startswith(f"{model}.{setting}.loss_increase.")
            and m.name.rpartition(".")[2] in methods.METHODS
        ]
        for setting in settings
    }
    with matplotlib.rc_context(_STYLE):
        columns = min(len(rows), 3)
        lines = -(-len(rows) // columns)
        drawn = Figure(figsize=(3.6 * columns, 2.6 * lines), layout="constrained")
        axes = drawn.subplots(lines, columns, squeeze=False).ravel()
        for place in axes[len(rows) :]:
            place.set_axis_off()
        for place, (setting, found) in zip(axes, rows.items(), strict=False):
            for height, m in enumerate(reversed(found)):
                low = m.value if m.low is None else m.low
                high = m.value if m.high is None else m.high
                name = m.name.rpartition(".")[2]
                color = "tab:red" if name.startswith("mbq") else "tab:blue"
                place.plot([low, high], [height, height], color=color, linewidth=1.5)
                place.plot([m.value], [height], "o", color=color, markersize=4)
            labels = [methods.METHODS[m.name.rpartition(".")[2]].label for m in found]
            place.set_yticks(range(len(found)), labels[::-1])
            place.axvline(0.0, color="0.6", linewidth=0.8)
            place.set_title(methods.SETTINGS[setting].label, fontsize=9)
            place.set_xlabel("loss increase (nats)")
            place.spines[["top", "right"]].set_visible(False)
        stream = streams.StringIO()
        drawn.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    io.write_atomically(file, stream.getvalue())
