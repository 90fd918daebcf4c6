import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jeff.evaluate import Figure, Measure, NoProgress, Outcome, Series, Study, Table


def test_scalars_become_python_numbers():
    measure = Measure(
        "a.b", jnp.float32(0.5), baseline=np.int64(3), trials=np.int32(4), low=0, high=1
    )
    kinds = {k: type(v) for k, v in dataclasses.asdict(measure).items()}
    assert kinds["value"] is float and kinds["baseline"] is int
    assert kinds["trials"] is int
    assert Measure("n", 3).value == 3 and type(Measure("n", 3).value) is int


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"value": float("nan")}, ValueError, "'m': value is not finite"),
        ({"value": 1.0, "baseline": float("inf")}, ValueError, "baseline is not"),
        ({"value": "high"}, TypeError, "value must be a number, not str"),
        ({"value": True}, TypeError, "not bool"),
        ({"value": 2.0, "low": 0.0, "high": 1.0}, ValueError, "low <= value <= high"),
        ({"value": 0.0, "low": 0.0}, ValueError, "together"),
        ({"value": 0.0, "trials": 0}, ValueError, "trials"),
        ({"value": 0.0, "trials": 1.5}, ValueError, "trials"),
        ({"value": 0.0, "name": ""}, ValueError, "name"),
    ],
)
def test_measure_refuses(fields, error, message):
    with pytest.raises(error, match=message):
        Measure(**{"name": "m", **fields})


def test_outcome_refuses_two_measures_of_one_name():
    with pytest.raises(ValueError, match="two entries named 'a'"):
        Outcome(measures=[Measure("a", 1), Measure("a", 2)])


def test_table_refuses_ragged_rows_and_other_cells():
    with pytest.raises(ValueError, match="row 0 has 1 cells for 2 columns"):
        Table(title="t", columns=["a", "b"], rows=[[1]])
    with pytest.raises(ValueError, match="not finite"):
        Table(title="t", columns=["a"], rows=[[np.inf]])
    with pytest.raises(TypeError, match="must be a number, not list"):
        Table(title="t", columns=["a"], rows=[[[]]])


def _figure(kind="lines", x=(1, 2), y=(3, 4), **fields):
    return Figure(
        kind=kind, title="t", x_label="", y_label="", series=[Series("s", x, y)],
        **fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _figure("pie"), "'pie'"),
        (lambda: _figure(y_scale="sqrt"), "'sqrt'"),
        (lambda: _figure(y=(3,)), "x has 2 entries, needs 1"),
        (lambda: _figure("histograms"), "x has 2 entries, needs 3"),
        (lambda: _figure("bars"), "named categories"),
        (lambda: _figure(x=("a", "b")), "must be numbers"),
        (lambda: _figure(y_scale="log", y=(0, 1)), "needs y > 0"),
        (lambda: _figure(x_scale="log", x=(0, 1)), "needs x > 0"),
        (lambda: _figure(x=(), y=()), "nothing to draw"),
        (lambda: _figure(y=(1, np.nan)), r"s.y\[1\] is not a finite"),
        (lambda: Series("s", [1], [1], low=[0]), "both low and high"),
    ],
)
def test_figure_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_figure_keeps_plain_numbers():
    series = _figure(x=jnp.arange(2), y=np.float32([0.5, 1.0])).series[0]
    assert series.x == (0, 1) and type(series.x[0]) is int
    assert series.y == (0.5, 1.0) and type(series.y[0]) is float


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    bits: int = 3


@dataclasses.dataclass
class _Thawed:
    bits: int = 3


def test_study_refuses_what_the_command_line_cannot_use():
    def run(settings, *, key_seed, progress):
        raise NotImplementedError

    with pytest.raises(ValueError, match="at least one"):
        Study(presets={}, run=run)
    with pytest.raises(TypeError, match="frozen dataclass, not _Thawed"):
        Study(presets={"a": _Thawed()}, run=run)
    with pytest.raises(TypeError, match="frozen dataclass, not dict"):
        Study(presets={"a": {}}, run=run)
    with pytest.raises(TypeError, match="one type"):
        Study(presets={"a": _Settings(), "b": 3}, run=run)
    assert Study(presets={"a": _Settings()}, run=run).presets["a"].bits == 3


def test_no_progress_is_silent(capsys):
    progress = NoProgress()
    progress.stage("x", 3)
    progress.advance()
    assert capsys.readouterr() == ("", "")
