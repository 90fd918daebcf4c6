"""Fault campaigns as trials: faults of weights, of features, or of both.

Weights are hit once per trial: a trial is a device, whose faulty cells serve every
image (hard faults, or upsets since the weights were loaded). Features are hit anew for
every example (soft faults), from the trial's key and the example's number alone, so a
draw does not depend on the size of batches; `permanent` hits all examples alike.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jeff import faults
from jeff.faults.model import overflow_of
from jeff.faults.on_features import FeatureRule
from jeff.prng import named_key
from jeff.sweep.campaigns.batches import spread
from jeff.sweep.campaigns.check import check_features, check_images, check_weights
from jeff.sweep.campaigns.outcome import each_outcome, outcome
from jeff.sweep.campaigns.overflow import with_overflow
from jeff.sweep.campaigns.per_image import PerImage, pack_right
from jeff.sweep.campaigns.suffix import rewritten
from jeff.sweep.checks import positive
from jeff.sweep.trial import Batch, Trial

__all__ = ["feature_faults", "weight_and_feature_faults", "weight_faults"]

ModelOfRate = Callable[[jax.Array], Any]
Measure = Callable[..., Any]


def weight_faults(
    apply: Callable[..., Any],
    params: Any,
    model_of_rate: ModelOfRate,
    *,
    params_of_design: Callable[[Any, Any], Any] | None = None,
    measure: Measure = outcome,
    per_image: int | None = None,
) -> Trial:
    """A campaign on stored weights, one faulty device per trial.

    Args:
      apply: ``apply(params, *inputs)`` with logits ``[batch, classes]``, or the `apply`
        of a `Prefix`.
      params: Params without faults, dense or stored, or those of a `Prefix`.
      model_of_rate: ``model_of_rate(rate) -> FaultModel`` of params, such as
        ``lambda rate: on_weights(bit_flip(rate, max_rate=0.01))``; `rate` is traced,
        so the largest one must be said.
      params_of_design: ``params_of_design(params, design) -> params``, for a sweep with
        designs; ``lambda _, design: design`` for whole params stacked on axis 0.
      measure: ``measure(logits, golden, labels, valid, overflow=...) -> stats``;
        `overflow` is bool ``[]`` or ``[batch]``.
      per_image: The number of examples: statistics are then `PerImage`, which also
        tells which images a trial got right, for `accuracy_any_images`. ``None``: they
        are what `measure` gives.

    Returns:
      A trial for `run` whose data are `Examples`; its statistics are an `Outcome`.

    Raises:
      TypeError: If an argument is no function, or `per_image` no whole number.
      ValueError: If `per_image` is not positive; at the start of a sweep, if it is not
        the number of examples, a model refuses one of the rates (the message names it),
        or the sweep has designs and there is no `params_of_design`, or the other way
        round.

    Examples:
      >>> import numpy as np
      >>> from jeff.faults import bit_flip, on_weights
      >>> from jeff.sweep import Batch, examples
      >>> def linear(p, x):
      ...     return x @ p["w"]
      >>> params, x = {"w": np.eye(3, dtype=np.float32)}, np.eye(3, dtype=np.float32)
      >>> data = examples(linear, params, x)
      >>> trial = weight_faults(linear, params, lambda rate: on_weights(bit_flip(rate)))
      >>> faulty = trial.draw(jax.random.key(0), 1.0, None)  # every bit flips
      >>> batch = Batch(data, np.arange(3), np.ones(3, bool))
      >>> stats = jax.jit(trial.evaluate)(faulty, batch)
      >>> print(stats.images, stats.changed, stats.nonfinite)
      3 3 3
    """
    how = _How(params_of_design, measure, per_image)
    return _campaign(apply, params, model_of_rate, None, how)


def feature_faults(
    apply: Callable[..., Any],
    params: Any,
    model_of_rate: ModelOfRate,
    *,
    where: Any = None,
    permanent: bool = False,
    params_of_design: Callable[[Any, Any], Any] | None = None,
    measure: Measure = outcome,
    per_image: int | None = None,
) -> Trial:
    """A campaign on the outputs of sites.

    Args:
      apply: As in `weight_faults`.
      params: As in `weight_faults`.
      model_of_rate: ``model_of_rate(rate)`` gives a `FaultModel` of arrays, or a
        function ``site -> FaultModel | None``; see `jeff.faults.on_features`.
      where: Which sites, as in `jeff.faults.on_features`.
      permanent: Whether the faults of a trial are the same for all examples, as of a
        broken processing element; else every example has its own.
      params_of_design: As in `weight_faults`.
      measure: As in `weight_faults`.
      per_image: As in `weight_faults`.

    Returns:
      A trial for `run` whose data are `Examples`; its statistics are an `Outcome`. An
      image with faults that did not fit their buffer at some site is in `overflow`; the
      site gives NaN for it, so that it is `nonfinite` as a rule.

    Raises:
      TypeError: As in `weight_faults`.
      ValueError: As in `weight_faults`.

    Examples:
      >>> import numpy as np
      >>> from jeff import FaultModel
      >>> from jeff.sweep import Batch, examples
      >>> def linear(p, x):
      ...     return x @ p["w"]
      >>> params, x = {"w": np.eye(3, dtype=np.float32)}, np.eye(3, dtype=np.float32)
      >>> data = examples(linear, params, x)
      >>> def lost(rate):  # an output reads 0 with probability `rate`
      ...     def sample(key, like):
      ...         return jax.random.bernoulli(key, rate, like.shape)
      ...     return FaultModel(sample, lambda hit, y: jnp.where(hit, 0.0, y))
      >>> trial = feature_faults(linear, params, lost, where="w")
      >>> faulty = trial.draw(jax.random.key(0), 0.5, None)
      >>> batch = Batch(data, np.arange(3), np.ones(3, bool))
      >>> print(jax.jit(trial.evaluate)(faulty, batch).changed)
      2
    """
    rule = _Features(model_of_rate, where, permanent)
    how = _How(params_of_design, measure, per_image)
    return _campaign(apply, params, None, rule, how)


def weight_and_feature_faults(
    apply: Callable[..., Any],
    params: Any,
    weights_of_rate: ModelOfRate,
    features_of_rate: ModelOfRate,
    *,
    where: Any = None,
    permanent: bool = False,
    params_of_design: Callable[[Any, Any], Any] | None = None,
    measure: Measure = outcome,
    per_image: int | None = None,
) -> Trial:
    """A campaign on weights and features at once.

    For one key the weights are those of `weight_faults` and the features' faults those
    of `feature_faults`.

    Args:
      apply: As in `weight_faults`.
      params: As in `weight_faults`.
      weights_of_rate: `model_of_rate` of `weight_faults`.
      features_of_rate: `model_of_rate` of `feature_faults`; both get the same rate.
      where: Which sites, as in `feature_faults`.
      permanent: As in `feature_faults`.
      params_of_design: As in `weight_faults`.
      measure: As in `weight_faults`.
      per_image: As in `weight_faults`.

    Returns:
      A trial for `run`.

    Raises:
      TypeError: As in `weight_faults`.
      ValueError: As in `weight_faults`.

    Examples:
      >>> from jeff.faults import bit_flip, on_weights
      >>> def linear(p, x):
      ...     return x @ p["w"]
      >>> trial = weight_and_feature_faults(
      ...     linear,
      ...     {"w": jnp.eye(3)},
      ...     lambda rate: on_weights(bit_flip(rate, max_rate=1e-3)),
      ...     lambda rate: bit_flip(0.1 * rate, max_rate=1e-4),
      ... )
      >>> trial._fields
      ('draw', 'evaluate', 'check')
    """
    rule = _Features(features_of_rate, where, permanent)
    how = _How(params_of_design, measure, per_image)
    return _campaign(apply, params, weights_of_rate, rule, how)


class _Features:
    """The rule of a trial's feature faults."""

    def __init__(self, model_of_rate: ModelOfRate, where: Any, permanent: bool):
        """Keeps how to make it."""
        self.model_of_rate, self.where = model_of_rate, where
        self.permanent = permanent

    def __call__(self, key: jax.Array, rate: jax.Array, batch: Batch) -> FeatureRule:
        """The rule for a batch."""
        numbers = jnp.zeros_like(batch.index) if self.permanent else batch.index
        return faults.on_features(
            self.model_of_rate(rate), key, where=self.where, examples=numbers
        )


