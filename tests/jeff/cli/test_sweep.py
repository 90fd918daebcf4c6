"""``jeff sweep`` on a program of a user's, in process."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.swept_program import (  # noqa: F401
    QUICK,
    RATES,
    folder_of,
    swept,
)

from jeff.cli import main
from jeff.evaluate import clopper_pearson
from jeff.io import read_details, read_result
from jeff.sweep.engine.folder import SweepFolder


@pytest.fixture
def data(tmp_path):
    """Examples in a file."""
    draw = np.random.default_rng(1)
    inputs = draw.normal(size=(6, 8, 8)).astype(np.float32)
    arrays = {"inputs": inputs, "labels": draw.integers(0, 3, 6)}
    np.savez(tmp_path / "data.npz", **arrays)
    return arrays


def test_table_record_report_and_the_same_again(sweep, tmp_path):
    code, out, err = sweep(*QUICK, *RATES, "--level", "0.9")
    assert code == 0, err
    for word in (
        "0.0001",
        "90 %",
        "accuracy",
        "on new",
        "100 %",
        "report: jeff-out/index.html",
    ):
        assert word in out
    assert "curve: map over units of 2 trials, batches of 6 examples" in err
    assert "curve: sweep 4/4" in err and "faults/s" in err
    folder = folder_of(tmp_path)
    record = read_result(folder)
    assert record["system"] == folder.name and record["seed"] == 0
    names = [m["name"] for m in record["measures"]]
    assert names[:5] == [
        "accuracy.0.0001", "accuracy.0.1", "accuracy_new_images.0.0001",
        "accuracy_new_images.0.1", "sdc.0.0001",
    ]  # fmt: skip
    few, many, others, _ = record["measures"][:4]
    assert others["value"] == few["value"] and others["low"] < few["low"]
    assert few["baseline"] == 1.0 and few["trials"] == 4
    assert many["low"] <= many["value"] < 0.9 and few["value"] > many["value"]
    again = record["settings"]["command"]
    assert again.startswith("jeff sweep swept:build --rates 1e-4,0.1 --trials 4")
    text = (folder / "result.json").read_text()
    details = read_details(folder, result=text)
    assert set(details.figures) == {"accuracy", "answers"}
    # 64 * 8 + 8 + 8 * 3 words of 32 bits
    assert details.tables[0].rows[1][1] == pytest.approx(544 * 32 * 0.1)
    page = (tmp_path / "jeff-out/index.html").read_text()
    assert "90&nbsp;% interval" in page and "jeff sweep swept:build" in page
    units = sorted((folder / "curve/units").iterdir())
    times = [u.stat().st_mtime_ns for u in units]
    code, out, _ = sweep(*QUICK, *RATES, "--level", "0.9", "--json")
    assert code == 0 and json.loads(out)["measures"] == record["measures"]
    assert [u.stat().st_mtime_ns for u in units] == times  # nothing was done twice
    code, out, err = sweep(*QUICK, "--rates", "1e-4,0.2")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "rates: the sweep in " in err and "was begun with rates=[0.0001, 0.1]" in err
    assert (folder / "result.json").read_text() != "" and units[0].exists()


def test_interrupted_it_goes_on_with_params_data_and_a_map(
    sweep, data, tmp_path, monkeypatch
):
    params = {"up": np.ones((64, 8)), "bias": np.zeros(8), "down": np.eye(8)[:, :3]}
    save_file({n: a.astype(np.float32) for n, a in params.items()}, "p.safetensors")
    words = (
        *QUICK, "--rates", "0.01", "--params", "p.safetensors", "--data", "data.npz",
        "--stored", "int4", "--where", "up|down", "--map", "--map-trials", "2",
    )  # fmt: skip
    save = SweepFolder.save

    def once(*args):
        save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(SweepFolder, "save", once)
    code, _, err = sweep(*words)
    assert code == 130, err
    assert "is kept in jeff-out/sweep-swept-build-bit-flip; the same command" in err
    monkeypatch.setattr(SweepFolder, "save", save)
    folder = folder_of(tmp_path)
    (first,) = (folder / "curve/units").iterdir()
    before = first.stat().st_mtime_ns
    code, out, err = sweep(*words)
    assert code == 0 and "one flipped bit in" in out, err
    assert first.stat().st_mtime_ns == before
    assert "The directory was begun with group=1." in err
    details = read_details(folder, result=(folder / "result.json").read_text())
    heat = details.figures["vulnerability"]
    assert [(s.name, s.x) for s in heat.series] == [
        ("down", (0, 1, 2, 3)), ("up", (0, 1, 2, 3)),
    ]  # fmt: skip
    golden = np.mean(data["labels"] == 0)  # all columns of "up" are alike
    record = read_result(folder)
    assert record["measures"][0]["baseline"] == pytest.approx(golden)


def test_features_and_a_margin(sweep, tmp_path):
    words = ("--fault", "salt_and_pepper", "--rates", "0.2", "--where", "up")
    stop = ("--trials", "160", "--margin", "0.4", "--batch", "6")
    code, out, err = sweep(*words, *stop)
    assert code == 0, err
    assert "valid at any time of stopping" in out and "Clopper" in out
    assert "on new" not in out  # that interval is not rigorous
    assert "A unit has 16 trials: the margin is asked for after each" in err
    folder = tmp_path / "jeff-out/sweep-swept-build-salt-and-pepper"
    table = read_details(folder, result=(folder / "result.json").read_text()).tables[0]
    assert table.rows[0][1:3] == (pytest.approx(6 * 8 * 0.2), 64)
    measures = {m["name"]: m for m in read_result(folder)["measures"]}
    assert "accuracy_new_images.0.2" not in measures
    # Four looks: 1 - 0.05 / (4 * 5).
    accuracy, changed = measures["accuracy.0.2"], measures["sdc.0.2"]
    assert 0.2 < accuracy["high"] - accuracy["value"] <= 0.4
    events = round(changed["value"] * 64 * 6)
    exact = clopper_pearson(events, 64 * 6, level=1 - 0.05 / 20)
    assert [changed[n] for n in ("low", "high")] == pytest.approx(exact[1:3])


def test_without_faults_nothing_changes(sweep, tmp_path):
    words = ("--rates", "0,1e-6", "--trials", "4", "--batch", "4", "--images", "6")
    for more in ((), ("--fault", "salt-and-pepper", "--plan", "2", "--unit", "3")):
        code, out, err = sweep(*words, *more)
        assert code == 0, err
    for folder in (tmp_path / "jeff-out").glob("sweep-*"):
        measures = {m["name"]: m for m in read_result(folder)["measures"]}
        assert measures["sdc.0"]["value"] == 0 and measures["accuracy.0"]["value"] == 1


CELLS = ("--fault", "adsaf-cells", "--set")


def test_settings_of_the_fault_are_recorded_and_compared(sweep, tmp_path):
    words = (*QUICK, "--rates", "0,0.1", *CELLS, "bits=5", "cell_bits=2")
    code, out, err = sweep(*words, "--set", "saf1_share=0.5")
    assert code == 0, err
    assert "; bits=5; cell_bits=2; saf1_share=0.5) of weights" in out
    folder = tmp_path / "jeff-out/sweep-swept-build-adsaf-cells"
    settings = read_result(folder)["settings"]
    assert settings["set.cell_bits"] == 2 and settings["set.saf1_share"] == 0.5
    assert "--set bits=5 cell_bits=2 saf1_share=0.5 --rates" in settings["command"]
    text = (folder / "result.json").read_text()
    row = read_details(folder, result=text).tables[0].rows[1]
    assert row[1] == pytest.approx(544 * 2 * 2 * 0.1)  # two cells a polarity
    code, out, err = sweep(*words)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "set: the sweep in " in err and "'saf1_share': 0.5}, now it is {" in err


def test_weights_and_features_at_once_and_sigmas_above_one(sweep, tmp_path):
    words = (*QUICK, "--fault", "gaussian", "--on", "both", "--rates", "0.5,3")
    code, out, err = sweep(*words)
    assert code == 0, err
    assert "of weights and features on 5 arrays" in out
    folder = tmp_path / "jeff-out/sweep-swept-build-gaussian"
    text = (folder / "result.json").read_text()
    rows = read_details(folder, result=text).tables[0].rows
    # 544 weights, and of each of 6 examples 8 + 3 outputs
    assert [row[:2] for row in rows] == [(0.5, 544 + 66), (3.0, 544 + 66)]


def test_a_map_of_features_in_eight_bits(sweep, tmp_path):
    words = (*QUICK, "--fault", "fixed-point-flip", "--rates", "0.1", "--map")
    code, out, err = sweep(*words, "--map-trials", "2", "--feature-bits", "8")
    assert code == 0, err
    folder = tmp_path / "jeff-out/sweep-swept-build-fixed-point-flip"
    details = read_details(folder, result=(folder / "result.json").read_text())
    bits = {x for s in details.figures["vulnerability"].series for x in s.x}
    assert bits <= set(range(8)) and len(bits) > 4
    again = (*words, "--map-trials", "2")
    assert "feature_bits: the sweep in " in sweep(*again)[2]


def test_a_folder_of_an_older_jeff_is_refused_in_one_line(sweep, tmp_path):
    folder = folder_of(tmp_path)
    folder.mkdir(parents=True)
    (folder / "curve.json").write_text('{"model": "swept:build", "trials": 4}')
    code, out, err = sweep(*QUICK, *RATES)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "begun by another jeff (study_format 1, now 2) and cannot go on" in err
    assert not (folder / "curve").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rates", "0.1,1.5"), "rates[1] must be in [0, 1], got 1.5"),
        (("--rates", "1e-3,x"), "argument --rates: 'x' is not a number"),
        (("--rates", "1e-3,1e-3"), "rates must differ"),
        (("--rates", "0.5,1e-15"), "rate 1e-15 cannot be drawn in one sweep with 0.5"),
        (("--trials", "0"), "trials must be at least 1, got 0"),
        (("--trials", "1"), "trials must be at least 2"),
        (("--images", "1"), "argument --images: must be at least 2"),
        (("--fault", "bit-flop"), "no fault 'bit-flop'; nearest: bit-flip"),
        (("--where", "bais"), "where='bais' chooses no leaf of params; nearest: bias"),
        (("--where", "("), "where='(' is no"),
        (("--on", "cells"), "on must be one of 'weights', 'features', 'both', got 'ce"),
        (("--set", "bits"), "argument --set: 'bits' is not name=value"),
        (("--set", "bits=x"), "argument --set bits=x: 'x' is not an integer"),
        (
            ("--set", "cell_bits=2"),
            "has no setting 'cell_bits'; nearest: bits",
        ),
        (
            (*CELLS, "cell_bits=9"),
            "adsaf-cells: cell_bits must be an integer from 1 to",
        ),
        (
            ("--set", "bit_shares=1,0"),
            "2 shares, but 32 bits can be hit in a word of 'b",
        ),
        (("--set", "bit_shares=2"), "bit_shares[0] must be in [0, 1], got 2.0"),
        (("--fault", "gaussian", "--set", "bits=2"), "'bits'; it has none"),
        (("--fault", "gaussian", "--rates", "-1"), "finite and at least 0, got -1.0"),
        (
            ("--fault", "mibb", "--on", "weights", "--set", "tree_width=4"),
            "is of featu",
        ),
        (("--on", "both", "--map"), "a map is of weights or of features"),
        (("--map", "--feature-bits", "8"), "feature_bits are of a map of features"),
        (("--stored", "int5"), "stored must be one of dense, bfloat16"),
        (("--stored", "int4", "--fault", "lognormal"), "'down': like must be floating"),
        (("--margin", "0.1", "--trials", "9"), "needs more than 120 trials to stop"),
        (("--margin-method", "t"), "must be 'empirical_bernstein' or 'student_t'"),
        (("--level", "1"), "level must be in (0, 1)"),
        (("--plan", "scan"), "must be 'vmap' or 'map', or how many at a time, got 'sc"),
        (("--plan", "0"), "trials at a time must be at least 1, got 0"),
        (("--devices", "99"), "devices=99, but this process has"),
        (("--byte-budget", "0"), "budget_bytes must be at least 1"),
        (("--permanent",), "permanent is of features"),
        (("--distributed", "here"), "must be auto or HOST:PORT,INDEX/COUNT"),
        (("--out", "swept.py"), "'swept.py' is a file, not a folder"),
        (("--params", "no.npz"), "argument --params: there is no file no.npz"),
        (("--params", "p.npz"), "params have no leaf w; missing: bias, down, up"),
        (("--data", "swept.py"), "must be a .npz or .safetensors file"),
        (("--data", "cut.npz"), "cut.npz is cut short or no .npz file"),
        (("--data", "p.npz"), "must hold inputs (or inputs.0, inputs.1 ...) and"),
        (("--data", "float.npz"), "labels must be integers [examples], they are"),
        (("--data", "none.npz"), "there are no examples in it"),
        (("--data", "far.npz"), "labels must be in [0, 3), got 3 for example 0"),
        (("--data", "odd.npz"), "inputs is [2, 8, 8] for 1 labels"),
    ],
)
def test_bad_input_is_one_line(sweep, data, tmp_path, words, message):
    x, labels = data["inputs"], data["labels"]
    np.savez("p.npz", w=x)
    np.savez("float.npz", inputs=x, labels=labels.astype(float))
    np.savez("none.npz", inputs=x[:0], labels=labels[:0])
    np.savez("far.npz", inputs=x, labels=labels * 0 + 3)
    np.savez("odd.npz", inputs=x[:2], labels=labels[:1])
    whole = (tmp_path / "data.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    code, out, err = sweep(*words)
    assert (code, out) == (2, "") and err.count("\n") == 1, err
    assert message in err
    assert not (tmp_path / "jeff-out").exists()


@pytest.mark.parametrize(
    ("name", "words", "code", "message"),
    [
        ("swept:lost", (), 2, "golden outputs hold NaN or infinity for 1 of 6"),
        ("swept:images", (), 2, "apply must return logits [2, classes]"),
        ("swept:biuld", (), 2, "has no function 'biuld'"),
        ("tiny-vml", (), 2, "no network 'tiny-vml'"),
        ("tiny-vlm", ("--data", "x.npz"), 2, "--data: is for MODULE:FUNCTION"),
        ("tiny-vlm", ("--images", "9999"), 2, "images must be in 1..2948"),
    ],
)
def test_networks_that_do_not_fit(sweep, tmp_path, name, words, code, message):
    found, out, err = sweep(*words, name=name)
    assert (found, out) == (code, "") and err.count("\n") == 1, err
    assert message in err and not (tmp_path / "jeff-out").exists()


def test_resnet8_says_what_it_needs(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("JEFF_DATA", str(tmp_path / "nowhere"))
    code, out, err = cli("sweep", "resnet8")
    assert (code, out) == (2, "") and "CIFAR-10 is not at" in err


def test_help_is_printed():
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "--help"])
    assert stop.value.code == 0
