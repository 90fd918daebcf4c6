"""Token weights that balance modalities by how much the loss depends on them.

MBQ (arXiv 2412.19509, section 3.2) weighs the reconstruction error of a token by the
sensitivity of its modality: the mean absolute gradient of the loss at the tokens of
that modality. The paper has two modalities, vision and language, and one ratio; here
there may be any number, one of them being the reference that weighs 1.
"""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jeff.mbq.calibration.masks import check_masks, is_traced
from jeff.mbq.running_mean import RunningMean

__all__ = ["floored", "modality_gradient", "modality_ratio", "token_weights"]

MODES = ("ratio", "ratio_floor", "sensitivity", "uniform", "answer")
AVERAGES = ("tokens", "modalities")


def modality_gradient(
    gradient: jax.Array, masks: Mapping[str, jax.Array]
) -> dict[str, RunningMean]:
    """Mean absolute gradient of each modality: per sample first, then over samples.

    ``G_m = mean_b mean_{t in m(b)} |g[b, t]|``. A sample without a token of the
    modality is not counted for it. Merge the results of several batches, then take
    their `RunningMean.value` as the sensitivity.

    Args:
      gradient: ``[..., B, N]``, mean over channels of the absolute gradient of the
        loss at a module's output; leading axes (layers) are kept.
      masks: bool ``[B, N]`` per modality; they may be traced.

    Returns:
      Per modality a `RunningMean` of shape ``[...]``, counted in samples.

    Raises:
      TypeError: If a mask is not boolean.
      ValueError: If a mask's shape is not the last two axes of `gradient`, or masks
        overlap.

    Examples:
      >>> g = jnp.array([[1.0, 3.0, 0.5], [4.0, 9.0, 0.5]])
      >>> vision = jnp.array([[True, True, False], [True, False, False]])
      >>> seen = modality_gradient(g, {"vision": vision, "language": ~vision})
      >>> print(seen["vision"].value, seen["language"].value)
      3.0 2.625

    References:
      arXiv 2412.19509, section 3.2; the order of the means is its program's.
    """
    gradient = jnp.abs(jnp.asarray(gradient, jnp.float32))
    check_masks(masks, gradient.shape[-2:])
    means = {}
    for name, mask in masks.items():
        tokens = jnp.sum(mask, axis=-1, dtype=jnp.float32)  # [B]
        inside = jnp.where(mask, gradient, 0.0).sum(axis=-1)  # [..., B]
        total = (inside / jnp.maximum(tokens, 1.0)).sum(axis=-1)
        means[name] = RunningMean(total, jnp.sum(tokens > 0, dtype=jnp.float32))
    return means


def modality_ratio(
    mean_abs_gradient: Mapping[str, ArrayLike],
    *,
    reference: str = "language",
    floor: ArrayLike | None = None,
) -> dict[str, jax.Array]:
    """Sensitivity of each modality relative to the reference.

    ``r_m = max(G_m / G_reference, floor)``; the reference itself is exactly 1.

    Args:
      mean_abs_gradient: Mean absolute gradient per modality, a number or an array
        ``[...]`` (layers), finite and not negative.
      reference: The modality that weighs 1.
      floor: Smallest ratio, broadcastable to ``[...]``; see `floored` for the
        published choice.

    Returns:
      float32 ``[...]`` per modality.

    Raises:
      ValueError: If `reference` is not among the modalities, or a gradient is
        negative, not finite, or zero for the reference (checked unless traced).

    Examples:
      >>> ratio = modality_ratio({"vision": 1.7e-8, "language": 2.1e-7})
      >>> print({name: round(float(r), 3) for name, r in ratio.items()})
      {'vision': 0.081, 'language': 1.0}

    References:
      arXiv 2412.19509, section 3.2, equations 8 to 13; the example is its figure 1.
    """
    gradients = _checked_sensitivity(mean_abs_gradient, reference)
    ratios = {}
    for name, gradient in gradients.items():
        if name == reference:
            ratios[name] = jnp.ones_like(gradient)
            continue
        ratio = gradient / gradients[reference]
        if floor is not None:
            ratio = jnp.maximum(ratio, jnp.asarray(floor, jnp.float32))
        ratios[name] = ratio
    return ratios


def floored(ratios: ArrayLike) -> jax.Array:
    """Raises the ratios below the median over layers to that median.

    The last layers need it: their image tokens no longer reach the loss, so that the
    ratio is 0 there. Apply it to attention and MLP outputs separately.

    Args:
      ratios: ``[layers, ...]``, ratios of one kind of module.

    Returns:
      float32 of the same shape. For an even number of layers the median is the mean
      of the middle two (NumPy's rule, not the lower one that torch takes).

    Raises:
      ValueError: If there is no layer axis or no layer.

    Examples:
      >>> print(floored(jnp.array([0.56, 0.3, 0.0])))
      [0.56 0.3  0.3 ]

    Note:
      In the original program only; the paper does not mention a floor.
    """
    ratios = jnp.asarray(ratios, jnp.float32)
    if ratios.ndim == 0 or ratios.shape[0] == 0:
        raise ValueError(
            f"ratios must have an axis of layers first, got shape {ratios.shape}"
        )
    return jnp.maximum(ratios, jnp.median(ratios, axis=0))


