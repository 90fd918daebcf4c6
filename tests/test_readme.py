import importlib.util
import re

import pytest
from support import pages

from jeff.io import write_result

ROOT = pages.ROOT
pytestmark = pages.in_checkout


def _script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_two_commands_of_the_readme():
    script = _script(ROOT / ".ci" / "readme_commands.py")
    assert script.commands((ROOT / "README.md").read_text()) == [
        "pip install . && jeff run all",
        "pip install '.[test]' && pytest",
    ]
    with pytest.raises(ValueError, match="2 set-up commands, not 0"):
        script.commands("# jeff")


def test_order_of_the_readme():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert next(i for i, x in enumerate(lines, 1) if x.startswith("pip install")) <= 20
    assert next(i for i, x in enumerate(lines, 1) if x == "import jax") <= 35
    headings = [x.removeprefix("## ") for x in lines if x.startswith("## ")]
    assert headings == ["Results", "Limits", "Layout", "Citing"]


def test_the_example_of_the_readme_prints_what_it_says(python, tmp_path):
    code, said = pages.example("README.md")
    assert code.count("\n") < 20
    done = python("-c", code, cwd=tmp_path)
    assert done.stdout == said, done.stderr


def test_the_example_of_faults_prints_what_it_says(python, tmp_path):
    code, said = pages.example("README.md", "faults")
    assert code.count("\n") < 25
    done = python("-c", code, cwd=tmp_path)
    assert done.stdout == said, done.stderr


def test_the_skeleton_of_a_study_runs(python, tmp_path):
    text = (ROOT / "docs" / "adding_a_system.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    (tmp_path / "skeleton.py").write_text(code)
    script = (
        "from jeff.cli import System, main\n"
        "new = System(name='new', title='New', summary='.', paper='', "
        "entry='skeleton:STUDY')\n"
        "raise SystemExit(main(['run', 'new', '--set', 'seeds=3'], registry=(new,)))"
    )
    done = python("-c", script, cwd=tmp_path, path=[tmp_path])
    assert done.returncode == 0, done.stderr
    assert "loss_increase.name" in done.stdout and "0.21 (table 3)" in done.stdout


def test_generated_tables(tmp_path, monkeypatch):
    script = _script(ROOT / "docs" / "make_tables.py")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "RECORDS", tmp_path)
    measure = {
        "name": "loss.mbq", "value": 0.25, "unit": "nats", "baseline": 0.5,
        "paper": "a | b", "low": 0.2, "high": 0.3, "trials": 5,
    }  # fmt: skip
    write_result(
        tmp_path,
        {
            "format": 1, "system": "mbq", "preset": "default", "seed": 3,
            "versions": {"jax": "0.10.2"}, "device": "cpu x 1", "seconds": 41.3,
            "measures": [measure], "notes": ["Student's t."],
        },
    )  # fmt: skip
    (tmp_path / "result.json").rename(tmp_path / "mbq.json")
    readme = tmp_path / "README.md"
    readme.write_text(
        "before\n<!-- results:mbq -->\nold\n<!-- /results:mbq -->\nbetween\n"
        "<!-- results:none -->\n<!-- /results:none -->\nafter\n"
    )
    assert script.main(["--check"]) == 1 and "old" in readme.read_text()
    assert script.main([]) == 0 and script.main(["--check"]) == 0
    text = readme.read_text()
    row = "| `loss.mbq` | 0.250 nats | [0.200, 0.300] | 0.5 nats | a \\| b |"
    assert row in text and "old" not in text and "No record yet." in text
    assert "jeff run mbq --preset default --seed 3` in 41 s on cpu x 1" in text
    assert text.startswith("before\n") and text.endswith("after\n")
