"""How the scale of one group is found: by searching the grid, or by a formula."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jeff.mbq.calibration.batches import fits_tokens
from jeff.mbq.call.weighing import Weigh
from jeff.mbq.config import BalanceConfig
from jeff.mbq.groups.infer import Group
from jeff.mbq.methods.scaling import Choice, Choose
from jeff.mbq.running_mean import RunningMean
from jeff.mbq.scales.balance import best_candidate
from jeff.mbq.scales.search import candidate_scales
from jeff.mbq.scales.smoothquant import smoothquant_scale

__all__ = ["searched", "smoothed"]


def searched(config: BalanceConfig, loss: str, weigh: Weigh) -> Choose:
    """The grid search of AWQ and MBQ.

    Args:
      config: The quantizers and the grid.
      loss: ``"mae"`` or ``"mse"``.
      weigh: Weight of every token.

    Returns:
      A function that picks the exponent of the smallest loss, the first of equals.
    """

    def choose(search, group, block, weights, features):
        chosen = search.groups[group]
        magnitude = functools.reduce(
            RunningMean.merge, (f.magnitude for f, _ in features())
        )
        candidates = candidate_scales(
            magnitude, jnp.asarray(chosen.share), grid=config.grid, share=config.share
        )
        total, row = None, {}
        for feature, batch in features():
            tokens, row = weigh(chosen, block, batch)
            got = search.losses(
                weights,
                feature,
                candidates,
                _per_row(tokens, feature.y.shape, chosen),
                group=group,
                config=config.weights,
                activation_bits=config.activation_bits,
            )[loss]
            total = got if total is None else total.merge(got)
        assert total is not None
        losses = total.value
        index = int(best_candidate(losses))
        exponent = index / config.grid
        return Choice(candidates[index], exponent, np.asarray(losses), row)

    return choose


def smoothed(config: BalanceConfig) -> Choose:
    """SmoothQuant's formula, for groups whose input comes from a norm.

    Args:
      config: `BalanceConfig.smoothing` is the exponent.

    Returns:
      A function that searches nothing.
    """

    def choose(search, group, block, weights, features):
        del block
        chosen = search.groups[group]
        if not chosen.elementwise:
            return "its input does not come from a norm"
        peak = functools.reduce(jnp.maximum, (f.peak for f, _ in features()))
        scale = smoothquant_scale(
            _shared_max(peak, chosen.share),
            _shared_max(_largest_weights(weights, chosen), chosen.share),
            config.smoothing,
        )
        return Choice(scale, config.smoothing, np.zeros(0), {})

    return choose


def _per_row(
    tokens: jax.Array | None, shape: tuple[int, ...], group: Group
) -> jax.Array:
    """Token weights in the shape of the rows of an output; ones for ``None``."""
    rows = shape[:-1]
    if tokens is None:
        return jnp.ones(rows, jnp.float32)
    if not fits_tokens(shape, tokens.shape):
        raise ValueError(
            f"masks have shape {tokens.shape}, but the output of site "
            f"{group.inspect!r} has shape {tuple(shape)}"
        )
    return tokens.reshape(rows)


def _largest_weights(weights: Mapping[str, jax.Array], group: Group) -> jax.Array:
    """``[K]``: largest absolute weight of each input channel over the group."""
    peak = jnp.zeros(group.share.size + 1, jnp.float32)
    for name, channel_map in group.targets.items():
        w = jnp.abs(weights[name].astype(jnp.float32))
        index = np.broadcast_to(channel_map.index, w.shape).ravel()
        peak = peak.at[index].max(w.ravel())  # no channel, -1, is the last entry
    return peak[:-1]


def _shared_max(values: jax.Array, share: np.ndarray) -> jax.Array:
    """Every channel's class maximum."""
    return jnp.zeros_like(values).at[share].max(values)[share]
