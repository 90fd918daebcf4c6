"""The tables that docs/make_tables.py draws of benchmark records."""

import importlib.util

import pytest
from support import pages

pytestmark = pages.in_checkout


@pytest.fixture(scope="module")
def tables():
    path = pages.ROOT / "docs" / "make_tables.py"
    spec = importlib.util.spec_from_file_location("make_tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(*measures):
    rest = {"preset": "default", "device": "cpu x 1", "notes": ["a | b"]}
    return {"versions": {"jax": "0.10.2"}, "measures": list(measures), **rest}


def measure(name, value, low=None, high=None, *, unit="", paper=None):
    ends = {"low": low, "high": high}
    return {"name": name, "value": value, "unit": unit, "paper": paper, **ends}


def test_decoders(tables):
    text = tables.decoding(
        record(
            measure("ms_per_token.m_1of28.w3.b4", 20.0, 19.0, 22.0, unit="ms"),
            measure("tokens_per_second.m_1of28.w3.b4", 200.0),
            measure("ratio.dense.m_1of28.w3.b4", 2.0, 1.5, 2.5, paper=1.4),
            measure("prefill_ms.m_1of28.dense.n512", 7.0, unit="ms"),
            measure("weight_bytes.m_1of28.w3", 2e9),
        )
    )
    lines = text.splitlines()
    assert lines[2:4] == [
        "| m_1of28 | W3 | 4 at once | 20.00 ms [19.00, 22.00] | 200 | 2 GB "
        "| 2.00 [1.50, 2.50] | 1.4 |",
        "| m_1of28 | dense | 512 tokens | 7 ms |  |  |  |  |",
    ]
    assert "- a \\| b" in lines
    assert lines[-1] == "Made by `python benchmarks/decode.py` on cpu x 1 (jax 0.10.2)."


def test_products_of_integers(tables):
    text = tables.integers(
        record(
            measure("seconds.int8.8x8.channel.m1", 2e-3, unit="s"),
            measure("ratio.dense.8x8.channel.m1", 1.5, 1.0, 2.0),
        )
    )
    row = "| 8x8 | channel | 1 | 2 ms |  |  | 1.50 [1.00, 2.00] |"
    assert text.splitlines()[2] == row


def test_errors_beside_qwix(tables):
    text = tables.beside_qwix(
        record(
            measure("ratio.qwix.error.awq.m.zeros", 1.2, 1.1, 1.3),
            measure("error.jeff.awq.m.zeros", 0.1, 0.09, 0.11),
            measure("error.qwix.awq.m.zeros", 0.12, 0.11, 0.13),
            measure("ratio.qwix.seconds.awq.m.zeros", 0.5, 0.4, 0.6),
        )
    )
    assert text.splitlines()[2] == (
        "| awq | m | zeros | 10 % | 12 % | 1.20 [1.10, 1.30] | 0.50 [0.40, 0.60] |"
    )
