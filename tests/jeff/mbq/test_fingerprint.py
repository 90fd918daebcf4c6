import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_blocks

from jeff import mbq
from jeff.mbq.fingerprint import checksum, fingerprint
from jeff.mbq.job import start
from jeff.quantize import QuantConfig

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


def test_every_setting_is_in_it():
    config = mbq.BalanceConfig(weights=QuantConfig(bits=3, group_size=16), clip=True)
    apply, params = mbq_blocks.gated(), mbq_blocks.make_params()
    job = start(apply, params, mbq_blocks.batches(2), config, None, None)
    found = fingerprint("mbq", job, [mbq.GroupSpec(sites=("layers.0.up",))])
    fields = {n.split(".")[1] for n in found if n.startswith("config.")}
    assert fields == set(vars(config))
    assert found["config.weights.group_size"] == 16 and found["batches"] == 2
    assert {n for n in found if n.startswith("params.")} >= {"params.head"}
    assert found["groups"] == [
        "GroupSpec(sites=('layers.0.up',), inspect=None, fold=None)"
    ]
    assert {f"stacks[0].blocks[{i}]" for i in range(3)} <= set(found)
    assert {"versions.jeff", "versions.jax", "device", "matmul_precision"} <= set(found)
    with jax.default_matmul_precision("highest"):
        assert fingerprint("mbq", job, None)["matmul_precision"] == "highest"


def test_functions_are_in_it():
    """By what they compute, not by who they are."""
    config = mbq.BalanceConfig(weights=QuantConfig(bits=3, group_size=16))
    params, factor = {"w": jnp.eye(16)}, np.arange(16, dtype=np.float32)
    batches = [mbq.Batch((jnp.ones((1, 16)),), {}, jnp.ones((1, 16)))]

    def found(apply, loss=None):
        return fingerprint(
            "mbq", start(apply, params, batches, config, None, None), None, loss
        )

    one = found(lambda p, x: factor * jnp.tanh(x @ p["w"]))
    assert one == found(lambda q, y: factor * jnp.tanh(y @ q["w"]))
    others = [
        found(lambda p, x: factor * jnp.sin(x @ p["w"])),
        found(lambda p, x: (factor + 1) * jnp.tanh(x @ p["w"])),
        found(lambda p, x: factor * jnp.tanh(x @ p["w"]) * 2.0),
        found(lambda p, x: factor * jnp.tanh(x @ p["w"]) * 3.0),
    ]
    assert len({f["program"] for f in [one, *others]}) == 5
    losses = (lambda y, t: (y - t).sum(), lambda y, t: (y * t).sum())
    apply = lambda p, x: x @ p["w"]  # noqa: E731
    assert len({found(apply, loss)["loss"] for loss in losses}) == 2


def test_a_program_has_one_checksum_in_every_process():
    """Neither addresses nor the order of hashes enter."""
    code = (
        "import jax, jax.numpy as jnp\n"
        "from jeff.mbq.program_checksum import program_checksum\n"
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
