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
        {"w": BASE["w"].astype(np.float64)},
        {"n": 4},
        {"more": 1},
        {"key": jax.random.key(0)},
    ],
)
def test_any_difference_shows(other):
    assert checksum(BASE | other) != checksum(BASE)


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
