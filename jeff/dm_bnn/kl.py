"""Divergence of a mean-field posterior from its Gaussian prior, in closed form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff import base, tree
from jeff.dm_bnn.mean_field import MeanField

__all__ = ["gaussian_kl", "kl"]


def gaussian_kl(
    mean: jax.Array,
    std: jax.Array,
    prior_mean: "float | jax.Array" = 0.0,
    prior_std: "float | jax.Array" = 1.0,
) -> jax.Array:
    """Divergence of ``N(m, s^2)`` from ``N(m0, s0^2)``, of each weight.

    ``ln(s0 / s) + (s^2 + (m - m0)^2) / (2 s0^2) - 1 / 2``.

    Args:
      mean: Any shape, floating.
      std: Likewise, positive.
      prior_mean: Broadcasts to it.
      prior_std: Likewise, positive.

    Returns:
      Nats of each element, in float32 (float64 for float64); infinite where `std` is 0.

    Examples:
      >>> print(gaussian_kl(jnp.array([0.0, 2.0]), jnp.array([1.0, 1.0])))
      [0. 2.]

    References:
      S. Kullback and R. A. Leibler, "On information and sufficiency", Annals of
      Mathematical Statistics 22, 1951; the integral of the two quadratic logarithms.
    """
    return _gaussian_kl(mean, std, prior_mean, prior_std)


def kl(posterior: Any, prior_mean: Any = 0.0, prior_std: Any = 1.0) -> jax.Array:
    """Divergence of a posterior from the prior, *summed* over all random weights.

    Some libraries take the mean over the weights of a layer instead: a divergence that
    is smaller by their number, and is not that of the evidence lower bound.

    Args:
      posterior: Params tree with `MeanField` leaves; others count nothing.
      prior_mean: One number, or a tree in the containers of `posterior` whose leaves
        broadcast to the weights (those at leaves that are not random are not used).
      prior_std: Likewise, positive.

    Returns:
      A float32 scalar in nats; 0 without random weights.

    Raises:
      ValueError: If a prior is a tree of other leaves, or a number that is no possible
        mean or standard deviation.

    Examples:
      >>> one = MeanField(jnp.zeros(3), jnp.ones(3))
      >>> print(kl({"w": one, "b": jnp.ones(2)}), kl({"w": one}, prior_mean=2.0))
      0.0 6.0

    References:
      C. Blundell et al., "Weight uncertainty in neural networks", ICML 2015
      (arXiv 1505.05424), equation 1 (there estimated from samples; closed here).
    """
    leaves, _ = tree.flatten(posterior)
    means = _each(prior_mean, leaves, "prior_mean")
    stds = _each(prior_std, leaves, "prior_std")
    return _total(
        [
            (leaf.mean, leaf.std, means[name], stds[name])
            for name, leaf in leaves.items()
            if isinstance(leaf, MeanField)
        ]
    )


@jax.jit
def _gaussian_kl(mean, std, prior_mean, prior_std) -> jax.Array:
    wide = np.promote_types(mean.dtype, jnp.float32)
    mean, std, prior_mean, prior_std = (
        jnp.asarray(x).astype(wide) for x in (mean, std, prior_mean, prior_std)
    )
    spread, shift = std / prior_std, (mean - prior_mean) / prior_std
    return (jnp.square(spread) - 1 + jnp.square(shift)) / 2 - jnp.log(spread)


@jax.jit
def _total(weights: list[tuple[Any, ...]]) -> jax.Array:
    total = jnp.zeros((), jnp.float32)
    for weight in weights:
        total = total + _gaussian_kl(*weight).sum().astype(jnp.float32)
    return total


def _each(prior: Any, leaves: dict[str, Any], name: str) -> dict[str, Any]:
    """The prior's value for each leaf."""
    if isinstance(prior, (int, float)):
        if not (abs(prior) < float("inf") and (name == "prior_mean" or prior > 0)):
            kind = "finite" if name == "prior_mean" else "positive and finite"
            raise ValueError(f"{name} must be {kind}: {prior}")
        return dict.fromkeys(leaves, prior)
    values, _ = tree.flatten(prior)
    if list(values) == [""] and not base.is_stored(prior):  # one array for all
        return dict.fromkeys(leaves, prior)
    if values.keys() != leaves.keys():
        different = sorted(values.keys() ^ leaves.keys())
        raise ValueError(
            f"{name} must be a tree like posterior; they differ: {different}"
        )
    return values