def token_weights(
    masks: Mapping[str, jax.Array],
    sensitivity: Mapping[str, ArrayLike] | None = None,
    *,
    mode: str = "ratio",
    reference: str = "language",
    average: str = "tokens",
    counts: Mapping[str, ArrayLike] | None = None,
) -> jax.Array:
    """Weight of every token in the reconstruction error.

    A token of modality ``m`` weighs ``r_m``, a token in no mask 0:

    - ``"ratio"``: ``r_m = G_m / G_reference``, the paper's balance;
    - ``"ratio_floor"``: the same, `floored` over layers, as the original program does;
    - ``"sensitivity"``: ``r_m = G_m``, the form of the derivation, same minimiser;
    - ``"uniform"``: ``r_m = 1``; ``"answer"``: 1 for the reference, 0 for the others.

    ``average`` says what is averaged with these weights. ``"tokens"`` leaves them as
    they are, so that a modality with more tokens counts more (the original's MAE).
    ``"modalities"`` multiplies by ``n / n_m`` (``n_m`` tokens of the modality, ``n``
    of all), which turns the mean over tokens into ``sum_m r_m mean_m`` (its MSE).

    Args:
      masks: bool ``[B, N]`` per modality, disjoint. Padding and prompt are in none.
      sensitivity: Mean absolute gradient (or ratio) per modality, same keys; a number
        or an array ``[...]`` whose axes (layers first) come out in front. Not used by
        ``"uniform"`` and ``"answer"``.
      mode: One of the above.
      reference: The modality that weighs 1.
      average: ``"tokens"`` or ``"modalities"``.
      counts: Tokens of each modality in the whole calibration set, when `masks` are
        only a part of it; without it `masks` must be all and none may be empty.

    Returns:
      float32 ``[..., B, N]``.

    Raises:
      TypeError: If a mask is not boolean.
      ValueError: If the shapes of the masks differ, masks overlap, a modality has no
        token at all, modalities and keys do not match, a sensitivity is negative, not
        finite or zero for the reference, or an option is unknown. Values are checked
        unless traced.

    Examples:
      >>> vision = jnp.array([[True, True, False, False]])
      >>> answer = jnp.array([[False, False, False, True]])
      >>> masks = {"vision": vision, "language": answer}
      >>> print(token_weights(masks, {"vision": 0.1, "language": 0.4}))
      [[0.25 0.25 0.   1.  ]]
      >>> print(token_weights(masks, mode="uniform", average="modalities"))
      [[1.5 1.5 0.  3. ]]

    References:
      arXiv 2412.19509, section 3.2, equations 8 to 13.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}")
    if average not in AVERAGES:
        raise ValueError(f"average must be one of {AVERAGES}, got {average!r}")
    check_masks(masks)
    _check_reference(reference, masks)
    tokens = _token_counts(masks, counts)
    ratios = _ratios(masks, sensitivity, mode, reference)
    weights = jnp.float32(0.0)
    for name, mask in masks.items():
        ratio = ratios[name]
        if average == "modalities":
            ratio = ratio * (sum(tokens.values()) / tokens[name])
        weights = weights + jnp.where(mask, ratio[..., None, None], 0.0)
    return weights


def _ratios(
    masks: Mapping[str, jax.Array],
    sensitivity: Mapping[str, ArrayLike] | None,
    mode: str,
    reference: str,
) -> dict[str, jax.Array]:
    """Weight of one token of each modality."""
    if mode == "uniform":
        return {name: jnp.float32(1.0) for name in masks}
    if mode == "answer":
        return {name: jnp.float32(name == reference) for name in masks}
    if sensitivity is None:
        raise ValueError(f"mode {mode!r} needs a sensitivity per modality, got None")
    _check_keys("sensitivity", sensitivity, masks)
    if mode == "sensitivity":
        return _checked_sensitivity(sensitivity, reference)
    ratios = modality_ratio(sensitivity, reference=reference)
    if mode == "ratio":
        return ratios
    # the reference is 1 in every layer, hence its own median
    return {name: floored(ratio) for name, ratio in ratios.items()}


def _token_counts(
    masks: Mapping[str, jax.Array], counts: Mapping[str, ArrayLike] | None
) -> dict[str, jax.Array]:
    """Tokens per modality, float32 scalars; refuses a modality without any."""
    if counts is not None:
        _check_keys("counts", counts, masks)
        tokens = {n: jnp.asarray(counts[n], jnp.float32) for n in masks}
        source = "counts"
    else:
        tokens = {n: jnp.sum(mask, dtype=jnp.float32) for n, mask in masks.items()}
        source = "masks"
    for name, number in tokens.items():
        if not is_traced(number) and not number > 0:
            raise ValueError(
                f"{source}[{name!r}] has no token in the calibration data; leave the "
                "modality out"
            )
    return tokens


def _checked_sensitivity(
    sensitivity: Mapping[str, ArrayLike], reference: str
) -> dict[str, jax.Array]:
    """Float32 arrays, all finite and not negative, the reference positive."""
    _check_reference(reference, sensitivity)
    arrays = {name: jnp.asarray(g, jnp.float32) for name, g in sensitivity.items()}
    for name, array in arrays.items():
        if is_traced(array):
            continue
        values = np.asarray(array)
        bad = ~np.isfinite(values) | (values < 0)
        if name == reference:
            bad |= values == 0
        if bad.any():
            where = np.argwhere(bad)[0].tolist()
            at = f" at index {where}" if where else ""
            kind = "positive" if name == reference else "not negative"
            raise ValueError(
                f"sensitivity of {name!r} must be finite and {kind}, got "
                f"{values[bad][0]}{at}"
            )
    return arrays


def _check_reference(reference: str, names: Iterable[str]) -> None:
    if reference not in names:
        raise ValueError(
            f"reference must be one of the modalities {sorted(names)}, "
            f"got {reference!r}"
        )


def _check_keys(
    argument: str, given: Mapping[str, ArrayLike], masks: Mapping[str, jax.Array]
) -> None:
    if set(given) != set(masks):
        raise ValueError(
            f"{argument} must have the modalities of masks, {sorted(masks)}, "
            f"got {sorted(given)}"
        )
