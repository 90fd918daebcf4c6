"""The evidence lower bound of variational inference, one batch at a time."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from jeff.dm_bnn.free import from_free
from jeff.dm_bnn.kl import kl
from jeff.dm_bnn.likelihood import LogLikelihood, categorical
from jeff.dm_bnn.mean_field import MeanField
from jeff.dm_bnn.predict import predict

__all__ = ["Elbo", "Sampler", "elbo"]

_LOCAL = functools.partial(predict, mode="lrt")


class Sampler(Protocol):
    """Outputs of a program for voters drawn from a posterior.

    ``functools.partial(jeff.dm_bnn.predict, mode="dm")`` is one.
    """

    def __call__(
        self,
        apply: Callable[..., jax.Array],
        posterior: Any,
        x: Any,
        key: jax.Array,
        *,
        voters: int,
    ) -> jax.Array:
        """``apply(w, x)`` for `voters` draws ``w``, differentiable in `posterior`.

        Args:
          apply: ``apply(params, x)``.
          posterior: Params tree with `MeanField` leaves.
          x: The program's input, ``[batch, ...]``.
          key: Any JAX key.
          voters: How many.

        Returns:
          ``[voters, batch, ...]``.
        """
        ...


class Elbo(NamedTuple):
    """An estimate of the evidence lower bound of all data, in nats.

    Attributes:
      value: Scalar, ``log_likelihood - kl_weight * kl``.
      log_likelihood: Scalar, expected log-likelihood of all data.
      kl: Scalar, divergence of the posterior from the prior, without its weight.
    """

    value: jax.Array
    log_likelihood: jax.Array
    kl: jax.Array


def elbo(
    apply: Callable[..., jax.Array],
    posterior: Any,
    batch: tuple[Any, jax.Array],
    n_data: int,
    key: jax.Array,
    *,
    log_likelihood: LogLikelihood = categorical,
    sampler: Sampler | None = None,
    voters: int = 1,
    kl_weight: "float | jax.Array" = 1.0,
    prior_mean: Any = 0.0,
    prior_std: Any = 1.0,
) -> Elbo:
    """``n_data * mean_i E_w[ln p(y_i | x_i, w)] - kl_weight * KL(q(w) || p(w))``.

    The expectation is estimated from `voters` draws, the mean over the data from the
    batch; both without bias, and so is the gradient, which goes through the draws. With
    local reparameterisation (the default) every example has draws of its own, which
    makes the gradient less noisy than one weight for the whole batch and leaves the
    bound's expectation as it is, because the bound is a sum over examples. Weights that
    are not random have no prior: they are point estimates.

    Args:
      apply: ``apply(params, x)`` with outputs ``[batch, ...]``.
      posterior: Params tree with `MeanField` leaves, or with `jeff.dm_bnn.Free` ones.
      batch: ``(x, targets)``, leading axes ``[batch, ...]``.
      n_data: How many examples there are in all.
      key: Any JAX key.
      log_likelihood: ``log_likelihood(outputs, targets)`` with nats ``[batch]``;
        `jeff.dm_bnn.likelihood` has two.
      sampler: How voters are drawn, see `Sampler`; ``None``:
        `jeff.dm_bnn.predict` with ``mode="lrt"``. Not called if nothing is random.
      voters: Draws behind the estimate.
      kl_weight: 1 for the bound; less for a *tempered* ("cold") posterior, which is
        narrower. May be traced, as by a schedule of the step (annealing).
      prior_mean: Of every random weight: a number, or a tree, see `jeff.dm_bnn.kl.kl`.
      prior_std: Likewise.

    Returns:
      The estimate and its two parts, float32 scalars.

    Raises:
      ValueError: If a number is out of range, a prior does not fit, or the sampler or
        the likelihood gives another shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> weights = {"w": MeanField(jnp.zeros((2, 3)), jnp.ones((2, 3)))}
      >>> batch = jnp.zeros((4, 2)), jnp.zeros(4, jnp.int32)
      >>> key = jax.random.key(0)
      >>> bound = elbo(lambda p, x: x @ p["w"], weights, batch, 100, key)
      >>> print(bound.log_likelihood, bound.kl)  # -100 ln 3; the prior itself
      -109.86123 0.0

    References:
      Blundell et al. 2015 (arXiv 1505.05424), equation 2; D. P. Kingma, T. Salimans and
      M. Welling, "Variational dropout and the local reparameterization trick", NeurIPS
      2015 (arXiv 1506.02557), equations 3 to 6; F. Wenzel et al., "How good is the
      Bayes posterior in deep neural networks really?", ICML 2020 (arXiv 2002.02405), on
      tempering.
    """
    if n_data < 1 or voters < 1:
        raise ValueError(f"n_data and voters must be positive: {n_data=}, {voters=}")
    posterior = from_free(posterior)
    x, targets = batch
    leaves = jax.tree.leaves(posterior, is_leaf=lambda v: isinstance(v, MeanField))
    if any(isinstance(leaf, MeanField) for leaf in leaves):
        draw = _LOCAL if sampler is None else sampler
        outputs = draw(apply, posterior, x, key, voters=voters)
    else:
        voters, outputs = 1, apply(posterior, x)[None]
    if outputs.shape[:1] != (voters,):
        raise ValueError(f"the sampler gave {outputs.shape} for {voters} voters")
    each = jax.vmap(log_likelihood, in_axes=(0, None))(outputs, targets)
    if each.shape != (voters, len(targets)):
        raise ValueError(
            f"log_likelihood must give one number an example, {len(targets)} of them, "
            f"not {each.shape[1:]}"
        )
    expected = n_data * each.mean()
    divergence = kl(posterior, prior_mean, prior_std)
    return Elbo(expected - kl_weight * divergence, expected, divergence)
