"""Flipout: one noise matrix per voter, with signs per example that decorrelate it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jeff.dm_bnn.mean_field import MeanField
from jeff.dm_bnn.wide import added, widened
from jeff.program.presentation import Presentation
from pallas_kernels import threefry

__all__ = ["Layout", "flipout", "flipped", "layout"]


class Layout(NamedTuple):
    """Axes of a site's input and output.

    Attributes:
      x: Of the input: that of the examples, that of the channels.
      y: Of the output.
    """

    x: tuple[int, int] = (0, -1)
    y: tuple[int, int] = (0, -1)


def layout(view: Presentation) -> Layout:
    """Where the examples and channels of a site are.

    Args:
      view: How the site presents itself.

    Returns:
      The first and the last axis, for a convolution those of its dimension numbers.
    """
    if view.kind != "conv":
        return Layout()
    numbers = view.eqn.params["dimension_numbers"]
    return Layout(tuple(numbers.lhs_spec[:2]), tuple(numbers.out_spec[:2]))


def flipout(
    op: Callable[..., jax.Array],
    x: jax.Array,
    w: MeanField,
    key: jax.Array,
    draw: Callable[[Any, int], jax.Array],
    axes: Layout,
) -> jax.Array:
    """The output of one voter.

    Args:
      op: The operation, linear in the weight, with a result as wide as its operands.
      x: Its input.
      w: The weight.
      key: Of this voter.
      draw: ``draw(key, count)``.
      axes: Where examples and channels are.

    Returns:
      ``op(x, mean) + op(x * s, std * noise) * r`` with signs s and r per example and
      channel.

    References:
      Wen et al., "Flipout: efficient pseudo-independent weight perturbations on
      mini-batches", ICLR 2018, eq. 4.
    """
    of_noise, of_x, of_y = (jax.random.fold_in(key, i) for i in range(3))
    noise = draw(of_noise, w.size).reshape(w.shape).astype(widened(w.std).dtype)
    like = jax.eval_shape(op, x, w.mean)
    signs_x, signs_y = _signs(of_x, x, axes.x), _signs(of_y, like, axes.y)
    return flipped(op, x, w, noise, signs_x, signs_y)


def flipped(op, x, w: MeanField, noise, signs_x, signs_y) -> jax.Array:
    """Flipout with what is drawn given.

    Args:
      op: The operation, linear in the weight, with a result as wide as its operands.
      x: Its input.
      w: The weight.
      noise: Of the shape of the weight.
      signs_x: -1 or 1, broadcast to the input.
      signs_y: Likewise to the output.

    Returns:
      ``op(x, mean) + op(x * signs_x, std * noise) * signs_y``, of the dtype of the
      first term; the second is made in float32 where operands have 16 bits.
    """
    change = op(widened(x * signs_x), widened(w.std) * widened(noise))
    return added(op(x, w.mean), change * signs_y.astype(change.dtype))


def _signs(key: jax.Array, like: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """Signs per example and channel; equal along all other axes."""
    kept = {axis % like.ndim for axis in axes}
    shape = [n if i in kept else 1 for i, n in enumerate(like.shape)]
    return jax.random.rademacher(threefry.unrolled(key), shape, like.dtype)
