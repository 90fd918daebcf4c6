import importlib
import pathlib
import pkgutil
import re

import pytest

import hwsim
import jeff
import pallas_kernels

ROOT = pathlib.Path(jeff.__file__).parents[1]

_IMPORT_QUIETLY = """
import jax, flax, optax, numpy, scipy, scipy.stats, safetensors.numpy, sys
opened, compiled = [], []
def watch(event, details):
    if event == "open" and isinstance(details[0], str):
        name = details[0]
        if not name.endswith((".py", ".pyc", ".so")) and "__pycache__" not in name:
            opened.append(name)
sys.addaudithook(watch)
from jax import monitoring
monitoring.register_event_duration_secs_listener(lambda n, *a, **k: compiled.append(n))
import jeff
from jeff import StoredWeight, sites  # names are imported when asked for
from jax._src import xla_bridge
print(opened, [c for c in compiled if "compile" in c], len(xla_bridge._backends))
"""


def test_importing_compiles_nothing_touches_no_device_and_reads_no_file(python):
    done = python("-c", _IMPORT_QUIETLY)
    assert done.stdout == "[] [] 0\n", done.stdout + done.stderr


def test_the_watch_of_the_import_test_sees_files_devices_and_compilation(python):
    noisy = _IMPORT_QUIETLY.replace(
        "import jeff\n",
        "import jax.numpy as jnp; open('/dev/null').close();"
        " jax.jit(lambda x: x + 1)(jnp.zeros(3))\n",
    )
    opened, compiled, backends = re.fullmatch(
        r"(\[.*?\]) (\[.*?\]) (\d+)\n", python("-c", noisy).stdout
    ).groups()
    assert "/dev/null" in opened and compiled != "[]" and backends != "0"


def test_version_is_written_once():
    pyproject = ROOT / "pyproject.toml"
    if not pyproject.exists():
        pytest.skip("not running from a checkout")
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", jeff.__version__)
    assert 'dynamic = ["version"]' in pyproject.read_text()
    assert jeff.__version__ in (ROOT / "CHANGELOG.md").read_text()


def _modules():
    for package in (jeff, hwsim, pallas_kernels):
        yield package.__name__
        prefix = f"{package.__name__}."
        for module in pkgutil.walk_packages(package.__path__, prefix):
            if not module.name.endswith("__main__"):
                yield module.name


@pytest.mark.parametrize("name", sorted(_modules()))
def test_every_module_has_a_docstring_and_an_all_that_exists(name):
    module = importlib.import_module(name)
    assert module.__doc__ and "TODO" not in module.__doc__
    exported = module.__all__
    assert len(set(exported)) == len(exported)
    missing = [n for n in exported if not hasattr(module, n)]
    assert not missing
