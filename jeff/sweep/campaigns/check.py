"""What can be wrong with a fault campaign, found on shapes before anything runs."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff import base
from jeff.faults.naming import naming
from jeff.faults.where import Where, chosen, is_product
from jeff.program import Site, sites
from jeff.sweep.campaigns import suffix
from jeff.sweep.campaigns.batches import spread

__all__ = ["check_features", "check_images", "check_weights"]

ModelOfRate = Callable[[Any], Any]


def check_weights(
    model_of_rate: ModelOfRate, rates: Sequence[float], params: Any
) -> None:
    """Draws the faults of weights on shapes, at every known rate.

    Args:
      model_of_rate: Of `weight_faults`.
      rates: The rates of the sweep.
      params: Params or their shapes.

    Raises:
      TypeError: If a model cannot act on a leaf; the message names rate and leaf.
      ValueError: If a rate is above the model's `max_rate` or not reachable.

    Examples:
      >>> from jeff.faults import bit_flip, on_weights
      >>> model = lambda rate: on_weights(bit_flip(rate, max_rate=0.1))
      >>> check_weights(model, [0.0, 0.5], {"w": jnp.zeros(3)})
      Traceback (most recent call last):
      ValueError: rates[1]=0.5: leaf 'w': rate must be at most max_rate=0.1, got 0.5
    """
    for i, rate in enumerate(rates):
        with naming(f"rates[{i}]={rate:.6g}"):
            model = model_of_rate(_rate(rate))
            jax.eval_shape(lambda k, m=model: m.sample(k, params), _key())


def check_features(
    model_of_rate: ModelOfRate,
    rates: Sequence[float],
    apply: Callable[..., Any],
    params: Any,
    inputs: Any,
    where: Where | None,
) -> None:
    """Finds the sites to hit, and draws their faults on shapes at every known rate.

    Args:
      model_of_rate: Of `feature_faults`.
      rates: The rates of the sweep.
      apply: The program, or a `Suffix`.
      params: Its params, or their shapes.
      inputs: Its inputs ``[examples, ...]``, or their shapes.
      where: Which sites.

    Raises:
      TypeError: If a model cannot act on a site's output; rate and site are named.
      ValueError: If `where` chooses no site; as `check_weights`.

    Examples:
      >>> from jeff.faults import bit_flip
      >>> check_features(bit_flip, [0.1], lambda p, x: x @ p["up"],
      ...     {"up": jnp.zeros((2, 2))}, jnp.zeros((5, 2)), ["up.w"])
      Traceback (most recent call last):
      ValueError: where names 'up.w', which is no site; nearest: up
    """
    found = {site.name: site for site in _sites(apply, params, inputs)}
    hit = [found[n] for n in chosen(where, found, is_product, "site")]
    for i, rate in enumerate(rates):
        with naming(f"rates[{i}]={rate:.6g}"):
            model = model_of_rate(_rate(rate))
            drawn = set()
            for site in hit:
                same = isinstance(model, base.FaultModel)
                own = model if same else model(site)
                like = jax.ShapeDtypeStruct(site.y_shape[1:], site.dtype)
                alike = like.shape, like.dtype
                if own is None or (same and alike in drawn):
                    continue
                with naming(f"site {site.name!r}"):
                    jax.eval_shape(lambda k, m=own, y=like: m.sample(k, y), _key())
                drawn.add(alike)


def check_images(per_image: int | None, data: Any) -> None:
    """Refuses counts per image of another number of images than there are.

    Args:
      per_image: The number that a campaign was made for, or ``None``.
      data: The sweep's `Examples`, or their shapes.

    Raises:
      ValueError: If it is another one.

    Examples:
      >>> from jeff.sweep import Examples
      >>> check_images(3, Examples(None, jnp.zeros(2, jnp.int32), None))
      Traceback (most recent call last):
      ValueError: per_image=3, but the sweep has 2 examples
    """
    if per_image is not None and per_image != data.labels.shape[0]:
        raise ValueError(
            f"per_image={per_image}, but the sweep has {data.labels.shape[0]} examples"
        )


def _sites(apply, params, inputs) -> list[Site]:
    """The sites that a rule sees: of the program, or of its end."""
    if isinstance(apply, suffix.Suffix):
        piece = suffix.fit(apply.apply, apply.point, apply.params, apply.inputs, 1)
        names = {*piece.sites(), *piece.marks()}
        return [site for site in piece.found.sites if site.name in names]
    few = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((min(2, a.shape[0]), *a.shape[1:]), a.dtype),
        spread(inputs),
    )
    return list(sites(apply, params, *few))


def _rate(rate: float) -> jax.Array:
    """The rate as a sweep gives it, but known."""
    return jnp.asarray(rate, jax.dtypes.canonicalize_dtype(float))


def _key() -> jax.Array:
    return jax.random.key(0)
