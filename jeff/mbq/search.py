"""The balanced scale search over one group of linears (arXiv 2412.19509, section 3.2).

For every exponent of the grid the group's weights are scaled, quantized and scaled
back, the inspected region is run, and its output is compared with the full-precision
one, every token weighing what its modality's sensitivity says.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff import quantize
from jeff.mbq import objective, scales
from jeff.mbq.fold import scale_targets
from jeff.mbq.groups import Group, weight_of
from jeff.mbq.running_mean import RunningMean
from jeff.program import piece
from jeff.program.blocks import Stack
from jeff.quantize.affine import exact_divide

__all__ = ["Features", "GroupSearch"]


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """What a group's search needs of one batch at one block.

    Attributes:
      x: The shared input, where the inspected region starts.
      side: Side inputs of the region.
      y: Full-precision output of the region.
      channels: ``[..., K]``, the input as the group's linears see it.
    """

    x: jax.Array
    side: tuple[jax.Array, ...]
    y: jax.Array
    channels: jax.Array


jax.tree_util.register_dataclass(
    Features, data_fields=["x", "side", "y", "channels"], meta_fields=[]
)


class GroupSearch:
    """Compiled pieces of one group: features, magnitudes, candidate losses.

    One compilation serves every block of the stack and every batch.
    """

    def __init__(
        self,
        stack: Stack,
        group: Group,
        config: quantize.QuantConfig,
        activation_bits: int | None = None,
    ):
        """Prepares the group's functions.

        Args:
          stack: The stack the group was inferred from.
          group: The group.
          config: The weight quantizer.
          activation_bits: Width of activation codes, or ``None``.
        """
        self.stack, self.group = stack, group
        self.config, self.activation_bits = config, activation_bits
        found = stack.piece.found
        self._view = found.by_path[found.steps[group.sites[0]].path][1]
        self._inspect = found.by_path[found.steps[group.inspect].path][1]
        self._contract = _slice_axes(stack, group)
        step = found.steps[group.sites[0]]
        operand = step.inputs[1 - weight_of(step)]
        region = group.region
        wanted = [*region.start, *region.side, *region.stop, operand]
        self._features = piece.make_piece(
            found, stack.piece.frame, stack.piece.start, wanted
        )
        self._outer = _outer_sides(stack, self._features)
        self.features = jax.jit(self._run_features)
        self.magnitude = jax.jit(
            lambda f: scales.activation_magnitude(f.channels))
        self.largest = jax.jit(
            lambda f: jnp.abs(f.channels.astype(jnp.float32)).max(
                tuple(range(f.channels.ndim - 1))))
        self.losses = jax.jit(self._run_losses, static_argnames=("loss",))

    def _run_features(self, weights, state, side) -> Features:
        chosen = [side[i] for i in self._outer]
        got = self._features(weights, state, chosen)
        n = len(self.group.region.side)
        return Features(
            got[0], tuple(got[1 : 1 + n]), self._inspect.y_view(got[1 + n]),
            self._view.x_view(got[2 + n]),
        )

    def _run_losses(
        self, weights, features: Features, candidates, token_weights, *, loss: str
    ) -> RunningMean:
        """Loss of every candidate scale ``[grid, K]`` on one batch."""
        region = self.group.region
        measure = objective.as_loss(loss)

        def one(scale):
            changed = self.quantized(weights, scale)
            rules = ()
            if self.activation_bits is not None:
                rules = (self._activations(scale),)
            (y,) = region(changed, (features.x,), features.side, rules=rules)
            return measure(features.y, self._inspect.y_view(y), token_weights)

        return jax.lax.map(one, candidates)

    def quantized(
        self, weights: Mapping[str, jax.Array], scale: jax.Array
    ) -> dict[str, jax.Array]:
        """The block's weights with the group's quantized under a scale.

        Weight-only: ``Q(W s) / s``. With activations quantized the scale stays in the
        weight, and the activation is divided by it.
        """
        new = dict(weights)
        for name, w in scale_targets(weights, self.group.targets, scale).items():
            q = quantize.fake_quant(
                w, self.config, contract_axes=self._contract[name]
            )
            if self.activation_bits is None:
                spread = scale[self.group.targets[name].index]
                q = exact_divide(q.astype(jnp.float32), spread).astype(q.dtype)
            new[name] = q
        return new

    def _activations(self, scale):
        bits, sites = self.activation_bits, frozenset(self.group.sites)
        assert bits is not None

        def rule(site, op, x, w):
            if site.name not in sites:
                return op(x, w)
            balanced = exact_divide(
                x.astype(jnp.float32), jnp.broadcast_to(scale, x.shape))
            return op(quantize.fake_quant_activations(
                balanced, bits=bits).astype(x.dtype), w)

        return rule

    def best(
        self,
        batches: Callable[[], Sequence[tuple[Mapping[str, Any], Features, Any]]],
        magnitude: jax.Array,
        *,
        grid: int,
        share: str,
        loss: str,
    ) -> tuple[jax.Array, int, jax.Array]:
        """The best scale of the grid.

        Args:
          batches: Makes the sequence of ``(weights, features, token_weights)``.
          magnitude: ``[K]``, mean absolute input over the whole calibration set.
          grid: Number of exponents.
          share: Reduction for channels that share a scale.
          loss: ``"mae"`` or ``"mse"``.

        Returns:
          ``(scale [K], index, losses [grid])``.
        """
        candidates = _candidates(
            magnitude, jnp.asarray(self.group.share), grid=grid, share=share
        )
        total = None
        for weights, features, token_weights in batches():
            got = self.losses(weights, features, candidates, token_weights, loss=loss)
            total = got if total is None else total.merge(got)
        assert total is not None
        index = int(scales.best_candidate(total.value))
        return candidates[index], index, total.value


@functools.partial(jax.jit, static_argnames=("grid", "share"))
def _candidates(magnitude, classes, *, grid: int, share: str):
    make = functools.partial(scales.balance_scale, share=classes, reduce=share)
    return jax.vmap(make, in_axes=(None, 0))(magnitude, scales.balance_grid(grid))


def _slice_axes(stack: Stack, group: Group) -> dict[str, tuple[int, ...]]:
    """Contracted axes of each of the group's weights, as one block holds it."""
    found = stack.piece.found
    axes = {}
    for name in group.sites:
        site = found.sites.named(name)
        for part in site.parts:
            ref = stack.leaves[0].get(part.leaf)
            if ref is None:
                continue
            gone = ref.axis
            axes[part.leaf] = tuple(
                a - (gone is not None and a > gone) for a in part.contract_axes
            )
    return axes


def _outer_sides(stack: Stack, made: piece.Piece) -> list[int]:
    """Which of the stack's side inputs a piece inside the block takes."""
    place = {v.number: i for i, v in enumerate(stack.piece.side)}
    return [place[v.number] for v in made.side]


