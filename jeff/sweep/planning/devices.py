"""Which devices compute: all of this process, some, or those of a mesh."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import jax
from jax.sharding import Mesh

from jeff.sweep.checks import positive

__all__ = ["chosen_devices"]


def chosen_devices(
    devices: int | Sequence[Any] | Mesh | None,
) -> tuple[Any, ...]:
    """The devices of this process that are to be used.

    Args:
      devices: Devices, or how many, or a mesh, of which those of this process are
        taken, in its order (its axes mean nothing here); all if ``None``.

    Returns:
      The devices.

    Raises:
      TypeError: If `devices` is none of these.
      ValueError: If this process does not have them, one is named twice, or they are
        of several kinds.

    Examples:
      >>> chosen_devices(1) == tuple(jax.local_devices()[:1])
      True
    """
    chosen = _chosen(devices, tuple(jax.local_devices()))
    kinds = sorted({f"{d.platform} {d.device_kind}" for d in chosen})
    if len(kinds) > 1:  # each kind rounds in its own way
        raise ValueError(
            f"devices must be of one kind, they are of {', '.join(map(repr, kinds))}; "
            "name those of one kind, as in devices=[...]"
        )
    return chosen


def _chosen(devices: Any, here: tuple[Any, ...]) -> tuple[Any, ...]:
    if devices is None:
        return here
    if isinstance(devices, Mesh):
        found = tuple(d for d in devices.devices.flat if d in here)
        if not found:
            raise ValueError(f"devices: no device of {devices} is of this process")
        return found
    if isinstance(devices, Sequence):
        if not devices:
            raise ValueError("devices must name at least one device")
        for device in devices:
            if not isinstance(device, jax.Device):
                raise TypeError(f"devices must be JAX devices, got {device!r}")
            if device not in here:
                raise ValueError(f"devices: {device} is not of this process: {here}")
            if list(devices).count(device) > 1:
                raise ValueError(f"devices names {device} more than once")
        return tuple(devices)
    if not isinstance(devices, Integral):
        raise TypeError(f"devices must be a number, a list or a Mesh, got {devices!r}")
    number = positive("devices", devices)
    if number > len(here):
        raise ValueError(f"devices={number}, but this process has {len(here)}")
    return here[:number]
