"""Every single bit flip of a small net: the truth that estimates are held to.

Running through all numbers of a `FaultSpace` gives the exact rate that a random,
stratified or importance-sampled campaign must find.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from jeff.sweep.single_flips.fault_space import FaultSpace, enumerate_faults
from jeff.sweep.single_flips.inject import inject_fault

__all__ = ["exhaustive", "flip_one"]


def flip_one(params: Any, number: Any, space: FaultSpace) -> Any:
    """The weights with one bit flipped; flipping it again gives them back.

    Args:
      params: The pytree that `space` was made of.
      number: Number of the fault, an integer scalar, usually traced. A traced one that
        does not exist flips nothing.
      space: The numbering.

    Returns:
      A pytree of the same structure, shapes and dtypes.

    Raises:
      KeyError: If `params` lacks a leaf of `space`.
      ValueError: As `FaultSpace.locate`.

    Examples:
      >>> params = {"w": np.array([0, 5], np.int8)}
      >>> space = enumerate_faults(params)
      >>> print(flip_one(params, space.number("w", 1, 7), space)["w"])
      [   0 -123]
    """
    return inject_fault(params, space.locate(number), space)


def exhaustive(
    evaluate: Callable[[Any], Any],
    params: Any,
    *,
    space: FaultSpace | None = None,
    numbers: Any = None,
    chunk: int = 1024,
    batch_size: int | None = None,
) -> Any:
    """What every single bit flip does.

    One program is compiled, for `chunk` faults; the last chunk is filled up.

    Args:
      evaluate: ``evaluate(params) -> outcome``, pure and traceable; any pytree of
        arrays, such as whether the top class of some image changed.
      params: The weights.
      space: The numbering; ``None``: `enumerate_faults` of all leaves.
      numbers: Faults to inject, integers ``[n]``, such as a sample; ``None``: all.
      chunk: Faults of one call of the compiled program.
      batch_size: Faults evaluated at once by `jax.vmap`; ``None``: one after the other.

    Returns:
      The outcomes on the host, each array ``[n, ...]``.

    Raises:
      ValueError: If a number does not exist, there are none, `chunk` or `batch_size` is
        less than 1, or there are more faults than int32 numbers.

    Examples:
      >>> params = {"w": np.array([3, -1], np.int8)}
      >>> changed = exhaustive(lambda p: p["w"].argmax() != 0, params)
      >>> print(changed)  # 3 less 4 or with its sign flipped; -1 with its sign flipped
      [False False False False False False False  True False False False False
       False False False  True]
    """
    space = enumerate_faults(params) if space is None else space
    space.check_traceable()
    for name, value in (("chunk", chunk), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1: {name}={value!r}")
    numbers = np.arange(len(space)) if numbers is None else np.asarray(numbers)
    if numbers.ndim != 1 or not numbers.size:
        raise ValueError(f"numbers must be [n] with n >= 1, not {numbers.shape}")
    space.locate(numbers)  # checks them
    chunk = min(chunk, numbers.size)

    @jax.jit
    def run(params, some):
        return lax.map(
            lambda n: evaluate(flip_one(params, n, space)), some, batch_size=batch_size
        )

    done = []
    for start in range(0, numbers.size, chunk):
        some = numbers[start : start + chunk].astype(np.int32)
        filled = np.pad(some, (0, chunk - some.size), mode="edge")
        outcomes = run(params, filled)
        done.append(jax.tree.map(lambda a, n=some.size: np.asarray(a)[:n], outcomes))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *done)
