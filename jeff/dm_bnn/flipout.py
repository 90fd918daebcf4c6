"""Flipout: one noise matrix per voter, with signs per example that decorrelate it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jeff.dm_bnn.mean_field import MeanField
from jeff.program.graph import Step

__all__ = ["Layout", "flipout", "flipped", "layout"]


class Layout(NamedTuple):
    """Axes of a site's input and output.

    Attributes:
      x: Of the input: that of the examples, that of the channels.
      y: Of the output.
    """

    x: tuple[int, int] = (0, -1)
    y: tuple[int, int] = (0, -1)


def layout(step: Step) -> Layout:
    """Where the examples and channels of a site are.

    Args:
      step: The site's.

    Returns:
      The first and the last axis, for a convolution those of its dimension numbers.
    """
    if step.kind != "conv":
        return Layout()
    numbers = step.eqn.params["dimension_numbers"]
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
      op: The operation, linear in the weight.
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
    noise = draw(of_noise, w.size).reshape(w.shape).astype(w.dtype)
    like = jax.eval_shape(op, x, w.mean)
    signs_x, signs_y = _signs(of_x, x, axes.x), _signs(of_y, like, axes.y)
    return flipped(op, x, w, noise, signs_x, signs_y)


def flipped(op, x, w: MeanField, noise, signs_x, signs_y) -> jax.Array:
    """Flipout with what is drawn given.

    Args:
      op: The operation, linear in the weight.
      x: Its input.
      w: The weight.
      noise: Of the shape of the weight.
      signs_x: -1 or 1, broadcast to the input.
      signs_y: Likewise to the output.

    Returns:
      ``op(x, mean) + op(x * signs_x, std * noise) * signs_y``.
    """
    return op(x, w.mean) + op(x * signs_x, w.std * noise) * signs_y


def _signs(key: jax.Array, like: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """Signs per example and channel; equal along all other axes."""
    kept = {axis % like.ndim for axis in axes}
    shape = [n if i in kept else 1 for i, n in enumerate(like.shape)]
    return jax.random.rademacher(key, shape, like.dtype)
