import json
import sys

import pytest

from jeff import program

_USER = """
import jax.numpy as jnp

def apply(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]

def build():
    return apply, {"w": jnp.zeros((3, 4)), "v": jnp.zeros((4, 2))}, jnp.zeros((5, 3))

def breaks():
    raise RuntimeError("no weights here")

def returns_params():
    return {"w": 1}

def leaves():
    raise SystemExit(3)

not_callable = 3
"""


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A module of a user in the current folder."""
    (tmp_path / "user_model.py").write_text(_USER)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("user_model", None)


class _Site:
    def __init__(self, path):
        self.path = path

    def as_dict(self):
        return {"path": self.path}


class _Sites(tuple):
    def __str__(self):
        return f"{len(self)} sites"


@pytest.fixture
def fake_sites(monkeypatch):
    """A walk that returns one site per parameter."""

    def sites(apply, params, *inputs):
        assert apply(params, *inputs).shape == (5, 2)
        return _Sites(_Site(name) for name in sorted(params))

    monkeypatch.setattr(program, "sites", sites, raising=False)


def test_prints_the_table_or_json(cli, user, fake_sites):
    assert cli("sites", "user_model:build") == (0, "2 sites\n", "")
    code, out, _ = cli("sites", "user_model:build", "--json")
    assert code == 0 and json.loads(out) == [{"path": "v"}, {"path": "w"}]


@pytest.mark.parametrize(
    ("word", "code", "message"),
    [
        ("user_model", 2, "'user_model' needs the form module:name"),
        ("absent_model:build", 2, "no module 'absent_model'"),
        ("user_model.sub:build", 2, "no module 'user_model.sub'"),
        ("user_model:biuld", 2, "module 'user_model' has no function 'biuld'"),
        ("user_model:not_callable", 2, "no function 'not_callable'"),
        (".user_model:build", 2, "'.user_model:build' needs the form module:name"),
        ("user_model:leaves", 1, "calling user_model:leaves: it called sys.exit(3)"),
        ("user_model:breaks", 1, "calling user_model:breaks: RuntimeError: no weights"),
        (
            "user_model:returns_params",
            1,
            "must return a tuple (apply, params, *inputs), not dict",
        ),
    ],
)
def test_errors(cli, user, fake_sites, word, code, message):
    found, out, err = cli("sites", word)
    assert (found, out) == (code, "") and message in err and err.count("\n") == 1


def test_a_module_that_lacks_a_library_is_not_called_missing(cli, tmp_path, user):
    (tmp_path / "needs_more.py").write_text("import no_such_library\n")
    code, _, err = cli("sites", "needs_more:build")
    assert code == 1 and "importing 'needs_more': ModuleNotFoundError" in err
