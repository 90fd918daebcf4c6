"""Devices by number, by name and by mesh."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh

from jeff.sweep.planning.devices import chosen_devices

HERE = tuple(jax.local_devices())


@pytest.mark.parametrize("axes", ["devices", ("rows", "columns")])
def test_a_mesh_is_its_devices(axes):
    grid = np.array(HERE).reshape((1,) * (not isinstance(axes, str)) + (-1,))
    assert chosen_devices(Mesh(grid, axes)) == HERE == chosen_devices(None)
    assert chosen_devices(list(HERE)) == HERE


def test_only_devices_of_this_process_are_taken(monkeypatch):
    mesh = Mesh(np.array(HERE), "devices")
    monkeypatch.setattr(jax, "local_devices", lambda: [])
    with pytest.raises(ValueError, match="no device of Mesh.* is of this process"):
        chosen_devices(mesh)


def test_a_device_is_named_once_and_in_a_list():
    with pytest.raises(ValueError, match="devices names .* more than once"):
        chosen_devices([HERE[0], HERE[0]])
    with pytest.raises(TypeError, match="a number, a list or a Mesh, got array"):
        chosen_devices(np.array(HERE))


def test_a_mesh_without_devices_is_refused():
    with pytest.raises(TypeError, match="devices must be .*AbstractMesh"):
        chosen_devices(AbstractMesh((1,), ("devices",)))
