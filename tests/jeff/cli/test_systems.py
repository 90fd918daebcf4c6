import json

import pytest

from jeff.cli import SYSTEMS, BadInput, System, systems
from jeff.cli.page import _link


def test_the_eight_systems_of_the_architecture():
    names = {s.name for s in SYSTEMS}
    assert names == {
        "mbq", "ddc-pim", "dm-bnn", "spin-bayes", "litevar", "hybrid-ann", "epim",
        "ftt-nas",
    }  # fmt: skip
    for system in SYSTEMS:
        assert system.summary.endswith(".") and _link(system.paper)
        folder = system.name.replace("-", "_")
        assert system.entry == f"jeff.{folder}.study:STUDY"


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.name)
def test_what_is_built_loads_and_what_is_not_says_so(system):
    if systems.is_available(system):
        assert systems.load(system).presets
        return
    with pytest.raises(BadInput, match=f"'{system.name}' is planned but not built"):
        systems.find(system.name, SYSTEMS)


def test_list(cli):
    code, out, err = cli("list")
    assert (code, err) == (0, "")
    for word in ("demo", "built", "later", "planned", "arXiv 2003.10375"):
        assert word in out
    rows = json.loads(cli("list", "--json")[1])
    assert [(r["name"], r["status"]) for r in rows] == [
        ("demo", "built"),
        ("later", "planned"),
    ]


def test_a_study_that_cannot_be_imported_is_a_failed_run(cli, tmp_path, monkeypatch):
    (tmp_path / "torn_study.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    torn = System(name="torn", title="", summary="", paper="", entry="torn_study:STUDY")
    code, _, err = cli("run", "torn", registry=(torn,))
    assert code == 1 and "torn: cannot import torn_study:STUDY" in err
    assert "no_such_library" in err and err.count("\n") == 1


def test_python_m_jeff(python, tmp_path):
    done = python("-m", "jeff", "list", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 8
    failed = python("-m", "jeff", "run", "nothing", cwd=tmp_path)
    assert failed.returncode == 2 and failed.stdout == ""
    assert list(tmp_path.iterdir()) == []
