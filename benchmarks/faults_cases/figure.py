"""The figure of the benchmark: accuracy and changed answers against the fault rate."""

import io as streams
import pathlib
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from jeff import io
from jeff.evaluate import Measure

__all__ = ["write"]

_STYLE = {"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "faults"}
_PANELS = {
    "weights_int8": "flip probability per bit of an int8 weight",
    "features_mibb": "fault probability per multiplication (MiBB)",
}
_COLORS = {"accuracy": "tab:blue", "changed": "tab:red"}


def write(file: pathlib.Path, measures: Sequence[Measure]) -> None:
    """Draws both kinds of faults, each with its bands.

    Args:
      file: SVG to write.
      measures: From `accuracy_curves`.
    """
    clean = next(m.value for m in measures if m.name == "golden_accuracy")
    with matplotlib.rc_context(_STYLE):
        drawn = Figure(figsize=(7.2, 2.8), layout="constrained")
        for place, (kind, label) in zip(
            drawn.subplots(1, 2, sharey=True), _PANELS.items(), strict=True
        ):
            for name, color in _COLORS.items():
                found = [m for m in measures if m.name.startswith(f"{name}.{kind}.")]
                rates = [float(m.name.rpartition(f"{kind}.")[2]) for m in found]
                place.plot(rates, [m.value for m in found], "o-", color=color,
                           markersize=3, linewidth=1.2, label=name)  # fmt: skip
                lows = [m.value if m.low is None else m.low for m in found]
                highs = [m.value if m.high is None else m.high for m in found]
                place.fill_between(rates, lows, highs, color=color, alpha=0.2)
            place.axhline(clean, color="0.6", linewidth=0.8, label="without faults")
            place.set_xscale("log")
            place.set_xlabel(label)
            place.set_ylim(0.0, 1.0)
            place.spines[["top", "right"]].set_visible(False)
        drawn.axes[0].set_ylabel("share of the pictures")
        drawn.axes[0].legend(frameon=False)
        stream = streams.StringIO()
        drawn.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    io.write_atomically(file, stream.getvalue())
