"""Which implementation of the product runs, and running it."""

from collections.abc import Sequence

import jax

from pallas_kernels import choice, hopper
from pallas_kernels.draw_matmul import mosaic_gpu, reference, xla
from pallas_kernels.draw_matmul.options import Options

__all__ = ["differentiable", "in_kernel", "resolve", "run"]


def resolve(
    keys: jax.Array,
    x: jax.Array,
    mean: jax.Array,
    std: jax.Array,
    options: Options,
    implementation: str | Sequence[str] | None,
) -> str:
    """The implementation that would run.

    ``None`` takes ``"mosaic_gpu"`` where the one device is a GPU of compute capability
    9.0 (or the product is inside a `shard_map`) and the kernel can do it, and ``"xla"``
    anywhere else: it never fails.

    Args:
      keys: ``[G, T]``.
      x: ``[G, B, K]``.
      mean: ``[K, N]``.
      std: ``[K, N]``.
      options: Settings.
      implementation: A name, several to try in order, or ``None``.

    Returns:
      Its name.

    Raises:
      ValueError: If a name is unknown.
      NotImplementedError: If the one implementation that was named cannot do it.
      ExceptionGroup: Of such errors, if none of several can.
    """

    def why_not(name):
        if not in_kernel(name):
            return None
        return mosaic_gpu.unsupported(keys, x, mean, std, options)

    if implementation is not None:
        return choice.chosen(implementation, why_not)
    able = hopper.is_hopper() and _alone() and why_not("mosaic_gpu") is None
    return "mosaic_gpu" if able else "xla"


def run(
    keys: jax.Array,
    x: jax.Array,
    mean: jax.Array,
    std: jax.Array,
    options: Options,
    name: str,
) -> jax.Array:
    """The product.

    Args:
      keys: ``[G, T]``.
      x: ``[G, B, K]``.
      mean: ``[K, N]``.
      std: ``[K, N]``.
      options: Settings.
      name: The implementation, from `resolve`.

    Returns:
      ``[G, T, B, N]``, float32.
    """
    if in_kernel(name):
        interpret = name == "interpret"
        return mosaic_gpu.multiply(keys, x, mean, std, options, interpret=interpret)
    module = reference if name == "reference" else xla
    return module.multiply(keys, x, mean, std, options)


def in_kernel(name: str) -> bool:
    """Whether an implementation is the kernel, which JAX can neither map nor derive."""
    return name in ("mosaic_gpu", "interpret")


def differentiable(name: str) -> str:
    """The implementation that gives the derivatives of another one.

    Args:
      name: From `resolve`.
    """
    return "xla" if in_kernel(name) else name


def _alone() -> bool:
    """Whether what is traced is of one device: XLA would gather what a kernel takes."""
    mesh = jax.sharding.get_abstract_mesh()
    inside = bool(mesh.axis_names) and set(mesh.manual_axes) == set(mesh.axis_names)
    return len(jax.devices()) == 1 or inside
