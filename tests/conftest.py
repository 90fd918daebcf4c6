"""What every test runs under: strict dtypes, quick compiles, no network, fixtures."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import pytest

import jeff

TESTS = pathlib.Path(__file__).parent
GOLDEN = TESTS / "golden"

# `from support import zoo` finds tests/support/zoo.py: in importlib mode pytest itself
# puts nothing on the path.
sys.path.insert(0, str(TESTS))

from support.compilation import compile_quickly  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
compile_quickly()


def pytest_collection_modifyitems(config, items):
    """Skips tests marked `gpu` where there is none."""
    del config
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and jax.default_backend() != "gpu":
        skip = pytest.mark.skip(reason="no GPU visible to JAX")
        for item in marked:
            item.add_marker(skip)


@pytest.fixture(autouse=True, scope="session")
def _no_network():
    """Connections may only go to this machine; a test that needs more is wrong."""
    connect = socket.socket.connect

    def local_only(self, address):
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in ("localhost", "127.0.0.1", "::1"):
            raise RuntimeError(f"tests may not use the network: {address!r}")
        return connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", local_only)
    yield
    patch.undo()


@pytest.fixture
def key():
    """A fixed random key."""
    return jax.random.key(20)


@pytest.fixture
def golden():
    """``golden(name)``: path of a file in tests/golden, or the test is skipped."""

    def path(name):
        file = GOLDEN / name
        if not file.exists():
            pytest.skip(f"golden file {name} is not in {GOLDEN}")
        return file

    return path


@pytest.fixture
def python():
    """``python(*arguments, **options)``: runs Python with this jeff importable."""

    def run(*arguments, env=None, path=(), **options):
        root = pathlib.Path(jeff.__file__).parents[1]
        places = [str(root), *map(str, path)]
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(places),
                "JAX_PLATFORMS": "cpu",
                "COLUMNS": "100",
                **(env or {}),
            },
            capture_output=True,
            text=True,
            timeout=120,
            **options,
        )

    return run
