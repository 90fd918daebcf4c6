"""The record of temporary memory by alpha: made in little, and as it was published."""

import importlib
import json
import runpy

import numpy as np
import pytest
from support import pages

from jeff import io

pytestmark = pages.in_checkout

RECORD = pages.ROOT / "benchmarks" / "records" / "bnn_memory.json"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(pages.ROOT / "benchmarks"))
        yield importlib.import_module("bnn_memory")


def values(record):
    return {m["name"]: m["value"] for m in record["measures"]}


def test_a_run_makes_a_record_and_its_table(script, tmp_path, monkeypatch):
    cases = {"layer": ((40, 20), (3,)), "network": ((40, 20), (2,))}
    monkeypatch.setattr(script, "CASES", cases)
    monkeypatch.setattr(script, "SAMPLED", {"lrt": 2})
    out = tmp_path / "record.json"
    script.main(script.Settings(alphas=(1.0, 0.1), rows=(2,), tile=64, out=out))
    record = json.loads(out.read_text())
    io.validate_result(record)
    found = values(record)
    # Two rows of 40 words for each of 20 columns, or for two of them.
    assert found["beta_bytes.layer_b2_alpha_1"] == 4 * 2 * 40 * 20
    assert found["beta_bytes.layer_b2_alpha_0.1"] == 4 * 2 * 40 * 2
    whole, tenth = (found[f"temp_bytes.layer_b2_alpha_{a}"] for a in ("1", "0.1"))
    assert whole - tenth > 4 * 2 * 40 * 20 / 2
    table = runpy.run_path(str(pages.ROOT / "docs" / "bnn_memory_tables.py"))
    lines = table["bnn_memory"](record).splitlines()
    assert lines[0] == "| `alpha` | 2 rows: beta | layer | network |"
    assert lines[3].startswith("| 0.1 | 640 B | ")
    assert lines[5] == "| mode | rows | by default | all at once |"
    assert lines[7].startswith("| `lrt` | 2 | ")
    assert lines[-1].startswith("Made by `python benchmarks/bnn_memory.py` on cpu x ")


def test_in_the_published_record_not_all_voters_are_held():
    found = values(json.loads(RECORD.read_text()))
    for case in ("lrt_b64", "flipout_b1"):
        few, many = (found[f"temp_bytes.{case}_chunk_{c}"] for c in ("default", "all"))
        assert 10 * few < many


def test_in_the_published_record_memory_falls_with_alpha(script):
    record = json.loads(RECORD.read_text())
    found, settings = values(record), record["settings"]
    assert settings["alphas"] == [1.0, 0.5, 0.25, 0.1, 0.005]
    for case, (sizes, voters) in script.CASES.items():
        for rows in settings["rows"]:
            names = [f"{case}_b{rows}_alpha_{a:g}" for a in settings["alphas"]]
            held = [found[f"temp_bytes.{name}"] for name in names]
            assert held == sorted(held, reverse=True) and len(set(held)) == len(held)
            beta = [found[f"beta_bytes.{name}"] for name in names]
            shares = settings["alphas"]
            assert beta == [script.beta_bytes(sizes, rows, a) for a in shares]
            # What docs/dm_bnn.md says: beta, outputs twice, six tiles; and two rows of
            # the widest layer, which it rounds away.
            made = np.cumprod(voters) * sizes[1:]
            rest = 2 * rows * (made.sum() + max(sizes[1:])) + 6 * settings["tile"]
            for bytes_held, of_beta in zip(held, beta, strict=True):
                assert bytes_held <= of_beta + 4 * rest
            assert held[0] > beta[0]
