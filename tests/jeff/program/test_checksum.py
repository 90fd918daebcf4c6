import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.program.checksum import checksum

BASE = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": 3, "key": None}


@pytest.mark.parametrize(
    "other",
    [
        {"w": BASE["w"] + np.float32(1e-6)},
        {"w": BASE["w"].reshape(3, 2)},
        {"w": BASE["w"].T},
        {"w": BASE["w"].astype(np.float16)},
        {"n": 4},
        {"more": 1},
        {"key": jax.random.key(0)},
    ],
)
def test_any_difference_shows(other):
    assert checksum(BASE | other) != checksum(BASE)


def test_arrays_count_as_jax_takes_them():
    assert checksum({"w": BASE["w"].astype(np.float64)}) == checksum({"w": BASE["w"]})


def test_the_same_numbers_on_any_device():
    on_device = BASE | {"w": jnp.asarray(BASE["w"])}
    assert checksum(on_device) == checksum(BASE)
    assert checksum(jax.random.key(1)) == checksum(jax.random.key(1))
    assert checksum(jnp.ones(2, jnp.bfloat16)) != checksum(jnp.ones(2, jnp.float16))


def test_a_program_has_one_checksum_in_every_process():
    """Neither addresses nor the order of hashes enter."""
    code = (
        "import jax, jax.numpy as jnp\n"
        "from jeff.program.checksum import program_checksum\n"
        "f = lambda x: jax.nn.relu(jnp.where(x > 0, jax.nn.silu(x), x.sum()))\n"
        "print(program_checksum(jax.make_jaxpr(f)(jnp.ones(3))))"
    )
    got = {
        subprocess.run(
            [sys.executable, "-c", code], text=True, capture_output=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
        ).stdout
        for seed in "12"
    }  # fmt: skip
    assert len(got) == 1 and len(got.pop().strip()) == 32
