"""Which examples lack feature faults, since a sampler's buffer was too short.

A rule can hand on nothing but the output of its site, so `jeff.faults.on_features`
marks such an output with NaN. Faults make NaN too. Here every site hands out the flag
itself, through a tap, through loops as well.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jeff.faults.on_features import FeatureRule
from jeff.program.run import Run
from jeff.sweep.campaigns.suffix import rewritten

__all__ = ["with_overflow"]


def with_overflow(
    apply: Callable[..., Any], rule: FeatureRule
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """A program with feature faults that also tells which examples lack some.

    Args:
      apply: ``apply(params, *inputs)``, or a `Suffix`.
      rule: From `jeff.faults.on_features`.

    Returns:
      ``run(params, *inputs) -> (outputs, missing)``: what ``jeff.rewrite(apply, rule)``
      gives, and bool ``[examples]`` (``[]`` if the rule has none). Sites inside a
      `jax.shard_map` are not seen.

    Examples:
      >>> from jeff.faults import bit_flip, on_features
      >>> @jax.jit
      ... def run(rate, w, x):
      ...     model = bit_flip(rate, max_rate=0.1)  # draws no more than that
      ...     rule = on_features(model, jax.random.key(0), examples=jnp.arange(2))
      ...     return with_overflow(lambda w, x: x @ w, rule)(w, x)
      >>> for rate in (0.1, 0.5):
      ...     print(run(rate, jnp.eye(2), jnp.eye(2))[1])
      [False False]
      [ True  True]
    """
    program = rewritten(apply, rule)

    def emit(site, x, y):
        del x
        flags = rule.overflow(site, y)
        # While loops sum what their iterations emit.
        return None if flags is None else flags.astype(jnp.int32)

    shape = () if rule.examples is None else rule.examples.shape

    def run(params, *inputs):
        hooks = Run(program.rules, tap=emit, tap_marks=rule.marks)
        out, taps = program.run(hooks, params, inputs, {})
        missing = jnp.zeros(shape, bool)
        for flags in taps.values():  # scans stack them
            missing |= flags.reshape(-1, *shape).any(0)
        return out, missing

    return run
