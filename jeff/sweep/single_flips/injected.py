"""Trials that inject one flip, of a kind that is given or drawn from a proposal."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import tree
from jeff.prng import named_key
from jeff.sweep.campaigns.batches import spread
from jeff.sweep.campaigns.suffix import rewritten
from jeff.sweep.single_flips.fault_space import Fault
from jeff.sweep.single_flips.inject import inject_fault
from jeff.sweep.single_flips.kinds import FaultKinds
from jeff.sweep.statistics.importance import draw_kinds
from jeff.sweep.trial import Trial

__all__ = [
    "Injected",
    "check_value",
    "drawn_kind_trial",
    "given_kind_trial",
    "values_of",
]


class Injected(NamedTuple):
    """What one injection was, and what it did.

    Attributes:
      kind: int32, number of the fault's kind. The weight of a trial under a proposal is
        a function of it.
      fault: int32 each, which bit was flipped; `FaultSpace.number` numbers it.
      outcome: What the campaign's `measure` gave over all images.
    """

    kind: Any
    fault: Fault
    outcome: Any


def given_kind_trial(
    apply: Callable[..., Any],
    params: Any,
    kinds: FaultKinds,
    measure: Callable[..., Any],
) -> Trial:
    """One flip of the kind that is the trial's design.

    Draws of different kinds are independent, as a sum over strata needs.

    Args:
      apply: ``apply(params, *inputs)`` with logits, or the `apply` of a `Prefix`.
      params: Params without faults.
      kinds: The kinds.
      measure: As in `weight_faults`.

    Returns:
      A trial for ``designs=np.arange(len(kinds), dtype=np.int32)``, with statistics
      `Injected`.

    Examples:
      >>> from jeff.sweep import enumerate_faults, outcome
      >>> from jeff.sweep.single_flips.kinds import fault_kinds
      >>> params = {"w": np.eye(3, dtype=np.float32)}
      >>> kinds = fault_kinds(enumerate_faults(params), params, "bit")
      >>> trial = given_kind_trial(lambda p, x: x @ p["w"], params, kinds, outcome)
      >>> drawn = jax.jit(trial.draw)(jax.random.key(0), 1.0, 31)  # a sign
      >>> print(drawn["params"]["w"], drawn["fault"].position)
      [[ 1.  0.  0.]
       [-0.  1.  0.]
       [ 0.  0.  1.]] 3
    """

    def draw(key, rate, design):
        del rate
        return _drawn(params, kinds, named_key(key, "kind", design), design)

    return Trial(draw, _evaluate(apply, measure))


def drawn_kind_trial(
    apply: Callable[..., Any],
    params: Any,
    kinds: FaultKinds,
    proposal: np.ndarray,
    measure: Callable[..., Any],
) -> Trial:
    """One flip whose kind every trial draws from a proposal.

    Args:
      apply: As in `given_kind_trial`.
      params: Params without faults.
      kinds: The kinds.
      proposal: Their probabilities, ``[kinds]``.
      measure: As in `weight_faults`.

    Returns:
      A trial with statistics `Injected`.

    Raises:
      ValueError: When it draws, if `proposal` is no distribution.

    Examples:
      >>> from jeff.sweep import enumerate_faults, outcome
      >>> from jeff.sweep.single_flips.kinds import fault_kinds
      >>> params = {"w": np.zeros(3, np.int8)}
      >>> kinds = fault_kinds(enumerate_faults(params), params, "bit")
      >>> trial = drawn_kind_trial(
      ...     lambda p, x: x @ p["w"], params, kinds, np.eye(8)[6], outcome
      ... )
      >>> drawn = jax.jit(trial.draw)(jax.random.key(0), 1.0, None)
      >>> print(drawn["kind"], drawn["params"]["w"])
      6 [ 0 64  0]
    """

    def draw(key, rate, design):
        del rate, design
        (kind,) = draw_kinds(named_key(key, "kind"), proposal, 1)
        return _drawn(params, kinds, key, kind)

    return Trial(draw, _evaluate(apply, measure))


def values_of(result: Any, which: str | Callable[[Any], Any]) -> np.ndarray:
    """What an estimate is of, for every trial.

    Args:
      result: Outcomes of trials, each array ``[trials, ...]``.
      which: Name of a count of them, as `jeff.tree.flatten` spells it, which is an
        event if above 0; or a function from the outcomes to numbers in [0, 1].

    Returns:
      float64 ``[trials]``.

    Raises:
      ValueError: If there is not one number for each trial, or one is outside.

    Examples:
      >>> from jeff.sweep import Outcome
      >>> count = np.array([0, 3])
      >>> found = Outcome(10 + 0 * count, *[count] * 6)
      >>> print(values_of(found, "changed"), values_of(found, lambda o: o.changed / 10))
      [0. 1.] [0.  0.3]
    """
    if callable(which):
        values = np.asarray(which(result), np.float64)
    else:
        values = (np.asarray(tree.get(result, which)) > 0).astype(np.float64)
    trials = np.shape(jax.tree.leaves(result)[0])[:1]
    if values.shape != trials:
        raise ValueError(
            f"{which!r} must give a number for each trial, {list(trials)}, not "
            f"{list(values.shape)}"
        )
    if not ((values >= 0) & (values <= 1)).all():  # NaN too
        raise ValueError(f"{which!r} must give numbers in [0, 1], got {values}")
    return values


def check_value(
    which: str | Callable[[Any], Any], measure: Callable[..., Any], data: Any
) -> None:
    """Refuses the name of a count that there is not, before anything runs.

    Args:
      which: As for `values_of`; a function is taken as it is.
      measure: The campaign's.
      data: Its `Examples`.

    Raises:
      KeyError: If no such count is measured; the message has the nearest names.

    Examples:
      >>> from jeff.sweep import Examples, outcome
      >>> x = np.eye(2, dtype=np.float32)
      >>> data = Examples(x, np.arange(2), x)
      >>> check_value("critcal", outcome, data)
      Traceback (most recent call last):
      KeyError: "no count 'critcal'; nearest: critical, correct"
    """
    if callable(which):
        return
    valid = np.ones(len(data.labels), bool)
    counted = jax.eval_shape(
        functools.partial(measure, overflow=np.array(False)),
        data.golden, data.golden, data.labels, valid,
    )  # fmt: skip
    names = list(tree.flatten(counted)[0])
    if which not in names:
        raise KeyError(f"no count {which!r}; {tree.nearest(which, names)}")


def _drawn(params, kinds, key, kind):
    fault = kinds.draw(key, kind)
    faulty = inject_fault(params, fault, kinds.space)
    return {"params": faulty, "kind": jnp.asarray(kind, jnp.int32), "fault": fault}


def _evaluate(apply, measure):
    def evaluate(drawn, batch):
        data = batch.data
        logits = rewritten(apply)(drawn["params"], *spread(data.inputs))
        found = measure(
            logits, data.golden, data.labels, batch.valid, overflow=jnp.array(False)
        )
        once = (batch.index[0] == 0).astype(jnp.int32)  # batches are summed
        kind, fault = jax.tree.map(lambda a: once * a, (drawn["kind"], drawn["fault"]))
        return Injected(kind, fault, found)

    return evaluate