class _How(NamedTuple):
    """What is the same for all kinds of campaigns."""

    params_of_design: Callable[[Any, Any], Any] | None
    measure: Measure
    per_image: int | None


def _campaign(apply, params, weights, features, how) -> Trial:
    made = weights, features and features.model_of_rate, how.params_of_design
    for fn in (apply, how.measure, *(f for f in made if f is not None)):
        if not callable(fn):
            raise TypeError(f"a campaign is made of functions, got {fn!r}")
    if how.per_image is not None:
        positive("per_image", how.per_image)

    def designed(design):
        if (design is None) != (how.params_of_design is None):
            raise ValueError(
                "designs and params_of_design go together: "
                + ("the sweep has no designs" if design is None else "how are the "
                   "params of a design made? Give params_of_design")
            )  # fmt: skip
        return params if design is None else how.params_of_design(params, design)

    def draw(key, rate, design):
        drawn = {"design": design, "overflow": jnp.array(False)}
        if features is not None:
            drawn["features"] = named_key(key, "features"), rate
        if weights is not None:
            clean = designed(design)
            model = weights(rate)
            hit = model.sample(named_key(key, "weights"), clean)
            drawn["params"] = model.inject(hit, clean)
            drawn["overflow"] = overflow_of(hit)
        return drawn

    def evaluate(drawn, batch):
        faulty, missing = drawn.get("params"), drawn["overflow"]
        faulty = designed(drawn["design"]) if faulty is None else faulty
        inputs = spread(batch.data.inputs)
        if features is None:
            logits = rewritten(apply)(faulty, *inputs)
        else:
            rule = features(*drawn["features"], batch)
            logits, too_many = with_overflow(apply, rule)(faulty, *inputs)
            missing |= too_many
        return _statistics(how, logits, batch, missing)

    def check(rates, data, design):
        clean = jax.eval_shape(lambda d: designed(d), design)
        check_images(how.per_image, data)
        if weights is not None:
            check_weights(weights, rates, clean)
        if features is not None:
            check_features(
                features.model_of_rate, rates, apply, clean, data.inputs, features.where
            )

    return Trial(draw, evaluate, check)


def _statistics(how, logits, batch, missing) -> Any:
    """What is counted of a batch."""
    golden, labels = batch.data.golden, batch.data.labels
    total = how.measure(logits, golden, labels, batch.valid, overflow=missing)
    if how.per_image is None:
        return total
    right = each_outcome(logits, golden, labels).correct
    return PerImage(total, pack_right(right, batch, how.per_image))
