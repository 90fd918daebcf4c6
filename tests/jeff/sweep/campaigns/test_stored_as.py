"""Weights stored in fewer bits, and what is left as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import fault_nets

from jeff.sweep import stored_as
from jeff.sweep.study.targets import weight_targets


@pytest.mark.parametrize("stored", ["dense", "float16", "int4"])
def test_stored_weights_give_nearly_the_same_answers(stored):
    net = fault_nets.scanned()
    params = {
        **net.params,
        "into": jnp.asarray(np.random.default_rng(0).random((5, 4))),
    }
    params = jax.tree.map(lambda a: a.astype(jnp.float32), params)
    held = stored_as(net.apply, params, net.data.inputs, stored)
    bits = {t.name: t.bits for t in weight_targets(held)}
    assert set(bits.values()) == {{"dense": 32, "float16": 16, "int4": 4}[stored]}
    close = 0.1 if stored == "int4" else 0.01
    for name in params:
        dense = held[name] if stored == "dense" else held[name].decode()
        assert float(jnp.abs(dense - params[name]).max()) <= close
    if stored != "dense":
        again = held["into"].with_codes(held["into"].codes()).decode()
        assert bool((again == held["into"].decode()).all())


def test_without_weights_there_is_nothing_to_store():
    with pytest.raises(ValueError, match="no floating weight of a product"):
        stored_as(
            lambda p, x: x + p["b"], {"b": jnp.zeros(3)}, jnp.ones((2, 3)), "int8"
        )
