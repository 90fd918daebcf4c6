import pytest

from jeff.cli import bench_draw_matmul
from jeff.io import read_result
from pallas_kernels import timing
from pallas_kernels.draw_matmul import bench, workload

CASE = workload.Case(784, 200, 100)
SMOKE = ("bench", "draw-matmul", "--preset", "smoke", "--out", "o")


def row(name, *samples, status="measured", error=1e-8):
    found = bench.Row(CASE, name, status, error)
    if samples:
        found = found._replace(seconds=timing.spread(samples), samples=samples)
    return found


def report(*rows):
    draws = row("words", 1.0, error=None), row("normals", 1.5, error=None)
    return bench.Report(workload.PRESETS["smoke"], (*rows, *draws), "cpu", 1.0)


@pytest.fixture
def found(monkeypatch):
    """Sets what the benchmark finds."""

    def sets(*rows):
        monkeypatch.setattr(bench, "run", lambda *_, **__: report(*rows))

    return sets


def test_prints_a_table_and_writes_record_plot_and_report(cli, found, tmp_path):
    found(row("xla", 2.0), row("reference", 4.0))
    code, out, _ = cli(*SMOKE)
    assert code == 0
    assert "784x200.t100" in out and "7.84e+06" in out  # draws per second of xla
    assert "50%" in out and "75%" in out and "25%" in out
    assert out.count("GPU: not measured here.") == 1
    record = read_result(tmp_path / "o" / "draw_matmul")
    values = {m["name"]: m["value"] for m in record["measures"]}
    assert values["words_share.xla.784x200.t100"] == 0.5
    drawing = (tmp_path / "o" / "draw_matmul" / "shares.svg").read_text()
    assert drawing.startswith("<svg")
    assert "throughput of random words" in (tmp_path / "o" / "index.html").read_text()


def test_a_wrong_implementation_fails_the_command(cli, found):
    found(row("xla", status="wrong", error=0.5))
    code, out, _ = cli(*SMOKE)
    assert code == 1 and "xla is wrong, not timed: relative error 5.0e-01" in out


def test_the_plot_is_the_share_of_the_words_by_draws():
    figure = bench_draw_matmul.shares(report(row("xla", 2.0)))
    (line,) = figure.series
    assert line.name == "xla" and line.x == (CASE.draws,) and line.y == (0.5,)
    assert bench_draw_matmul.shares(report(row("xla", status="wrong"))) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--bits", "3"), "argument --bits: draw-matmul has one row and no codes"),
        (("--rows", "2"), "argument --rows: draw-matmul has one row and no codes"),
        (("--tune", "t"), "argument --tune: draw-matmul has no settings to search"),
        (("--preset", "smal"), "did you mean 'small'?"),
    ],
)
def test_bad_arguments_are_one_line(cli, tmp_path, words, message):
    code, out, err = cli("bench", "draw-matmul", *words)
    assert code == 2 and out == ""
    assert message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
