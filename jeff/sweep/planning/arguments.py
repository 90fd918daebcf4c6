"""The arguments of a sweep, checked before anything is traced."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import tree
from jeff.sweep import checks
from jeff.sweep.trial import Trial

__all__ = ["Sweep", "check_over", "checked"]


class Sweep(NamedTuple):
    """What is swept, checked.

    Attributes:
      trial: What one trial does.
      key: The key, typed, a scalar.
      rates: ``[rates]``, of the default float dtype.
      trials: Trials of each point.
      data: The examples, on the host; each array ``[examples, ...]`` of a dtype of JAX.
      examples: How many.
      designs: The designs, on the host, each array ``[design_count, ...]``; ``None``.
      design_count: How many; 1 without designs.
    """

    trial: Trial
    key: jax.Array
    rates: np.ndarray
    trials: int
    data: Any
    examples: int
    designs: Any
    design_count: int

    @property
    def points(self) -> int:
        """Number of pairs of a design and a rate."""
        return self.design_count * len(self.rates)


def checked(
    trial: Trial,
    key: jax.Array,
    *,
    rates: Sequence[float],
    trials: int,
    data: Any,
    designs: Any = None,
) -> Sweep:
    """The arguments of a sweep, or an error that names what is wrong with them.

    Args:
      trial: What one trial does.
      key: A typed key.
      rates: Finite numbers from 0 on. Rates above 1 are refused by campaigns with a
        fault model that refuses them; its sigmas may be larger.
      trials: Trials of each point.
      data: A pytree of arrays ``[examples, ...]``.
      designs: A pytree of arrays ``[designs, ...]``, or ``None``.

    Returns:
      The checked arguments.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If its value cannot be swept.

    Examples:
      >>> trial = Trial(lambda key, rate, design: rate, lambda faulty, batch: faulty)
      >>> key = jax.random.key(0)
      >>> checked(trial, key, rates=[0.1], trials=2, data=np.ones(3)).examples
      3
      >>> checked(trial, key, rates=[0.1, -0.5], trials=2, data=np.ones(3))
      Traceback (most recent call last):
        ...
      ValueError: rates[1] must be finite and at least 0, got -0.5
    """
    parts = trial if isinstance(trial, tuple) else ()
    if not (len(parts) in (2, 3) and all(map(callable, parts[:2]))):
        raise TypeError(f"trial must be a jeff.sweep.Trial, got {type(trial).__name__}")
    if not (
        isinstance(key, jax.Array)
        and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        and key.shape == ()
    ):
        got = f"{key.dtype}{list(key.shape)}" if hasattr(key, "dtype") else repr(key)
        raise TypeError(f"key must be one key as jax.random.key gives it, got {got}")
    examples, host_data = _stacked("data", "examples", data)
    design_count, host_designs = 1, None
    if designs is not None:
        design_count, host_designs = _stacked("designs", "designs", designs)
    sweep = Sweep(
        Trial(*trial), key, _rates(rates), checks.positive("trials", trials),
        host_data, examples, host_designs, design_count,
    )  # fmt: skip
    if sweep.trial.check is not None:
        shapes = jax.tree.map(_shape, host_data)
        one = jax.tree.map(lambda a: _shape(a[0]), host_designs)
        sweep.trial.check(sweep.rates.tolist(), shapes, one)
    return sweep


def check_over(over: Any) -> str | int:
    """Refuses what is no way to run the trials of a unit.

    Args:
      over: ``"vmap"``, ``"map"``, or how many trials at a time.

    Returns:
      The same.

    Raises:
      ValueError: If it is another word or thing, or a number that is not positive.

    Examples:
      >>> check_over("map"), check_over(4)
      ('map', 4)
    """
    if over in ("vmap", "map"):
        return over
    try:
        return checks.positive("trials at a time", over)
    except TypeError:
        raise ValueError(
            "how trials run must be 'vmap' or 'map', or how many at a time, got "
            f"{over!r}"
        ) from None


def _rates(rates: Any) -> np.ndarray:
    values = checks.rates("rates", rates, most=np.inf)
    if not values.size:
        raise ValueError("rates must hold at least one rate")
    with np.errstate(under="ignore", over="ignore"):
        rounded = values.astype(jax.dtypes.canonicalize_dtype(float))
    lost = ((values > 0) & (rounded == 0)) | np.isinf(rounded)
    for i in np.flatnonzero(lost):
        raise ValueError(
            f"rates[{i}]={values[i]:g} is {rounded[i]:g} as {rounded.dtype}"
        )
    return rounded


def _stacked(name: str, what: str, value: Any) -> tuple[int, Any]:
    """Length of the leading axis that all arrays share, and the arrays on the host."""
    leaves = jax.tree_util.tree_leaves_with_path(value)
    if not leaves:
        raise ValueError(f"{name} holds no array")
    sizes = {}
    for path, leaf in leaves:
        full = ".".join(filter(None, [name, tree.path_name(path)]))
        if not hasattr(leaf, "dtype"):
            raise TypeError(f"{full} must be an array, got {type(leaf).__name__}")
        if not leaf.shape:
            raise ValueError(f"{full} must have a leading axis of {what}, got a scalar")
        sizes[full] = leaf.shape[0]
    (first, size), *others = sizes.items()
    for other, n in others:
        if n != size:
            raise ValueError(f"{first} has {size} {what}, but {other} has {n}")
    if not size:
        raise ValueError(f"{name} holds no {what}: {first} is empty")
    return size, jax.tree.map(_on_host, value)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _on_host(leaf: Any) -> Any:
    """A NumPy array of a dtype of JAX; keys stay what they are."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return leaf
    with np.errstate(over="ignore"):
        array = np.asarray(leaf)
        return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)
