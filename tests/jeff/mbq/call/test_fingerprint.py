import jax
import jax.numpy as jnp
import numpy as np
from support import mbq_blocks

from jeff import mbq
from jeff.mbq.call.fingerprint import fingerprint
from jeff.mbq.call.job import start
from jeff.quantize import QuantConfig


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
