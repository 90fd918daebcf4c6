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
from jeff.mbq.calibration.batches import (
    Batch,
    check_batches,
    check_modalities,
    check_program,
    fits_tokens,
)
from jeff.mbq.calibration.token_weights import modality_gradient
from jeff.mbq.running_mean import RunningMean

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

    ``G_m = mean_b mean_{t in m(b)} mean_c |dL / dy[b, t, c]|``

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
      TypeError: If `batches` are of the wrong kind, or `sites` is a single string.
      ValueError: If there are no masks, `params` and `batches` do not fit the program,
        a site does not exist or its output does not have a row per token, a modality
        has no token in any batch, or the loss is not one scalar.

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
    if isinstance(sites, str):
        raise TypeError(f"sites must be a collection of names, got {sites!r}")
    batches = check_batches(batches)
    check_modalities(batches)
    tokens = next(iter(batches[0].masks.values())).shape
    check_program(apply, params, batches[0].inputs)
    known = program.sites(apply, params, *batches[0].inputs)
    chosen = _chosen(known, tokens, sites)
    tapped = _tapped(apply, loss, frozenset(chosen))
    total: dict[str, dict[str, RunningMean]] = {}
    for batch in batches:
        _, taps = tapped(params, batch.inputs, batch.targets)
        for name, gradient in taps.items():
            shape = (*gradient.shape[: len(chosen[name])], *tokens)
            seen = modality_gradient(gradient.reshape(shape), batch.masks)
            if name in total:
                old = total[name]
                seen = {m: old[m].merge(mean) for m, mean in seen.items()}
            total[name] = seen
    return {
        name: {m: mean.value for m, mean in seen.items()}
        for name, seen in total.items()
    }


@functools.lru_cache(maxsize=8)
def _tapped(apply, loss, names: frozenset[str]):
    """The compiled gradient taps; the last few are kept for further calls."""

    def objective(params, inputs, targets):
        value = loss(apply(params, *inputs), targets)
        if jnp.shape(value) != ():
            raise ValueError(
                f"loss must return one scalar, got shape {jnp.shape(value)}"
            )
        return value

    return jax.jit(
        program.tap_cotangents(
            objective,
            lambda g: jnp.abs(g.astype(jnp.float32)).mean(-1),
            where=lambda site: site.name in names,
        )
    )


def _chosen(known, tokens, names) -> dict[str, tuple[int | None, ...]]:
    """Loop lengths of the sites whose outputs are tokens, by name."""
    if names is None:
        return {
            s.name: s.trips
            for s in known
            if s.kind not in ("lookup", "mark") and fits_tokens(s.y_shape, tokens)
        }
    chosen = {}
    for name in sorted(names):
        site = known.named(name)
        if not fits_tokens(site.y_shape, tokens):
            raise ValueError(
                f"masks have shape {tuple(tokens)}, but the output of site {name!r} "
                f"has shape {site.y_shape}"
            )
        chosen[name] = site.trips
    return chosen
