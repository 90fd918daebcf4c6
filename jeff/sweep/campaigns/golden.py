"""Golden outputs: what the program answers without faults, computed once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff.sweep.campaigns.batches import Examples, in_batches, spread
from jeff.sweep.campaigns.suffix import rewritten

__all__ = ["examples", "golden_outputs"]


def examples(
    apply: Callable[..., Any],
    params: Any,
    inputs: Any,
    labels: Any = None,
    *,
    batch: int = 64,
) -> Examples:
    """Inputs and labels with their golden outputs: the data of a campaign.

    Args:
      apply: ``apply(params, *inputs)`` with logits ``[batch, classes]``.
      params: Params without faults; leaves may be stored.
      inputs: An array ``[examples, ...]``, or a tuple of them.
      labels: Integers ``[examples]`` in ``[0, classes)``; ``None``: what the program
        answers without faults is right.
      batch: Examples at a time; as in the sweep, so that it is the same arithmetic.

    Returns:
      The data, on the host.

    Raises:
      TypeError: If labels are no integers.
      ValueError: If labels do not fit; else as `golden_outputs`.

    Examples:
      >>> x = np.eye(3, dtype=np.float32)
      >>> data = examples(lambda p, x: x @ p, 2 * x, x, batch=2)
      >>> print(data.labels, data.golden[2])
      [0 1 2] [0. 0. 2.]
    """
    golden = golden_outputs(apply, params, inputs, batch=batch)
    inputs = jax.tree.map(np.asarray, inputs)
    if labels is None:
        return Examples(inputs, golden.argmax(-1).astype(np.int32), golden)
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != golden.shape[:1]:
        raise ValueError(f"labels are {labels.shape} for {len(golden)} examples")
    outside = np.flatnonzero((labels < 0) | (labels >= golden.shape[1]))
    if outside.size:
        raise ValueError(
            f"labels must be in [0, {golden.shape[1]}), got {labels[outside[0]]} for "
            f"example {outside[0]}"
        )
    return Examples(inputs, labels.astype(np.int32), golden)


def golden_outputs(
    apply: Callable[..., Any], params: Any, inputs: Any, *, batch: int = 64
) -> np.ndarray:
    """Outputs of a classifier without faults, computed in batches.

    Args:
      apply: ``apply(params, *inputs)`` with logits ``[batch, classes]``.
      params: Params without faults; leaves may be stored.
      inputs: An array ``[examples, ...]``, or a tuple of them.
      batch: Examples at a time, at least 1; the last batch is filled up.

    Returns:
      Floating ``[examples, classes]``, finite.

    Raises:
      TypeError: If an output is not floating.
      ValueError: If inputs have no common number of examples, an output is not
        ``[batch, classes]``, or holds NaN or infinity.

    Examples:
      >>> x = np.array([[1.0, 2.0], [np.nan, 0.0]], np.float32)
      >>> golden_outputs(lambda p, x: x @ p, jnp.eye(2), x)
      Traceback (most recent call last):
      ValueError: golden outputs hold NaN or infinity for 1 of 2 examples, first for
      example 1: a fault cannot be told from what the program does by itself
    """
    program = rewritten(apply)
    run = jax.jit(lambda params, inputs: program(params, *spread(inputs)))
    outputs = []
    for part, count in in_batches(inputs, batch):
        out = run(params, part)
        _check_logits(out, len(jax.tree.leaves(part)[0]))
        outputs.append(np.asarray(out)[:count])
    golden = np.concatenate(outputs)
    bad = np.flatnonzero(~np.isfinite(golden.astype(np.float32)).all(-1))
    if bad.size:
        raise ValueError(
            f"golden outputs hold NaN or infinity for {bad.size} of {len(golden)} "
            f"examples, first for example {bad[0]}: a fault cannot be told from what "
            "the program does by itself"
        )
    return golden


def _check_logits(out: Any, batch: int) -> None:
    shape = getattr(out, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != batch:
        found = type(out).__name__ if shape is None else f"shape {shape}"
        raise ValueError(f"apply must return logits [{batch}, classes], got {found}")
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise TypeError(f"apply must return floating logits, got {out.dtype}")
