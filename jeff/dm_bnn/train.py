"""Bayes by Backprop: gradient ascent on the evidence lower bound."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jeff import prng
from jeff.dm_bnn.elbo import Elbo, Sampler, elbo
from jeff.dm_bnn.free import from_free, to_free
from jeff.dm_bnn.likelihood import LogLikelihood, categorical
from jeff.program.trainable import merge, trainable

__all__ = ["FitSettings", "History", "fit"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How long and on what `fit` trains.

    Attributes:
      epochs: Passes over the data.
      batch: Examples a step; what is left over at the end of a pass is not used in it,
        and is another part of the data in every pass.
      voters: Draws behind each gradient.
      kl_weight: Weight of the divergence, at least 0: 1 for the posterior, less for a
        tempered one; or a function of the (traced) number of the step, such as
        ``optax.linear_schedule(0.0, 1.0, steps)`` to anneal it.

    Raises:
      ValueError: If a number is out of range.

    Examples:
      >>> FitSettings(epochs=10).batch
      128
    """

    epochs: int = 100
    batch: int = 128
    voters: int = 1
    kl_weight: "float | Callable[[jax.Array], jax.Array | float]" = 1.0

    def __post_init__(self):
        """Checks the numbers."""
        for field in ("epochs", "batch", "voters"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{field} must be a positive integer: {value!r}")
        weight = self.kl_weight
        if not callable(weight) and not 0 <= weight < float("inf"):
            raise ValueError(f"kl_weight must be at least 0 and finite: {weight}")


class History(NamedTuple):
    """What `fit` saw, means over the steps of each pass.

    Attributes:
      elbo: float32 ``[epochs]``, the bound as it is weighted, nats an example.
      log_likelihood: float32 ``[epochs]``, its first part, nats an example.
      kl: float32 ``[epochs]``, divergence from the prior, nats of all weights.
      kl_weight: float32 ``[epochs]``.
    """

    elbo: jax.Array
    log_likelihood: jax.Array
    kl: jax.Array
    kl_weight: jax.Array


def fit(
    apply: Callable[..., jax.Array],
    posterior: Any,
    data: tuple[Any, jax.Array],
    key: jax.Array,
    settings: FitSettings,
    *,
    optimizer: optax.GradientTransformation | None = None,
    log_likelihood: LogLikelihood = categorical,
    sampler: Sampler | None = None,
    prior_mean: Any = 0.0,
    prior_std: Any = 1.0,
    where: Callable[[str, Any], bool] | None = None,
) -> tuple[Any, History]:
    """Trains a posterior (and what is not random beside it) on labelled data.

    Steps of `optimizer` on ``-elbo / examples``, with respect to the means, to ``rho``
    of ``std = ln(1 + exp(rho))``, and to the other floating leaves. One compiled
    program: a scan over passes of a scan over batches. The same key gives the same
    posterior; the order of the data and the draws have keys of their own, by step.

    Params without random leaves are trained by maximum likelihood in the same way, on
    the same batches: a deterministic twin.

    Args:
      apply: ``apply(params, x)`` with outputs ``[batch, ...]``.
      posterior: Where to start: params tree with `MeanField` leaves of positive `std`,
        as `jeff.dm_bnn.posterior` makes it.
      data: ``(x, targets)``, arrays (or a tree of them for `x`) ``[examples, ...]``.
      key: Any JAX key.
      settings: Passes, batch, draws, weight of the divergence.
      optimizer: Any of optax; ``None``: Adam at 3e-3.
      log_likelihood: See `jeff.dm_bnn.elbo.elbo`.
      sampler: Likewise.
      prior_mean: Likewise.
      prior_std: Likewise.
      where: ``where(name, leaf)``: which leaves to train, such as only those that end
        in ``.rho`` (of a random weight ``w`` there are ``w.mean`` and ``w.rho``);
        ``None``: all.

    Returns:
      The trained posterior, of the structure of `posterior`, and its history.

    Raises:
      ValueError: If there are fewer examples than in a batch, arrays differ in length,
        no leaf is trained, or as `jeff.dm_bnn.elbo.elbo` does.

    Examples:
      A line through 64 points with noise of 0.1. The posterior of its slope is known:
      mean near 2, standard deviation ``1 / sqrt(1 + sum(x^2) / 0.01)``.

      >>> from jeff.dm_bnn import MeanField, likelihood
      >>> x = jnp.linspace(-1, 1, 64)[:, None]
      >>> y = 2 * x + 0.1 * jax.random.normal(jax.random.key(0), x.shape)
      >>> start = {"w": MeanField(jnp.zeros((1, 1)), jnp.full((1, 1), 0.1))}
      >>> found, history = fit(
      ...     lambda p, x: x @ p["w"],
      ...     start,
      ...     (x, y),
      ...     jax.random.key(1),
      ...     FitSettings(epochs=300, batch=64, voters=4),
      ...     optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 300)),
      ...     log_likelihood=likelihood.gaussian(0.1),
      ... )
      >>> exact = (1 + (x**2).sum() / 0.01) ** -0.5
      >>> bool(abs(found["w"].mean - 2).max() < 0.1)
      True
      >>> bool(abs(found["w"].std / exact - 1).max() < 0.1)
      True

    References:
      Blundell et al. 2015 (arXiv 1505.05424), section 3.2; Kingma et al. 2015
      (arXiv 1506.02557) for the gradients by local reparameterisation.
    """
    examples = _examples(data)
    if settings.batch > examples:
        raise ValueError(
            f"batch must be at most {examples}, the examples there are: "
            f"{settings.batch}"
        )
    optimizer = optax.adam(3e-3) if optimizer is None else optimizer
    free, fixed = trainable(to_free(posterior), where)
    if not jax.tree.leaves(free):
        raise ValueError(
            "no leaf is trained: posterior has no floating one, or where picks none"
        )
    bound = functools.partial(
        elbo,
        apply,
        log_likelihood=log_likelihood,
        sampler=sampler,
        voters=settings.voters,
        prior_mean=prior_mean,
        prior_std=prior_std,
    )
    run = jax.jit(_program(bound, optimizer, settings, examples))
    free, history = run(free, fixed, jax.tree.map(jnp.asarray, data), key)
    return from_free(merge(free, fixed)), history


def _program(
    bound: Callable[..., Elbo],
    optimizer: optax.GradientTransformation,
    settings: FitSettings,
    examples: int,
) -> Callable[..., tuple[Any, History]]:
    """All of the training: a scan over passes of a scan over batches."""
    batches = examples // settings.batch

    def loss(free, fixed, batch, key, weight):
        found = bound(merge(free, fixed), batch, examples, key, kl_weight=weight)
        each = found.value / examples, found.log_likelihood / examples
        return -each[0], History(*each, kl=found.kl, kl_weight=weight)

    def run(free, fixed, data, key):
        def step(state, now):
            free, moments = state
            number, rows = now
            batch = jax.tree.map(lambda a: a[rows], data)
            with jax.numpy_dtype_promotion("standard"):  # of optax
                weight = settings.kl_weight
                weight = jnp.float32(weight(number) if callable(weight) else weight)
            draws = prng.named_key(key, "voters", number)
            slope = jax.grad(loss, has_aux=True)
            gradient, seen = slope(free, fixed, batch, draws, weight)
            with jax.numpy_dtype_promotion("standard"):  # of optax
                updates, moments = optimizer.update(gradient, moments, free)
                return (optax.apply_updates(free, updates), moments), seen

        def epoch(state, number):
            order = prng.named_key(key, "order", number)
            rows = jax.random.permutation(order, examples)
            rows = rows[: batches * settings.batch].reshape(batches, settings.batch)
            numbers = number * batches + jnp.arange(batches)
            state, seen = jax.lax.scan(step, state, (numbers, rows))
            return state, jax.tree.map(lambda a: a.mean(axis=0), seen)

        state = free, optimizer.init(free)
        (free, _), history = jax.lax.scan(epoch, state, jnp.arange(settings.epochs))
        return free, history

    return run


def _examples(data: tuple[Any, jax.Array]) -> int:
    """The common length of all arrays."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(data)]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"data must be arrays of one length, at least 1: {shapes}")
    return lengths.pop()
