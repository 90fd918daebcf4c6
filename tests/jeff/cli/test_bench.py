import dataclasses
import json

import pytest

from jeff.cli import bench_dequant_matmul
from jeff.io import read_result
from pallas_kernels import timing
from pallas_kernels.dequant_matmul import bench, workload

SMOKE = ("bench", "dequant-matmul", "--preset", "smoke", "--rows", "1", "--out", "o")


@pytest.fixture
def tiny(monkeypatch):
    """The smallest preset, smaller still."""
    smoke = dataclasses.replace(
        workload.PRESETS["smoke"], shapes=((128, 32),), stream_bytes=2**16
    )
    monkeypatch.setitem(workload.PRESETS, "smoke", smoke)


def test_prints_a_table_and_writes_record_plot_and_report(cli, tiny, tmp_path):
    code, out, err = cli(*SMOKE)
    assert code == 0
    assert "128x32.w3.m1" in out and "decode_first" in out and "dense" in out
    assert out.count("GPU: not measured here.") == 1
    assert "error of |x||W|" in err  # correctness comes before time
    record = read_result(tmp_path / "o" / "dequant_matmul")
    assert record["system"] == "dequant_matmul" and record["settings"]["rows"] == [1]
    drawing = (tmp_path / "o" / "dequant_matmul" / "roofline.svg").read_text()
    assert drawing.startswith("<svg") and "<style>svg{--ink:" in drawing
    page = (tmp_path / "o" / "index.html").read_text()
    assert "time / bytes floor" in page
    assert cli("report", "o")[0] == 0


def test_json_is_the_record_and_nothing_else(cli, tiny, tmp_path):
    code, out, err = cli(*SMOKE, "--json", "--seed", "3")
    assert code == 0 and "report: " in err
    assert json.loads(out) == read_result(tmp_path / "o" / "dequant_matmul")
    assert json.loads(out)["seed"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dequant-matmull",), "argument OP: unknown operation 'dequant-matmull'"),
        (("decode", "--bits", "5"), "argument --bits: weights must be of dense, w2"),
        (("decode", "--rows", "0"), "argument --rows: batches must be positive, got"),
        (("decode", "--tune", "t"), "argument --tune: decode has no settings to"),
        (("dequant-matmul", "--preset", "smal"), "did you mean 'small'?"),
        (("dequant-matmul", "--bits", "3", "5"), "argument --bits: bits must be of"),
        (("dequant-matmul", "--rows", "0"), "argument --rows: rows must be positive"),
        (("dequant-matmul", "--rows", "x"), "argument --rows: "),
        (("dequant-matmul", "--seed", "-1"), "argument --seed: must be in"),
        (("dequant-matmul", "--tune", "t"), "argument --tune: the kernel that is"),
    ],
)
def test_bad_arguments_are_one_line(cli, tmp_path, words, message):
    code, out, err = cli("bench", *words)
    assert code == 2 and out == ""
    assert message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_said_first(cli, tmp_path):
    (tmp_path / "o").write_text("a file")
    code, out, err = cli(*SMOKE)
    assert code == 2 and out == "" and "argument --out: cannot write to" in err
    assert err.count("\n") == 1


def test_a_failure_is_one_line_and_leaves_nothing(cli, tmp_path, monkeypatch):
    def breaks(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr(bench, "run", breaks)
    code, out, err = cli(*SMOKE)
    assert code == 1 and out == ""
    assert (
        err.splitlines()[-1] == "jeff: error: dequant-matmul: RuntimeError: no memory"
    )
    assert not list(tmp_path.iterdir())


def _report(status, samples):
    case = workload.Case(64, 8, 3, 2)
    seconds = timing.spread(samples) if samples else None
    own = bench.Row(case, "xla", status, 0.5, seconds, 3, 100, samples)
    stream = timing.spread([100.0])
    settings = workload.PRESETS["smoke"]
    return bench.Report(settings, (own,), stream, 1, "cpu", "float32", 1.0, {})


def test_the_plot_is_time_over_the_bytes_floor():
    figure = bench_dequant_matmul.roofline(_report("measured", (2.0, 3.0, 5.0)))
    (line,) = figure.series
    assert line.name == "64x8 W3 xla" and line.x == (2,)
    assert (line.y, line.low, line.high) == ((3.0,), (2.5,), (4.0,))


def test_a_wrong_implementation_fails_the_command(cli, monkeypatch):
    monkeypatch.setattr(bench, "run", lambda *_, **__: _report("wrong", ()))
    code, out, _ = cli(*SMOKE)
    assert code == 1 and "xla is wrong, not timed: error 5.0e-01" in out
