"""What voters say together: their mean, and two kinds of uncertainty."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Predictive", "predictive"]


class Predictive(NamedTuple):
    """The predictive distribution of a classifier's voters; information in nats.

    Attributes:
      probs: ``[..., classes]``, mean over voters of their probabilities.
      entropy: ``[...]``, total uncertainty: entropy of `probs`.
      expected_entropy: ``[...]``, aleatoric: mean over voters of their entropy.
      mutual_information: ``[...]``, epistemic: `entropy` less `expected_entropy`, not
        negative; how much the voters disagree.
      variance: ``[..., classes]``, over voters of their probabilities (divided by their
        number).

    Examples:
      >>> sure = predictive(jnp.array([[[0.0, 50.0]], [[50.0, 0.0]]]))
      >>> print(sure.probs[0], sure.mutual_information)  # voters sure of two answers
      [0.5 0.5] [0.6931472]
    """

    probs: jax.Array
    entropy: jax.Array
    expected_entropy: jax.Array
    mutual_information: jax.Array
    variance: jax.Array


def predictive(logits: jax.Array) -> Predictive:
    """Mean, entropies, mutual information and variance over voters.

    With ``p_t`` the softmax of voter `t` and ``p`` their mean,
    ``entropy = -sum_c p_c ln p_c``, and the mutual information of label and weights is
    ``mean_t sum_c p_tc ln(p_tc / p_c)``. Its terms are taken as
    ``p_c ((1 + d) ln(1 + d) - d)`` with ``d = p_tc / p_c - 1``, which is the same
    because the `d` of a class cancel, and never negative: a difference of entropies
    would be lost to rounding where voters nearly agree. These are estimates from `T`
    voters; the mutual information of few is too small, by about
    ``(classes - 1) / (2 T)`` at most.

    Args:
      logits: ``[voters, ..., classes]``, floating; ``-inf`` is a class without chance.

    Returns:
      Arrays in float32 (float64 for float64 logits). NaN where a logit is NaN.

    Raises:
      ValueError: If there is no voter or class, or fewer than two axes.
      TypeError: If `logits` are not floating.

    Examples:
      Two voters who agree, then two who do not:

      >>> agree, differ = [[2.0, 0.0], [2.0, 0.0]], [[2.0, 0.0], [0.0, 2.0]]
      >>> found = predictive(jnp.array([agree, differ]).swapaxes(0, 1))
      >>> print(found.entropy.round(3), found.mutual_information.round(3))
      [0.365 0.693] [0.   0.328]

    References:
      N. Houlsby et al., "Bayesian active learning for classification and preference
      learning", 2011 (arXiv 1112.5745), equation 2; S. Depeweg et al., "Decomposition
      of uncertainty in Bayesian deep learning", ICML 2018 (arXiv 1710.07283). The bias:
      G. A. Miller, "Note on the bias of information estimates", 1955, for voters who
      each name one class.
    """
    if logits.ndim < 2 or 0 in (logits.shape[0], logits.shape[-1]):
        raise ValueError(f"logits must be [voters, ..., classes]: {logits.shape}")
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"logits must be floating, not {logits.dtype}")
    return _predictive(logits)


@jax.jit
def _predictive(logits: jax.Array) -> Predictive:
    wide = np.promote_types(logits.dtype, jnp.float32)
    log_each = jax.nn.log_softmax(logits.astype(wide))
    each = jnp.exp(log_each)
    mean = each.mean(axis=0)
    some = jnp.where(mean == 0, 1, mean)
    return Predictive(
        probs=mean,
        entropy=-(mean * jnp.log(some)).sum(-1),
        # A class without chance has a logarithm of -inf, and adds nothing.
        expected_entropy=-(each * jnp.where(each == 0, 0, log_each)).sum(-1).mean(0),
        mutual_information=(mean * _excess((each - mean) / some)).sum(-1).mean(0),
        variance=each.var(axis=0),
    )


def _excess(d: jax.Array) -> jax.Array:
    """``(1 + d) ln(1 + d) - d`` for ``d >= -1``; near 0, where it cancels, a series."""
    small = jnp.abs(d) < 0.02
    series = jnp.square(d) * (1 / 2 - d / 6 + jnp.square(d) / 12)
    some = jnp.where(small | (d <= -1), 0, d)  # has a logarithm, and a slope
    closed = jnp.where(d <= -1, 1, (1 + some) * jnp.log1p(some) - some)
    return jnp.where(small, series, closed)
