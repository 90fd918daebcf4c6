"""The public product with drawn matrices: checks, derivatives, maps, dispatch."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from pallas_kernels.draw_matmul import dispatch
from pallas_kernels.draw_matmul.config import Config
from pallas_kernels.draw_matmul.options import Options, normal

__all__ = ["METHODS", "draw_matmul", "resolve"]

METHODS = ("dm", "scale_location")


def draw_matmul(
    keys: jax.Array,
    x: jax.Array,
    mean: jax.Array,
    std: jax.Array,
    *,
    method: str = "dm",
    alpha: float = 1.0,
    draw: Callable[[Any, int], jax.Array] | None = None,
    tile: int = 2**14,
    implementation: str | Sequence[str] | None = None,
    config: Config | None = None,
) -> jax.Array:
    """``x @ (mean + std * H_t)`` for voters t, with noise that is never stored.

    Column n of ``H_t`` is ``draw(fold_in(keys[t], n), K)``, whatever the method, the
    blocks, the tile and the implementation, so that all of them give the same voters
    up to rounding.

    Maps over `keys` alone are more voters and share what is memorised; maps over `x`
    alone are more rows, which share the voters' noise. Differentiable in `x`, `mean`
    and `std`, forward and backward; noise is drawn again for it.

    Args:
      keys: Typed JAX keys ``[T]``, one per voter.
      x: ``[..., K]``, floating.
      mean: ``[K, N]``, floating.
      std: ``[K, N]``, floating.
      method: ``"dm"`` memorises ``eta = x @ mean`` and ``beta = x * std`` and makes
        ``eta + sum(H_t * beta)``: ``B (T + 2) K N`` products for B rows.
        ``"scale_location"`` makes ``mean + std * H_t`` and multiplies, in
        ``T (B + 1) K N``.
      alpha: Share of the columns whose `eta` and `beta` are memorised at a time, in
        (0, 1]; ``beta`` takes ``alpha B K N`` words. The kernel memorises a tile.
      draw: ``draw(key, count) -> float32[count]``, numbers of mean 0 and variance 1;
        ``None`` for `jax.random.normal`.
      tile: Draws that ``"xla"`` holds at a time.
      implementation: ``"xla"``; ``"reference"``, which stores all noise;
        ``"mosaic_gpu"``, a kernel that draws in registers, for one row x per branch of
        voters, the method ``"dm"`` and the default draw; ``"interpret"``, the same
        kernel in the Pallas interpreter; several of them to try in order; or ``None``
        for the best that can: see `resolve`. ``"xla"`` gives the kernel's derivatives.
      config: Settings of the kernel; ``None`` for those of the least estimated time.

    Returns:
      ``[T, ..., N]``, of the dtype of `x`; sums are float32.

    Raises:
      TypeError: If `keys` are no typed keys, or another array is not floating.
      ValueError: If shapes do not fit, a name is unknown, or `alpha` or `tile` is out
        of range.
      NotImplementedError: If the one implementation that was named cannot do it.
      ExceptionGroup: Of such errors, if none of several can.

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> x, mean, std = jnp.ones(4), jnp.ones((4, 2)), jnp.full((4, 2), 0.1)
      >>> dm = draw_matmul(keys, x, mean, std)
      >>> dm.shape
      (3, 2)
      >>> standard = draw_matmul(keys, x, mean, std, method="scale_location")
      >>> bool(jnp.allclose(dm, standard, rtol=1e-5))
      True

    References:
      arXiv 2005.03857: decomposition, memorisation, the memory-friendly framework
      (alpha). Counts: derivation, a product per entry of each factor.
    """
    options = Options(
        method, float(alpha), normal if draw is None else draw, tile, config
    )
    _check(keys, x, mean, std, options)
    if not isinstance(implementation, str | None):
        implementation = tuple(implementation)
    y = _product(keys[None], _rows(x), mean, std, options, implementation)
    y = y.reshape(keys.shape[0], *x.shape[:-1], mean.shape[1])
    return y.astype(x.dtype)


def resolve(
    keys: jax.Array,
    x: jax.Array,
    mean: jax.Array,
    std: jax.Array,
    *,
    method: str = "dm",
    draw: Callable[[Any, int], jax.Array] | None = None,
    implementation: str | Sequence[str] | None = None,
    config: Config | None = None,
) -> str:
    """The implementation that `draw_matmul` would run.

    ``None`` takes ``"mosaic_gpu"`` where the one device is a GPU of compute capability
    9.0 (or the product is inside a `shard_map`) and the kernel can do it, and ``"xla"``
    anywhere else: it never fails. A map over x alone makes more rows, which the kernel
    refuses; one over keys and x makes branches, which it takes.

    Args:
      keys: ``[T]``.
      x: ``[..., K]``.
      mean: ``[K, N]``.
      std: ``[K, N]``.
      method: As in `draw_matmul`.
      draw: As there.
      implementation: As there.
      config: As there.

    Returns:
      ``"reference"``, ``"xla"``, ``"mosaic_gpu"`` or ``"interpret"``.

    Raises:
      TypeError: As `draw_matmul`.
      ValueError: As `draw_matmul`.
      NotImplementedError: As `draw_matmul`.
      ExceptionGroup: As `draw_matmul`.

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> w = jnp.ones((4, 2))
      >>> resolve(keys, jnp.ones(4), w, w, implementation=("mosaic_gpu", "xla"))
      'mosaic_gpu'
      >>> resolve(keys, jnp.ones((5, 4)), w, w, implementation=("mosaic_gpu", "xla"))
      'xla'
    """
    options = Options(method, draw=normal if draw is None else draw, config=config)
    _check(keys, x, mean, std, options)
    return dispatch.resolve(keys[None], _rows(x), mean, std, options, implementation)


def _check(keys, x, mean, std, options: Options) -> None:
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.ndim != 1:
        raise TypeError(
            f"keys must be typed JAX keys [T], got {keys.dtype} of shape {keys.shape}"
        )
    for name, a in (("x", x), ("mean", mean), ("std", std)):
        if not jnp.issubdtype(a.dtype, jnp.floating):
            raise TypeError(f"{name} must be floating, got {a.dtype}")
    if mean.ndim != 2 or std.shape != mean.shape:
        raise ValueError(
            f"mean and std must be matrices of one shape, got {mean.shape} and "
            f"{std.shape}"
        )
    if x.ndim < 1 or x.shape[-1] != mean.shape[0] or 0 in (*mean.shape, *keys.shape):
        raise ValueError(
            f"x of shape {x.shape} does not fit a matrix of shape {mean.shape} and "
            f"{keys.shape[0]} voters"
        )
    if options.method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {options.method!r}")
    if not 0 < options.alpha <= 1:
        raise ValueError(f"alpha must be in (0, 1], got {options.alpha}")
    if options.tile < 1:
        raise ValueError(f"tile must be positive, got {options.tile}")


def _rows(x: jax.Array) -> jax.Array:
    """One branch of rows, ``[1, B, K]``."""
    return x.reshape(1, math.prod(x.shape[:-1]), x.shape[-1])


@functools.partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _product(keys, x, mean, std, options, implementation):
    """Keys ``[G, T]``, rows ``[G, B, K]`` to ``[G, T, B, N]``."""

    @custom_vmap
    def run(keys, x, mean, std):
        name = dispatch.resolve(keys, x, mean, std, options, implementation)
        return dispatch.run(keys, x, mean, std, options, name)

    @run.def_vmap
    def _mapped(size, mapped, keys, x, mean, std):
        of_keys, of_x, *of_weights = mapped
        again = functools.partial(
            _product, options=options, implementation=implementation
        )
        if any(of_weights):
            return _over_weights(mapped, (keys, x, mean, std), options, implementation)
        if of_keys and of_x:  # more branches
            y = again(_merged(keys), _merged(x), mean, std)
            return y.reshape(size, -1, *y.shape[1:]), True
        if of_keys:  # more voters, [size, G, T] -> [G, size * T]
            more = jnp.moveaxis(keys, 0, 1)
            y = again(more.reshape(more.shape[0], -1), x, mean, std)
            y = y.reshape(y.shape[0], size, -1, *y.shape[2:])
            return jnp.moveaxis(y, 1, 0), True
        more = jnp.moveaxis(x, 0, 1)  # more rows, [size, G, B, K] -> [G, size * B, K]
        rows = more.reshape(more.shape[0], -1, more.shape[-1])
        y = again(keys, rows, mean, std)
        y = y.reshape(*y.shape[:2], size, -1, y.shape[-1])
        return jnp.moveaxis(y, 2, 0), True

    return run(keys, x, mean, std)


def _over_weights(mapped, arrays, options, implementation):
    """Products with several matrices: mapped, or by the kernel one after the other."""
    arrays = tuple(arrays)
    one = [a[0] if m else a for a, m in zip(arrays, mapped, strict=True)]
    name = dispatch.resolve(*one, options, implementation)
    run = functools.partial(dispatch.run, options=options, name=name)
    if not dispatch.in_kernel(name):
        axes = [0 if m else None for m in mapped]
        return jax.vmap(run, in_axes=axes)(*arrays), True

    def of_some(some):
        taken = iter(some)
        each = zip(arrays, mapped, strict=True)
        return run(*(next(taken) if m else a for a, m in each))

    some = [a for a, m in zip(arrays, mapped, strict=True) if m]
    return jax.lax.map(of_some, some), True


@_product.defjvp
def _product_jvp(options, implementation, primals, tangents):
    # Linear in x, and in mean and std together; the noise is a constant.
    keys, x, mean, std = primals
    y = _product(keys, x, mean, std, options, implementation)
    name = dispatch.resolve(keys, x, mean, std, options, implementation)
    name = dispatch.differentiable(name)

    @jax.checkpoint
    def plain(x, mean, std):
        return dispatch.run(keys, x, mean, std, options, name)

    return y, jax.jvp(plain, (x, mean, std), tuple(tangents[1:]))[1]


def _merged(array):
    return array.reshape(-1, *array.shape[2:])
