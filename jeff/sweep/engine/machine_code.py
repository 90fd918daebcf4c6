"""One compiled program on several devices: its machine code is loaded, not made again.

JAX compiles a program for each device anew, which takes long and, where a compiler
chooses by timing, need not give the same code. Here the code of the first device is
written out and loaded for the others, as JAX's persistent compilation cache does it
between processes; so all of them run the same instructions.

References:
  `jax.experimental.serialize_executable`, whose loading names no single other device:
  https://docs.jax.dev/en/latest/jax.experimental.serialize_executable.html.
"""

import concurrent.futures
import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import serialize_executable
from jax.extend import backend

__all__ = ["for_devices"]


def for_devices(
    executable: Any,
    devices: Sequence[Any],
    options: Mapping[str, Any],
    compile_for: Callable[[Any], Any],
) -> list[Any]:
    """A compiled program for other devices of the same kind.

    Args:
      executable: The program, compiled for one device of this process.
      devices: Other devices of this process.
      options: The compiler options that it was compiled with.
      compile_for: Compiles it for a device; called where code cannot be loaded, such as
        that of programs with callbacks to Python, or with another version of JAX.

    Returns:
      An executable per device.

    Examples:
      >>> device = jax.local_devices()[-1]
      >>> double = jax.jit(lambda x: 2 * x).lower(1.0).compile()
      >>> (other,) = for_devices(double, [device], {}, lambda device: None)
      >>> print(other(jax.device_put(3.0, device)))
      6.0
    """
    if not devices:
        return []
    code = _written(executable)

    def one(device: Any) -> Any:
        loaded = None if code is None else _loaded(code, device, options)
        return compile_for(device) if loaded is None else loaded

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(one, devices))


def _written(executable: Any) -> tuple[bytes, Any, Any] | None:
    """The code, and the trees of arguments and results; ``None``: it has no such form.

    What is raised then is different for every backend and every reason.
    """
    try:
        return serialize_executable.serialize(executable)
    except Exception:
        return None


def _loaded(
    code: tuple[bytes, Any, Any], device: Any, options: Mapping[str, Any]
) -> Any | None:
    """The code as a program for a device; ``None`` if it cannot be loaded there."""
    data, arguments, results = code
    try:
        unloaded, infos, no_kwargs = _Loading(data, device, options).load()
        found = jax.stages.Compiled(
            unloaded.load(), [], arguments.unflatten(infos), results,
            no_kwargs=no_kwargs,
        )  # fmt: skip
        code_there: Any = found.runtime_executable()
        there = list(code_there.local_devices())
    except Exception:  # internals of JAX may change; compiling is always right
        return None
    return found if there == [device] else None


class _Loading(pickle.Unpickler):
    """Reads what `serialize_executable.serialize` writes, all of it for one device."""

    def __init__(self, data: bytes, device: Any, options: Mapping[str, Any]):
        super().__init__(io.BytesIO(data))
        self._device, self._options = device, dict(options)

    def persistent_load(self, pid: Any) -> Any:
        """What is no plain data: the code itself, devices and the backend."""
        kind, *rest = pid
        if kind == "device":
            return self._device
        if kind == "client":
            return self._device.client
        if kind != "exec":
            raise pickle.UnpicklingError(f"unknown reference {kind!r}")
        options = backend.get_compile_options(
            1, 1, device_assignment=np.array([[self._device.id]]),
            env_options_overrides=self._options,
        )  # fmt: skip
        return self._device.client.deserialize_executable(
            *rest, executable_devices=[self._device], compile_options=options
        )
