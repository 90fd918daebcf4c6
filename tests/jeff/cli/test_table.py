import io

import pytest
import rich.console

from jeff.cli import System, table

_SYSTEM = System(name="demo", title="Demo", summary="", paper="", entry="")
_RECORD = {
    "measures": [
        {
            "name": "w4a8_loss_increase.smoothquant",
            "value": 0.0035183,
            "unit": "nats",
            "baseline": 0.0,
            "paper": "lower [than] AWQ",
            "low": -0.0011071,
            "high": 0.0081437,
            "trials": 5,
        }
    ],
    "notes": ["Held-out [questions]."],
}


def _printed(width):
    out = io.StringIO()
    console = rich.console.Console(file=out, width=width, highlight=False)
    table.print_measures([(_SYSTEM, _RECORD)], console)
    return out.getvalue()


def test_a_wide_terminal_shows_everything():
    text = _printed(140)
    for word in ("demo", "0.00352 nats", "[-0.00111, 0.00814]", "0 nats", "[than] AWQ"):
        assert word in text
    assert "No room" not in text and "Held-out [questions]." in text


@pytest.mark.parametrize(
    ("width", "left_out"),
    [
        (96, "paper's claim"),
        (88, "paper's claim, baseline"),
        (60, "paper's claim, baseline, 95 % interval"),
    ],
)
def test_a_narrow_terminal_leaves_columns_out_and_cuts_no_number(width, left_out):
    text = _printed(width)
    assert f"No room here, but in the report: {left_out}." in " ".join(text.split())
    assert "w4a8_loss_increase.smoothquant" in text and "0.00352 nats" in text
    assert "\u2026" not in text  # the sign of something cut
    assert ("[-0.00111, 0.00814]" in text) == ("interval" not in left_out)
    assert max(map(len, text.splitlines())) <= width
