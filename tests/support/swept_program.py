"""A program of a user's, and `jeff sweep` of it in an empty folder."""

import sys

import pytest

USER = """
import jax, jax.numpy as jnp
import numpy as np

def apply(params, x):
    h = jax.nn.relu(x.reshape(len(x), -1) @ params["up"] + params["bias"])
    return h @ params["down"]

def build():
    draw = np.random.default_rng(0).normal
    params = {"up": draw(size=(64, 8)), "bias": np.zeros(8), "down": draw(size=(8, 3))}
    params = {n: jnp.asarray(a, jnp.float32) for n, a in params.items()}
    return apply, params, jnp.asarray(draw(size=(6, 8, 8)), jnp.float32)

def lost():
    apply, params, x = build()
    return apply, params, x.at[2].set(jnp.nan)

def images():
    return lambda p, x: x, {"w": jnp.zeros(1)}, jnp.zeros((2, 3, 3, 3))
"""
QUICK = ("--trials", "4", "--unit", "2", "--batch", "6")
RATES = ("--rates", "1e-4,0.1")


@pytest.fixture(name="sweep")
def swept(cli, tmp_path, monkeypatch):
    """``sweep(*words)``: of the user's program in the current folder."""
    (tmp_path / "swept.py").write_text(USER)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield lambda *words, name="swept:build": cli("sweep", name, *words)
    sys.modules.pop("swept", None)


def folder_of(tmp_path):
    return tmp_path / "jeff-out" / "sweep-swept-build-bit-flip"
