"""A compiled program on another device, and what cannot be loaded there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import serialize_executable

from jeff.sweep.engine import machine_code

DEVICE = jax.local_devices()[0]  # several: test_processes.py


def compiled(f):
    place = jax.sharding.SingleDeviceSharding(DEVICE)
    x = jax.ShapeDtypeStruct((3,), jnp.float32, sharding=place)
    return jax.jit(f).lower({"x": x}, x).compile()


def spread(program):
    """What is there for a second device, and where it was compiled for that."""
    again = []

    def compile_for(device):
        again.append(device)
        return program

    (other,) = machine_code.for_devices(program, [DEVICE], {}, compile_for)
    return other, again


@pytest.fixture(scope="module")
def plain():
    return compiled(lambda tree, unused: {"y": 2 * tree["x"]})


def test_code_is_loaded(plain):
    other, again = spread(plain)
    assert other is not plain and not again
    x = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(other({"x": x}, x)["y"], 2 * x)
    assert machine_code.for_devices(plain, [], {}, None) == []


def test_callbacks_are_compiled_again():
    def tripled(tree, unused):
        return jax.pure_callback(lambda v: v * 3, tree["x"], tree["x"])

    program = compiled(tripled)
    other, again = spread(program)
    assert other is program and again == [DEVICE]


@pytest.mark.parametrize("damage", [b"", b"\x80\x04N.", b"\x80\x04\x8c\x01x\x94Q."])
def test_what_cannot_be_loaded_is_compiled_again(plain, monkeypatch, damage):
    """Nothing, another thing, and a reference of an unknown kind."""
    _, *trees = serialize_executable.serialize(plain)
    monkeypatch.setattr(
        serialize_executable, "serialize", lambda program: (damage, *trees)
    )
    other, again = spread(plain)
    assert other is plain and again == [DEVICE]


def test_code_that_would_run_elsewhere_is_compiled_again(plain, monkeypatch):
    monkeypatch.setattr(
        jax.stages.Compiled, "runtime_executable",
        lambda self: type("Elsewhere", (), {"local_devices": lambda self: []})(),
    )  # fmt: skip
    other, again = spread(plain)
    assert other is plain and again == [DEVICE]
