"""With what a number was made: versions and device, as every record states them."""

import importlib.metadata
import platform

import jax

__all__ = ["device", "versions"]

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def versions() -> dict[str, str]:
    """Versions of jeff, Python and the libraries that decide a number's last digits.

    Returns:
      Version by name; a library that is not installed is left out.

    Examples:
      >>> sorted(versions())
      ['flax', 'jax', 'jaxlib', 'jeff', 'numpy', 'optax', 'python']
    """
    import jeff  # here, because jeff/__init__ may import what imports this file

    found = {"jeff": jeff.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device() -> str:
    """The kind of device JAX computes on by default, and how many there are.

    Returns:
      Such as ``"cpu x 1"`` or ``"NVIDIA H200 x 4"``.

    Examples:
      >>> device().endswith(f"x {len(jax.devices())}")
      True
    """
    devices = jax.devices()
    return f"{devices[0].device_kind} x {len(devices)}"
