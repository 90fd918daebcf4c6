"""Calibration data: batches of inputs, with the modality of every token."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff.mbq.calibration.masks import check_mapping, check_masks
from jeff.program import trace

__all__ = [
    "Batch",
    "check_batches",
    "check_modalities",
    "check_program",
    "fits_tokens",
]


class Batch(NamedTuple):
    """One micro-batch of calibration data.

    Attributes:
      inputs: What the program takes after `params`: ``apply(params, *inputs)``.
      masks: Per modality a bool ``[B, N]``: its tokens. Padding and prompt are in
        none. Only methods that tell modalities apart need it.
      targets: What the loss needs beside the outputs; any pytree.
      weights: float ``[B, N]``, not negative: what each token counts, whatever it was
        computed from. Used with ``reweight="tokens"`` only, which needs them.

    Examples:
      Four vision tokens, a word of the question, a word of the answer:

      >>> vision = jnp.arange(6)[None] < 4  # [B, N]
      >>> answer = jnp.arange(6)[None] == 5
      >>> batch = Batch(
      ...     inputs=(jnp.ones((1, 6, 32)),),
      ...     masks={"vision": vision, "language": answer},
      ...     targets=jnp.array([3]),
      ... )
      >>> {name: int(mask.sum()) for name, mask in batch.masks.items()}
      {'vision': 4, 'language': 1}
    """

    inputs: tuple[Any, ...]
    masks: Mapping[str, jax.Array] = {}
    targets: Any = None
    weights: jax.Array | None = None


def check_batches(batches: Iterable[Batch]) -> Sequence[Batch]:
    """Checks calibration data before any heavy work.

    Args:
      batches: The batches; all inputs of equal shapes. Each is looked at once.

    Returns:
      A list or an iterator as a tuple; any other sequence as it is, so that one that
      makes its batches when they are asked for never holds them all.

    Raises:
      TypeError: If `batches` is no sequence, an entry is not a `Batch`, its inputs are
        not a tuple, its masks no mapping from names, or a mask is not boolean.
      ValueError: If there is none, a batch holds a NaN or an infinity (the message
        says which batch), shapes differ between batches, or masks are of unequal
        shapes, overlap or name other modalities than the first batch's,
        or a token's weight is negative.

    Examples:
      >>> import jax.numpy as jnp
      >>> bad = Batch(inputs=(jnp.array([1.0, jnp.nan]),))
      >>> check_batches([bad])
      Traceback (most recent call last):
        ...
      ValueError: batches[0].inputs[0] holds a NaN or an infinity
    """
    if isinstance(batches, Batch):
        raise TypeError("batches must be a sequence of Batch, got a single Batch")
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches must be a sequence of Batch, got {batches!r}")
    if isinstance(batches, list) or not isinstance(batches, Sequence):
        batches = tuple(batches)
    if not len(batches):
        raise ValueError("batches is empty: calibration needs at least one batch")
    first: dict[str, Any] = {}
    for i, batch in enumerate(batches):
        if not isinstance(batch, Batch):
            raise TypeError(f"batches[{i}] must be a Batch, got {type(batch).__name__}")
        if not isinstance(batch.inputs, tuple):
            raise TypeError(
                f"batches[{i}].inputs must be a tuple, "
                f"got {type(batch.inputs).__name__}"
            )
        for field in ("inputs", "targets", "weights"):
            _check_finite(getattr(batch, field), f"batches[{i}].{field}")
        _check_masks(batch.masks, f"batches[{i}].masks")
        _check_weights(batch.weights, f"batches[{i}].weights")
        for field in ("inputs", "masks", "weights"):
            here = _shapes(getattr(batch, field))
            if here != first.setdefault(field, here):
                raise ValueError(
                    f"batches[{i}].{field} has shapes {here}, "
                    f"batches[0] has {first[field]}"
                )
    return batches


def check_modalities(batches: Sequence[Batch], reference: str | None = None) -> None:
    """Checks that modalities are named and that each has a token.

    Args:
      batches: From `check_batches`.
      reference: The modality that weighs 1, if there is one.

    Raises:
      ValueError: If there are no masks, `reference` is not among them, or a modality
        has no token in any batch.

    Examples:
      >>> masks = {"vision": np.zeros((1, 2), bool), "language": np.ones((1, 2), bool)}
      >>> check_modalities([Batch((), masks)])
      Traceback (most recent call last):
        ...
      ValueError: masks['vision'] has no token in any batch; leave the modality out
    """
    masks = batches[0].masks
    if not masks:
        raise ValueError("batches[0].masks is empty: name the modalities")
    if reference is not None and reference not in masks:
        raise ValueError(
            f"reference must be one of the modalities {sorted(masks)}, "
            f"got {reference!r}"
        )
    for name in masks:
        if not any(np.any(np.asarray(b.masks[name])) for b in batches):
            what = "leave the modality out"
            if name == reference:
                what = "it is the reference, the tokens whose loss is to be kept"
            raise ValueError(f"masks[{name!r}] has no token in any batch; {what}")


def check_program(
    apply: Callable[..., Any], params: Any, inputs: tuple[Any, ...]
) -> None:
    """Traces a program once, so that arguments that do not fit it are told early.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Params tree; leaves may be stored.
      inputs: Inputs of one batch.

    Raises:
      ValueError: If tracing fails, with the first line of what the program said.

    Examples:
      >>> check_program(lambda p, x: x @ p["w"], {"v": 1.0}, (jnp.ones((1, 1)),))
      Traceback (most recent call last):
        ...
      ValueError: apply does not run with these params and inputs: KeyError: 'w'
    """
    try:
        trace.tracer_of(apply).trace(params, inputs, {})
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            "apply does not run with these params and inputs: "
            f"{type(error).__name__}: {first}"
        ) from error


def fits_tokens(shape: Sequence[int], tokens: Sequence[int]) -> bool:
    """Whether an output ``[..., N]`` has one row per token, in the masks' order.

    Args:
      shape: Shape of a site's output.
      tokens: Shape of the masks, ``(B, N)``.

    Returns:
      True if the rows are ``B`` times ``N`` in this order, axes of size 1 apart.

    Examples:
      >>> fits_tokens((2, 7, 64), (2, 7)), fits_tokens((14, 64), (2, 7))
      (True, True)
      >>> fits_tokens((7, 2, 64), (2, 7))
      False
    """
    rows, wanted = ([n for n in s if n != 1] for s in (shape[:-1], tokens))
    return rows == wanted or list(shape[:-1]) == [tokens[0] * tokens[1]]


def _check_masks(masks: Mapping[str, jax.Array], label: str) -> None:
    try:
        check_mapping(masks)
        if masks:
            check_masks(masks)
    except (TypeError, ValueError) as error:
        # The message starts with "masks", which the label ends in.
        raise type(error)(f"{label}{str(error).removeprefix('masks')}") from None


def _check_weights(weights: jax.Array | None, label: str) -> None:
    if weights is None:
        return
    array = np.asarray(weights)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{label} must be floating, got {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{label} must be [batch, tokens], got shape {array.shape}")
    if (array < 0).any():
        raise ValueError(f"{label} must not be negative, got {array.min()}")


def _check_finite(value: Any, label: str) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        if not _finite(leaf):
            where = label + jax.tree_util.keystr(path)
            raise ValueError(f"{where} holds a NaN or an infinity")


def _finite(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.extended):
        return True  # random keys
    array = np.asarray(leaf)
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return True
    return bool(np.isfinite(array).all())


def _shapes(value: Any) -> dict[str, tuple[int, ...]]:
    pairs = jax.tree_util.tree_leaves_with_path(value)
    return {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in pairs}
