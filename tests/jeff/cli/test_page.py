import html.parser
import re

import pytest

from jeff.cli.page import _rows

_VOID = {"meta", "br", "hr", "img", "link", "input"}


class _Nesting(html.parser.HTMLParser):
    """Checks that tags close in order, and collects ids and outside references."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.outside = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in _VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href") and tag != "a" and not value.startswith("#"):
                self.outside.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def page(cli, tmp_path):
    """Text of the report of one demonstration run."""
    assert cli("run", "demo")[0] == 0
    return (tmp_path / "jeff-out/index.html").read_text()


def test_is_well_formed_self_contained_and_complete(page):
    parser = _Nesting()
    parser.feed(page)
    assert parser.open == [] and parser.outside == []
    assert len(parser.ids) == len(set(parser.ids))  # also between the four plots
    assert "@import" not in page and "<script" not in page
    assert page.count("<svg") == 4
    for word in (
        "Stands in for a real system.",
        "https://arxiv.org/abs/2412.19509",
        "lower than AWQ (table 2)",
        "Held-out questions",
        "loss increase (nats)",
        "Is not built yet.",
        "layers.0.attn.q",
        "methods",
        "jaxlib",
    ):
        assert word in page


def test_rebuilding_gives_the_same_bytes(cli, tmp_path, page):
    code, out, _ = cli("report", "jeff-out")
    assert (code, out) == (0, "report: jeff-out/index.html\n")
    assert (tmp_path / "jeff-out/index.html").read_text() == page


def test_words_from_records_are_escaped(cli, tmp_path):
    cli("run", "demo", "--set", "label=<b>&")
    assert "&lt;b&gt;&amp;" in (tmp_path / "jeff-out/index.html").read_text()


def test_plots_of_another_run_are_left_out(cli, tmp_path, page):
    result = tmp_path / "jeff-out/demo/result.json"
    result.write_text(result.read_text().replace('"seed": 0', '"seed": 1'))
    assert cli("report", "jeff-out")[0] == 0
    text = (tmp_path / "jeff-out/index.html").read_text()
    assert "belong to another run" in text and "<svg" not in text


def test_a_corrupt_file_stops_report_but_not_a_run(cli, tmp_path, page):
    broken = tmp_path / "jeff-out/other"
    broken.mkdir()
    (broken / "result.json").write_text('{"format": 1, "sys')
    code, out, err = cli("report", "jeff-out")
    assert (code, out) == (2, "")
    assert err.startswith("jeff: error: jeff-out/other/result.json: corrupt or cut")
    assert (tmp_path / "jeff-out/index.html").read_text() == page
    code, _, err = cli("run", "demo")
    assert code == 0
    assert "left out of the report: jeff-out/other/result.json: corrupt" in err


def test_report_of_nothing(cli, tmp_path):
    assert "no folder 'absent'" in cli("report", "absent")[2]
    code, _, err = cli("report", tmp_path)
    assert code == 2 and "no results in" in err and list(tmp_path.iterdir()) == []


def test_marks_lie_in_order_on_one_scale():
    def measure(name, value, low=None, high=None, unit="nats"):
        return {
            "name": name, "value": value, "unit": unit, "baseline": None, "paper": None,
            "low": low, "high": high, "trials": None,
        }  # fmt: skip

    a, b = _rows([measure("m.a", 1.0, 0.0, 3.0), measure("m.b", 2.0)])
    assert a["at"]["low"] == 4 and a["at"]["high"] == 96
    assert a["at"]["value"] == pytest.approx(4 + 92 / 3, abs=0.01)
    assert b["at"]["low"] is None and b["label"] == "b"
    mixed = _rows([measure("m.a", 1.0), measure("m.b", 2.0, unit="J")])
    assert all(row["at"]["value"] is None for row in mixed)  # nothing to compare


def test_no_absolute_path_of_this_machine_in_the_page(page, tmp_path):
    assert str(tmp_path) not in page and not re.search(r"/home/|/root/", page)
