import json
import multiprocessing
import pathlib

import pytest

import jeff
from jeff.evaluate import Figure, Series, Table
from jeff.io import (
    Details,
    read_details,
    read_result,
    result_text,
    versions,
    write_result,
    write_run,
)


def _measure(**changes):
    fields = dict.fromkeys(["baseline", "paper", "low", "high", "trials"])
    return {"name": "accuracy.mbq", "value": 0.5, "unit": "fraction"} | fields | changes


def _record(**changes):
    return {
        "format": 1,
        "system": "mbq",
        "preset": "default",
        "seed": 3,
        "versions": {"jax": "0.10.2"},
        "device": "cpu x 1",
        "seconds": 1.5,
        "measures": [_measure()],
    } | changes


def test_fields_are_those_of_the_architecture_in_its_order(tmp_path):
    write_result(tmp_path, _record())
    stored = json.loads((tmp_path / "result.json").read_text())
    assert list(stored) == [
        "format", "system", "preset", "seed", "versions", "device", "seconds",
        "measures",
    ]  # fmt: skip
    assert list(stored["measures"][0]) == [
        "name", "value", "unit", "baseline", "paper", "low", "high", "trials",
    ]  # fmt: skip


def test_round_trip_keeps_every_digit(tmp_path):
    record = _record(
        measures=[_measure(value=0.1 + 0.2, paper="2.84x (abstract)")],
        settings={"bits": 3, "rates": [0.1]},
        notes=["µ and ≤ are kept"],
    )
    text = write_result(tmp_path, record)
    assert read_result(tmp_path) == record == read_result(tmp_path / "result.json")
    assert (tmp_path / "result.json").read_text() == text


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            _record(measures=[_measure(value=float("nan"))]),
            r"measures\[0\].*not finite",
        ),
        (_record(measures=[_measure(high=float("inf"), low=0)]), "not finite"),
        (_record(measures=[{"name": "a"}]), "exactly the fields"),
        (_record(seconds=float("inf")), "'seconds' is not finite"),
        (_record(settings={"x": float("nan")}), "JSON"),
        (_record(settings={"x": object()}), "JSON"),
        (_record(format=2), "'format' must be 1: 2"),
        (_record(seed="3"), "'seed' must be int: '3'"),
        (_record(seed=True), "'seed' must be int: True"),
        (_record(extra=1), "unknown fields: 'extra'"),
        ({k: v for k, v in _record().items() if k != "device"}, "'device' is missing"),
    ],
)
def test_what_is_not_a_record_is_never_written(tmp_path, record, message):
    with pytest.raises(ValueError, match=message):
        write_result(tmp_path, record)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "corrupt or cut short"),
        (result_text(_record()).encode()[:-30], "corrupt or cut short"),
        (b"\x89PNG\r\n\x1a\n\xff", "not a text file"),
        (b"[1, 2]", "not a result record: must be an object, not list"),
        (b'{"name": "package.json"}', "not a result record: field 'format'"),
        (result_text(_record()).replace("0.5", "NaN").encode(), "NaN is not a number"),
    ],
)
def test_reading_names_the_file_and_the_reason(tmp_path, content, message):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_result(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "result.json"))


def test_a_missing_file_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_result(tmp_path)


def test_details_come_back_and_only_with_their_own_result(tmp_path):
    details = Details(
        tables=(Table(title="t", columns=("a", "b"), rows=(("x", None), (1, 2.5))),),
        figures={
            "loss": Figure(
                kind="bars",
                title="t",
                x_label="x",
                y_label="y",
                series=(Series("s", ("a",), (1.0,), (0.5,), (1.5,)),),
            )
        },
    )
    assert read_details(tmp_path, result="one") is None
    text = write_run(tmp_path, _record(), details)
    assert read_result(tmp_path) == _record()
    assert read_details(tmp_path, result=text) == details
    assert read_details(tmp_path, result="two") is None


def test_corrupt_details_name_the_file(tmp_path):
    for content in ("{", "[]", '{"format": 1, "result": "x"}', '{"format": 9}'):
        (tmp_path / "figures.json").write_text(content)
        if content != '{"format": 1, "result": "x"}':  # belongs to another run: None
            with pytest.raises(ValueError, match=r"figures\.json"):
                read_details(tmp_path, result="")
        else:
            assert read_details(tmp_path, result="") is None


def _write_many(folder, system):
    for seed in range(40):
        write_result(folder, _record(system=system * 2000, seed=seed))


def test_two_writers_never_corrupt_each_other(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(tmp_path, s)) for s in "ab"]
    for writer in writers:
        writer.start()
    seen = set()
    while any(w.is_alive() for w in writers):
        try:
            seen.add(read_result(tmp_path)["system"][0])  # valid at every moment
        except FileNotFoundError:
            continue
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen <= {"a", "b"} and read_result(tmp_path)["seed"] == 39
    assert [p.name for p in pathlib.Path(tmp_path).iterdir()] == ["result.json"]


def test_versions_name_what_decides_the_digits():
    found = versions()
    assert found["jeff"] == jeff.__version__ and {"python", "jax", "numpy"} <= set(
        found
    )
