"""How much every token counts at every block: the balance of one method call."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff.mbq.blocks.store import BlockStore
from jeff.mbq.calibration.batches import Batch, check_modalities, fits_tokens
from jeff.mbq.calibration.sensitivity import sensitivity
from jeff.mbq.calibration.token_weights import floored, modality_ratio, token_weights
from jeff.mbq.config import BalanceConfig
from jeff.mbq.groups.infer import Group
from jeff.mbq.report import Sensitivities
from jeff.program.blocks import Stack

__all__ = [
    "Weigh",
    "balanced",
    "check_call",
    "check_loss",
    "check_tokens",
    "needs_loss",
    "sensitivities",
    "tokens_shape",
    "weigher",
]

Weigh = Callable[[Group, int, Batch], tuple[jax.Array | None, dict[str, float]]]

_GRADIENTS = ("ratio", "ratio_floor")


def needs_loss(config: BalanceConfig) -> bool:
    """Whether tokens, where they are weighed, weigh by the gradient of a loss.

    Args:
      config: `BalanceConfig.reweight` decides.

    Returns:
      Whether they do.
    """
    return config.reweight in _GRADIENTS


def check_loss(config: BalanceConfig, loss: Any) -> None:
    """Refuses a call without a loss if the tokens' weights come from its gradient.

    Args:
      config: `BalanceConfig.reweight` decides.
      loss: What was given as the loss.

    Raises:
      TypeError: If it is no function and is needed.

    Examples:
      >>> from jeff.quantize import QuantConfig
      >>> check_loss(BalanceConfig(weights=QuantConfig(bits=3)), None)
      Traceback (most recent call last):
        ...
      TypeError: loss must be a function for reweight='ratio_floor', got None
    """
    if needs_loss(config) and not callable(loss):
        raise TypeError(
            f"loss must be a function for reweight={config.reweight!r}, got {loss!r}"
        )


def balanced(
    apply: Callable[..., Any],
    params: Any,
    batches: Sequence[Batch],
    config: BalanceConfig,
    loss: Callable[[Any, Any], jax.Array] | None,
    stacks: Sequence[tuple[Stack, Sequence[Group]]],
    store: BlockStore | None = None,
) -> tuple[Weigh, Sensitivities]:
    """How tokens weigh, with the sensitivities that say so.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Full-precision parameters.
      batches: Checked calibration data.
      config: Settings.
      loss: As for `sensitivity`; checked by `check_loss`.
      stacks: Each stack of blocks, with the groups whose tokens are weighed.
      store: Where sensitivities are kept, if they are.

    Returns:
      ``(weigh, sensitivities)``, see `weigher` and `sensitivities`; the latter are
      empty unless weights come from gradients.

    Raises:
      ValueError: As `sensitivities` and `weigher`.
    """
    seen: Sensitivities | None = {}
    if needs_loss(config) and any(groups for _, groups in stacks):
        seen = None if store is None else store.sensitivities()
        if seen is None:
            assert loss is not None
            seen = sensitivities(apply, params, batches, loss, stacks)
            if store is not None:
                store.save_sensitivities(seen)
    return weigher(batches, config, seen), seen


def check_call(
    batches: Sequence[Batch],
    config: BalanceConfig,
    stacks: Sequence[tuple[Stack, Sequence[Group]]],
) -> None:
    """Refuses masks or weights that do not fit the settings or the program.

    Args:
      batches: Checked calibration data.
      config: Settings; with ``reweight="none"`` there is nothing to check.
      stacks: Each stack of blocks, with the groups whose tokens are weighed.

    Raises:
      ValueError: As `check_tokens`; likewise of `Batch.weights` with
        ``reweight="tokens"``, where there must be some and not all of them zero.
    """
    groups = [g for _, some in stacks for g in some]
    if config.reweight == "tokens":
        if batches[0].weights is None:
            raise ValueError("batches[0].weights is None: reweight='tokens' needs them")
        if not any(np.any(np.asarray(b.weights) > 0) for b in batches):
            raise ValueError("weights are zero for every token of every batch")
        _check_rows(groups, tokens_shape(batches[0], config), "weights")
    elif config.reweight != "none":
        check_tokens(batches, groups, config.reference)


def tokens_shape(batch: Batch, config: BalanceConfig) -> tuple[int, ...]:
    """Shape of what weighs the tokens of a batch.

    Args:
      batch: A checked batch.
      config: `BalanceConfig.reweight` decides what it is.

    Returns:
      ``(B, N)``; ``()`` if there is nothing.

    Examples:
      >>> from jeff.quantize import QuantConfig
      >>> config = BalanceConfig(weights=QuantConfig(bits=3), reweight="tokens")
      >>> tokens_shape(Batch((), weights=np.ones((1, 3))), config)
      (1, 3)
    """
    if config.reweight == "tokens":
        return np.shape(batch.weights) if batch.weights is not None else ()
    masks = list(batch.masks.values())
    return np.shape(masks[0]) if masks else ()


def check_tokens(
    batches: Sequence[Batch], groups: Sequence[Group], reference: str
) -> None:
    """Refuses masks that do not fit the sites at which candidates are judged.

    Args:
      batches: Checked calibration data.
      groups: The groups whose tokens are weighed.
      reference: The modality that weighs 1.

    Raises:
      ValueError: As `check_modalities`, or if the masks have another shape than the
        tokens of a group's inspected site (which is named).

    Examples:
      >>> batch = Batch((), {"vision": np.array([[True]]), "text": np.array([[False]])})
      >>> check_tokens([batch], [], "text")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
        ...
      ValueError: masks['text'] has no token in any batch; it is the reference, the ...
    """
    check_modalities(batches, reference)
    tokens = np.shape(next(iter(batches[0].masks.values())))
    _check_rows(groups, tokens, "masks")


def _check_rows(groups: Sequence[Group], tokens: tuple[int, ...], what: str) -> None:
    for group in groups:
        shape = group.y_shape
        if not fits_tokens(shape, tokens):
            raise ValueError(
                f"{what} must have a token for every row of site {group.inspect!r}, "
                f"whose output has shape {shape}; got {what} of shape {tokens} "
                "(leave the site out with where, if it is no part of the decoder)"
            )


def sensitivities(
    apply: Callable[..., Any],
    params: Any,
    batches: Sequence[Batch],
    loss: Callable[[Any, Any], jax.Array],
    stacks: Sequence[tuple[Stack, Sequence[Group]]],
) -> dict[str, dict[str, np.ndarray]]:
    """Modality sensitivities at the inspected sites of every block.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Full-precision parameters.
      batches: Calibration data with masks.
      loss: As for `sensitivity`.
      stacks: Each stack of blocks, with the groups to be searched in it.

    Returns:
      Per inspected site of the first block and modality, float ``[blocks]``.

    Raises:
      ValueError: As `sensitivity`.

    References:
      arXiv 2412.19509, section 3.2.
    """
    wanted = {
        names[group.inspect]
        for stack, groups in stacks
        for group in groups
        for names in stack.names
    }
    if not wanted:
        return {}
    got = sensitivity(apply, params, batches, loss, sites=wanted)
    table: dict[str, dict[str, np.ndarray]] = {}
    for stack, groups in stacks:
        for inspect in {g.inspect: None for g in groups}:
            rows = [got[names[inspect]] for names in stack.names]
            table[inspect] = {
                m: np.array(
                    [
                        float(row[m] if i is None else row[m][i])
                        for row, i in zip(rows, stack.iterations, strict=True)
                    ]
                )
                for m in rows[0]
            }
    return table


def weigher(
    batches: Sequence[Batch], config: BalanceConfig, seen: Sensitivities
) -> Weigh:
    """A function that weighs the tokens of a batch for one group of one block.

    Args:
      batches: The whole calibration set: its token counts set the averages.
      config: `BalanceConfig.reweight`, `reference` and `loss` are used.
      seen: From `sensitivities`; empty unless the weights come from gradients.

    Returns:
      ``weigh(group, block, batch) -> (weights [B, N] or None, ratio per modality)``;
      ``None`` weighs every token alike, padding included.

    Raises:
      ValueError: If a sensitivity is not finite, or that of the reference is zero
        (the site is named).

    Examples:
      >>> from jeff.quantize import QuantConfig
      >>> vision = np.array([[True, True, False]])
      >>> batch = Batch((), {"vision": vision, "language": ~vision})
      >>> config = BalanceConfig(weights=QuantConfig(bits=3), reweight="answer")
      >>> weights, ratio = weigher([batch], config, {})(None, 0, batch)
      >>> print(weights, ratio)
      [[0. 0. 1.]] {}
    """
    ratios = {site: _ratios(site, row, config) for site, row in seen.items()}
    counts = {
        m: float(sum(np.sum(np.asarray(b.masks[m])) for b in batches))
        for m in batches[0].masks
    }
    average = "modalities" if config.loss == "mse" else "tokens"

    def weigh(group, block, batch):
        if config.reweight == "none":
            return None, {}
        if config.reweight == "tokens":
            return jnp.asarray(batch.weights, jnp.float32), {}
        row, mode = {}, config.reweight
        if mode not in ("uniform", "answer"):
            row = {m: float(r[block]) for m, r in ratios[group.inspect].items()}
            mode = "ratio"
        weights = token_weights(
            batch.masks,
            row or None,
            mode=mode,
            reference=config.reference,
            average=average,
            counts=counts,
        )
        return weights, row

    return weigh


def _ratios(
    site: str, row: Mapping[str, np.ndarray], config: BalanceConfig
) -> dict[str, np.ndarray]:
    """Each modality's ratio to the reference, ``[blocks]``."""
    try:
        ratios = modality_ratio(row, reference=config.reference)
    except ValueError as error:
        raise ValueError(f"site {site!r}: {error}; check loss and masks") from None
    if config.reweight == "ratio_floor":
        ratios = {m: floored(r) for m, r in ratios.items()}
    return {m: np.asarray(r) for m, r in ratios.items()}
