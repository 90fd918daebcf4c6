"""Modality sensitivities: how strongly the loss reacts to each modality's tokens.

The gradient of the loss with respect to a module's output, averaged in absolute value
over the tokens of each modality (arXiv 2412.19509, section 3.2). The reduction over
channels happens inside the backward pass, so nothing large is kept.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff import program
from jeff.mbq.calibration import Batch, check_batches
from jeff.mbq.running_mean import RunningMean
from jeff.mbq.token_weights import modality_gradient

__all__ = ["sensitivity"]


def sensitivity(
    apply: Callable[..., Any],
    params: Any,
    batches: Sequence[Batch],
    loss: Callable[[Any, Any], jax.Array],
    *,
    sites: Collection[str] | None = None,
) -> dict[str, dict[str, jax.Array]]:
    """Mean absolute gradient of each modality's tokens at the output of each site.

    Args:
      apply: ``apply(params, *inputs)``.
      params: Full-precision parameters.
      batches: Calibration data; every batch needs `Batch.masks`.
      loss: ``loss(outputs, targets)``, the *sum* over the samples of the batch of each
        sample's mean loss, so that no sample's gradient depends on the batch size.
      sites: Names of the sites to look at; all whose output is ``[B, N, ...]`` with
        the masks' ``[B, N]`` if not given.

    Returns:
      ``{site: {modality: [*loops]}}``, float32: one number per layer for a site
      inside a scan, a scalar otherwise.

    Raises:
      ValueError: If a batch has no masks, a mask does not fit the tokens of a site
        that was asked for, or a modality has no token in any batch.

    Examples:
      >>> import jax.numpy as jnp
      >>> apply = lambda p, x: x @ p["w"]
      >>> masks = {"vision": jnp.array([[True, False]]),
      ...          "language": jnp.array([[False, True]])}
      >>> batch = Batch((jnp.ones((1, 2, 3)),), masks, jnp.array([[[1.0], [4.0]]]))
      >>> loss = lambda y, weight: (weight * y).sum()
      >>> seen = sensitivity(apply, {"w": jnp.ones((3, 5))}, [batch], loss)
      >>> print(seen["w"]["vision"], seen["w"]["language"])
      1.0 4.0

    References:
      arXiv 2412.19509, section 3.2 and equations 8 to 13.
    """
    batches = check_batches(batches)
    for i, batch in enumerate(batches):
        if not batch.masks:
            raise ValueError(f"batches[{i}].masks is empty: name the modalities")
    tokens = next(iter(batches[0].masks.values())).shape
    known = program.sites(apply, params, *batches[0].inputs)
    chosen = _chosen(known, tokens, sites)
    tapped = _tapped(apply, loss, frozenset(chosen))
    total: dict[str, dict[str, RunningMean]] = {}
    for batch in batches:
        _, taps = tapped(params, batch.inputs, batch.targets)
        for name, gradient in taps.items():
            shape = (*gradient.shape[: len(chosen[name])], *tokens)
            seen = modality_gradient(gradient.reshape(shape), batch.masks)
            old = total.get(name)
            total[name] = seen if old is None else {
                m: old[m].merge(seen[m]) for m in seen
            }
    for modality in batches[0].masks:
        if all(not float(seen[modality].count) for seen in total.values()):
            raise ValueError(f"no batch has a token of modality {modality!r}")
    return {
        name: {m: mean.value for m, mean in seen.items()}
        for name, seen in total.items()
    }


@functools.lru_cache(maxsize=8)
def _tapped(apply, loss, names: frozenset[str]):
    """The compiled gradient taps; the last few are kept for further calls."""

    def objective(params, inputs, targets):
        return loss(apply(params, *inputs), targets)

    return jax.jit(
        program.tap_cotangents(
            objective,
            lambda g: jnp.abs(g.astype(jnp.float32)).mean(-1),
            where=lambda site: site.name in names,
        )
    )


def _chosen(known, tokens, names) -> dict[str, tuple[int | None, ...]]:
    """Loop lengths of the sites whose outputs are tokens, by name."""
    count = tokens[0] * tokens[1]
    chosen = {}
    for site in known:
        rows = 1
        for n in site.y_shape[:-1]:
            rows *= n
        fits = rows == count and site.kind != "lookup"
        if names is None and fits:
            chosen[site.name] = site.trips
        elif names is not None and site.name in names:
            if not fits:
                raise ValueError(
                    f"masks have shape {tuple(tokens)}, but the output of site "
                    f"{site.name!r} has shape {site.y_shape}"
                )
            chosen[site.name] = site.trips
    return chosen
