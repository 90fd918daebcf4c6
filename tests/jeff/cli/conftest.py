"""A registry with a demonstration system, one that is planned and one that breaks."""

import pathlib

import pytest

from jeff.cli import System, main

HERE = pathlib.Path(__file__).parent
REGISTRY = (
    System(
        name="demo",
        title="Demo",
        summary="Stands in for a real system.",
        paper="arXiv 2412.19509",
        entry="demo_study:STUDY",
    ),
    System(
        name="later",
        title="Later",
        summary="Is not built yet.",
        paper="arXiv 2003.10375",
        entry="nowhere.study:STUDY",
    ),
)


@pytest.fixture
def registry(monkeypatch):
    """The demonstration registry, importable."""
    monkeypatch.syspath_prepend(HERE)
    return REGISTRY


@pytest.fixture
def cli(registry, tmp_path, monkeypatch, capsys):
    """``cli(*words)``: runs a command in an empty folder: (code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JEFF_DEBUG", raising=False)

    def run(*words, registry=registry):
        code = main([str(w) for w in words], registry=registry)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
