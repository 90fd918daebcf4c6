import dataclasses
import io

import pytest
import rich.console

from jeff.cli import bench_decode
from jeff.io import read_result
from jeff.models import decode_bench
from jeff.models.decode_bench import workload
from pallas_kernels import timing


@pytest.fixture
def tiny(monkeypatch):
    """The smallest preset, with one layer and the weights that compile fastest."""
    toy = dataclasses.replace(workload.DECODERS["toy"], layers=1)
    smoke = dataclasses.replace(
        workload.PRESETS["smoke"], decoders=(("toy", toy),), weights=("w4a8",)
    )
    monkeypatch.setitem(workload.PRESETS, "smoke", smoke)


def test_checks_times_and_writes_record_plot_and_report(cli, tiny, tmp_path):
    code, out, err = cli("bench", "decode", "--preset", "smoke", "--out", "o")
    assert code == 0
    assert "GPU: not measured here." in out and "2 at once" in out
    assert err.count("toy w4a8: scores differ from decoded weights by") == 1
    record = read_result(tmp_path / "o" / "decode")
    found = {m["name"]: m for m in record["measures"]}
    for case in ("dense.b2", "w4a8.b2"):
        milliseconds = found[f"ms_per_token.toy.{case}"]
        rate = found[f"tokens_per_second.toy.{case}"]
        assert milliseconds["low"] <= milliseconds["value"] <= milliseconds["high"]
        assert rate["value"] == pytest.approx(2e3 / milliseconds["value"])
        assert found[f"compile_seconds.toy.{case}"]["value"] > 0
    assert found["prefill_ms.toy.w4a8.n8"]["trials"] == 3
    assert found["error.toy.w4a8"]["value"] < 2e-2
    # The program holds its arguments: the cache of 16 slots beside the weights.
    weights = found["weight_bytes.toy.w4a8"]["value"]
    cache = 2 * 4 * 1 * 2 * 16 * 1 * 16
    assert found["peak_bytes.toy.w4a8.b2"]["value"] > weights + cache
    assert found["weight_bytes.toy.dense"]["value"] > 2 * weights
    drawing = (tmp_path / "o" / "decode" / "times.svg").read_text()
    assert drawing.startswith("<svg")
    assert "Time per decoded token" in (tmp_path / "o" / "index.html").read_text()


def report(*rows):
    stream = timing.spread([1e6])
    settings = workload.PRESETS["smoke"]
    return decode_bench.Report(settings, rows, stream, 1, "cpu", "float32", 1.0)


def row(weights, samples, **changes):
    found = decode_bench.Row("llava_onevision_7b", "decode", weights, 1, "measured")
    found = found._replace(nbytes=100, compile_seconds=1.0, peak=7)
    if samples:
        found = found._replace(seconds=timing.spread(samples), samples=samples)
    return found._replace(**changes)


def test_the_paper_stands_beside_its_own_model_only():
    pair = row("dense", (4.0, 6.0)), row("w3", (2.0, 2.0), error=1e-6)
    parts = [r._replace(model="llava_onevision_7b_1of28") for r in pair]
    record = decode_bench.record(
        report(*pair, *parts), preset="smoke", seed=0, versions={}, device="cpu x 1"
    )
    found = {m["name"]: m for m in record["measures"]}
    whole = found["ms_per_token.llava_onevision_7b.w3.b1"]
    assert (whole["value"], whole["paper"]) == (2000.0, 21.1)
    assert whole["baseline"] == pytest.approx(0.1)  # 100 bytes at 1 MB/s
    ratio = found["ratio.dense.llava_onevision_7b.w3.b1"]
    assert (ratio["value"], ratio["low"], ratio["high"]) == (2.5, 2.0, 3.0)
    assert ratio["paper"] == 1.4  # 29.6 / 21.1
    part = found["ms_per_token.llava_onevision_7b_1of28.w3.b1"]
    assert part["paper"] is None
    assert found["ratio.dense.llava_onevision_7b_1of28.w3.b1"]["paper"] == 1.4
    assert record["settings"]["status"] == "measured"


def test_what_is_wrong_is_said_and_not_timed():
    wrong = row("w3", (), status="wrong", error=0.5)
    record = decode_bench.record(
        report(row("dense", (4.0,)), wrong),
        preset="smoke", seed=0, versions={}, device="cpu x 1",
    )  # fmt: skip
    names = [m["name"] for m in record["measures"]]
    assert not any(n.startswith("ms_per_token") and ".w3." in n for n in names)
    assert record["settings"]["status"] == "incomplete"
    assert any("is wrong, not timed" in note for note in record["notes"])
    out = io.StringIO()
    console = rich.console.Console(file=out, width=200)
    bench_decode.print_report(report(row("dense", (4.0,)), wrong), console)
    (line,) = [line for line in out.getvalue().splitlines() if " w3  " in line]
    assert "wrong" in line and "5.0e-01" in line


def test_the_plot_has_a_line_per_kind_of_weights():
    rows = row("dense", (4.0,)), row("w3", (2.0,)), row("w3", (3.0,), size=4)
    figure = bench_decode.times(report(*rows))
    assert [s.name.split()[1] for s in figure.series] == ["dense", "w3"]
    assert figure.series[1].x == (1, 4) and figure.series[1].y == (2000.0, 3000.0)
    assert bench_decode.times(report()) is None
