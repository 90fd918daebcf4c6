"""Products with drawn matrices on Hopper GPUs: a Pallas kernel for Mosaic GPU.

Every thread owns a column of the matrix and some voters. Down the column it forms
``beta = x * std`` from tiles that the copy engine brings to shared memory, draws the
noise of its voters in registers (the 20 rounds of `threefry`, then `gaussian`), and
multiplies and adds. It also sums ``eta = x @ mean``, once for its voters. No noise is
ever in memory, and no sum goes from thread to thread.

Where columns are few, the matrix stands beside itself several times, each time for
other voters; where blocks are few, they share K. Their sums are added in order, so that
a product is bit-equal from run to run.

The compiled kernel takes the logarithm and the inverse square root of the special
function units. The logarithm to base 2 is off by ``2**-22`` near 1 and by that share of
itself elsewhere (NVIDIA, PTX ISA, ``lg2.approx``), which moves a normal number by about
one and two units in the last place.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.draw_matmul.config import LANES, Config, Shapes, heuristic
from pallas_kernels.draw_matmul.options import Options, normal

__all__ = ["multiply", "shapes_of", "unsupported"]

_DTYPES = ("bfloat16", "float16", "float32")
_LONGEST = 2**31 - 1


def multiply(
    keys: jax.Array,
    x: jax.Array,
    mean: jax.Array,
    std: jax.Array,
    options: Options,
    *,
    interpret: bool = False,
    detect_races: bool = False,
) -> jax.Array:
    """``x @ (mean + std * H)`` for every key, on a Hopper GPU or in the interpreter.

    Args:
      keys: ``[G, T]``.
      x: ``[G, 1, K]``.
      mean: ``[K, N]``.
      std: ``[K, N]``.
      options: The settings of the kernel, and what it cannot do.
      interpret: Run in the Pallas interpreter, on any machine.
      detect_races: In the interpreter, also look for races.

    Returns:
      ``[G, T, 1, N]``, float32.

    Raises:
      NotImplementedError: If the kernel cannot do this product; see `unsupported`.
    """
    from pallas_kernels.draw_matmul import block  # Pallas is slow to import

    reason = unsupported(keys, x, mean, std, options)
    if reason is not None:
        raise NotImplementedError(f"mosaic_gpu: {reason}")
    shapes = shapes_of(keys, mean, std)
    config = heuristic(shapes) if options.config is None else options.config
    voter_blocks, lane_blocks, _ = config.blocks(shapes)
    threads = voter_blocks // shapes.branches * config.voters
    lanes = lane_blocks * LANES

    def matrix(a):
        a = jnp.tile(a, (1, config.copies))
        return _padded(a, config.tiles(shapes) * config.depth, lanes)

    arrays = (
        _row_keys(keys, threads, config.copies, shapes.columns, lanes),
        _padded(x[:, 0].astype(jnp.float32), config.tiles(shapes) * config.depth),
        matrix(mean),
        matrix(std),
    )
    out = (shapes.branches, config.split_k, threads, lanes)
    run = block.kernel(arrays, out, config, interpret=interpret, races=detect_races)
    parts = run(*arrays)
    y = sum((parts[:, i] for i in range(1, config.split_k)), parts[:, 0])
    y = y[..., : config.copies * shapes.columns]
    y = y.reshape(shapes.branches, -1, 1, shapes.columns)
    return y[:, : shapes.voters]


def unsupported(
    keys: jax.Array, x: jax.Array, mean: jax.Array, std: jax.Array, options: Options
) -> str | None:
    """Why the kernel cannot do a product; ``None`` if it can.

    Args:
      keys: ``[G, T]``.
      x: ``[G, B, K]``.
      mean: ``[K, N]``.
      std: ``[K, N]``.
      options: Settings.
    """
    if options.method != "dm":
        return f"method must be 'dm', got {options.method!r}"
    if options.draw is not normal:
        return f"draw must be the default, jax.random.normal, got {options.draw}"
    kind = jax.random.key_impl(keys)
    if kind != "threefry2x32":
        return f"keys must be of threefry2x32, got {kind}"
    if not jax.config.jax_threefry_partitionable:  # pyright: ignore
        return "jax_threefry_partitionable must be on"
    if x.shape[1] != 1:
        return f"x must have one row per branch of voters, got {x.shape[1]}"
    for name, a in (("mean", mean), ("std", std)):
        if a.dtype.name not in _DTYPES:
            return f"{name} must be of {_DTYPES}, got {a.dtype}"
    if mean.shape[0] > _LONGEST:
        return f"K must be at most {_LONGEST}, got {mean.shape[0]}"
    for name, a in (("keys", keys), ("x", x), ("mean", mean), ("std", std)):
        if any(axis is not None for axis in jax.typeof(a).sharding.spec):
            return f"{name} must not be sharded in its type, as on explicit meshes"
    shapes = shapes_of(keys, mean, std)
    config = options.config
    if config is None:
        config = Config(voters=1)  # the smallest; if any fits, it does
    if not config.fits(shapes):
        return f"{config} does not fit {shapes}"
    return None


def shapes_of(keys: jax.Array, mean: jax.Array, std: jax.Array) -> Shapes:
    """What the settings of the kernel depend on.

    Args:
      keys: ``[G, T]``.
      mean: ``[K, N]``.
      std: ``[K, N]``.
    """
    branches, voters = keys.shape
    size, columns = mean.shape
    return Shapes(
        branches=branches,
        voters=voters,
        size=size,
        columns=columns,
        weight_bytes=mean.dtype.itemsize + std.dtype.itemsize,
    )


def _row_keys(keys, threads: int, copies: int, columns: int, lanes: int) -> jax.Array:
    """Keys of all columns of all voters, uint32 ``[2, G, threads, lanes]``.

    Lane ``c * N + n`` of thread t is column n of voter ``t * copies + c``.
    """
    numbers = jnp.arange(columns, dtype=jnp.uint32)

    def words(key):
        of_rows = jax.vmap(lambda n: jax.random.fold_in(key, n))(numbers)
        return jax.random.key_data(of_rows)

    made: Any = jnp.moveaxis(jax.vmap(jax.vmap(words))(keys), -1, 0)
    made = _padded(made, threads * copies, columns)
    made = made.reshape(*made.shape[:2], threads, copies * columns)
    return _padded(made, lanes)


def _padded(a: jax.Array, *sizes: int) -> jax.Array:
    """`a` with zeros at the ends of its last axes, up to some sizes."""
    short = [0] * (a.ndim - len(sizes))
    short += [n - m for n, m in zip(sizes, a.shape[-len(sizes) :], strict=True)]
    return jnp.pad(a, [(0, n) for n in short]) if any(short) else a
