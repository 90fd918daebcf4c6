"""With what a number was made: versions and device, as every record states them."""

import collections
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import re
from typing import Any

import jax
import numpy as np

__all__ = ["device", "numerics", "versions"]

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
_HARMLESS = ("--xla_force_host_platform_device_count", "--xla_dump_")
_CPUINFO = pathlib.Path("/proc/cpuinfo")
# Instructions that loops and products are compiled to; what else a kernel lists of a
# processor, such as repairs of its faults, changes with the kernel.
_VECTORS = re.compile("avx|s?sse|fma|f16c|amx|asimd|sve|sme|fp|bf16|i8mm")


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
    """The kinds of devices JAX computes on by default, and how many of each there are.

    Returns:
      Such as ``"cpu x 1"`` or ``"NVIDIA H200 x 4"``.

    Examples:
      >>> device().endswith(f"x {len(jax.devices())}")
      True
    """
    kinds = collections.Counter(d.device_kind for d in jax.devices())
    return ", ".join(f"{kind} x {count}" for kind, count in kinds.items())


def numerics(device: Any = None) -> dict[str, str | bool]:
    """What decides a number's last digits beside the program: device and settings.

    Args:
      device: The device that computes; the first of this process if ``None``.

    Returns:
      JSON values by name: the kind of device (on CPUs also ``cpu``, the processor's
      name with a checksum of its vector instructions), and what tells the compiler to
      make another program of the same equations.

    Examples:
      >>> found = numerics()
      >>> found["matmul_precision"], found["x64"]
      ('None', False)
    """
    device = jax.local_devices()[0] if device is None else device
    config = jax.config.values
    found = {
        "device": f"{device.platform} {device.device_kind}",
        "matmul_precision": str(config["jax_default_matmul_precision"]),
        "x64": jax.dtypes.canonicalize_dtype(np.float64) == np.float64,
        "xla_flags": _xla_flags(),
        "unoptimized": bool(config["jax_disable_most_optimizations"]),
    }
    return found | ({"cpu": _processor()} if device.platform == "cpu" else {})


def _xla_flags() -> str:
    """Flags of the compiler, but those that cannot change a program."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return " ".join(f for f in flags if not f.startswith(_HARMLESS))


def _processor() -> str:
    """Name of the processor, and a checksum of what vector instructions it has."""
    try:
        lines = _CPUINFO.read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    pairs = (line.partition(":") for line in lines)
    first = {name.strip(): value.strip() for name, _, value in pairs}
    has = first.get("flags", first.get("Features", "")).split()
    vectors = " ".join(sorted(filter(_VECTORS.match, has)))
    parts = (first.get(name) for name in ("model name", "CPU implementer", "CPU part"))
    name = " ".join(filter(None, parts)) or platform.processor()
    return f"{name} {hashlib.blake2b(vectors.encode(), digest_size=4).hexdigest()}"
