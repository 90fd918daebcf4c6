"""The balanced scale search over the groups of a block (arXiv 2412.19509, section 3.2).

For every exponent of the grid the group's weights are scaled, quantized and scaled
back, the inspected region is run, and its output is compared with the full-precision
one, every token weighing what its modality's sensitivity says.

Everything compiled here serves every block of a stack, every batch and every later
call with the same program.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import base, quantize
from jeff.mbq.blocks.capture import Capture
from jeff.mbq.blocks.run import BlockRun, activation_rules
from jeff.mbq.groups.fold import fold_scale, scale_targets
from jeff.mbq.groups.infer import Group, weight_of
from jeff.mbq.rounding.entries import entry_axes
from jeff.mbq.running_mean import RunningMean
from jeff.mbq.scales import balance, objective
from jeff.mbq.scales.smoothquant import channel_max
from jeff.program.blocks import Stack
from jeff.quantize.affine import exact_divide

__all__ = ["Features", "StackSearch", "candidate_scales", "relative_change"]


class Features(NamedTuple):
    """What one group's search needs of one batch at one block.

    Attributes:
      x: The shared input, where the inspected region starts.
      side: Side inputs of the region.
      y: ``[..., N]``, full-precision output of the region.
      magnitude: Mean absolute input per channel, ``[K]``, as a running mean.
      peak: ``[K]``, largest absolute input per channel.
    """

    x: jax.Array
    side: tuple[jax.Array, ...]
    y: jax.Array
    magnitude: RunningMean
    peak: jax.Array


class StackSearch:
    """Compiled pieces of a stack's groups: features, candidate losses, folds.

    Attributes:
      stack: The stack of blocks.
      groups: Those of its groups that can be scaled.
      features: ``features(weights, state, side, *, activation_bits=None) ->
        [Features]``, one per group; inputs of stored weights are quantized, if there is
        a width.
      losses: ``losses(weights, features, candidates [grid, K], tokens, *, group,
        config, activation_bits) -> {"mae": RunningMean, "mse": RunningMean}``, both
        ``[grid]``.
      fold: ``fold(weights, scale [K], *, group) -> weights``.
      run: ``run(weights, state, side) -> state``, one block.
    """

    def __init__(self, stack: Stack, groups: Sequence[Group]):
        """Prepares the functions of the groups that can be folded.

        Args:
          stack: The stack the groups were inferred from.
          groups: The groups.
        """
        self.stack = stack
        self.groups = tuple(g for g in groups if g.sources is not None)
        found = stack.piece.found
        self._steps = [found.steps[g.sites[0]] for g in self.groups]
        self._views = [found.by_path[s.path][1] for s in self._steps]
        self._inspected = [
            found.by_path[found.steps[g.inspect].path][1] for g in self.groups
        ]
        self._contract = [_slice_axes(stack, g) for g in self.groups]
        wanted = []
        for group, step in zip(self.groups, self._steps, strict=True):
            region, operand = group.region, step.inputs[1 - weight_of(step)]
            wanted += [*region.start, *region.side, *region.stop, operand]
        self._capture = Capture(stack, wanted)
        self.features = jax.jit(self._features, static_argnames=("activation_bits",))
        self.losses = jax.jit(
            self._losses, static_argnames=("group", "config", "activation_bits")
        )
        self.fold = jax.jit(self._fold, static_argnames=("group",))
        self.run = BlockRun.of(stack).run

    @classmethod
    def of(cls, stack: Stack, groups: Sequence[Group]) -> "StackSearch":
        """The search of a stack; made once per program and choice of groups.

        Args:
          stack: The stack.
          groups: Its groups.

        Returns:
          The same object for the same stack and groups, with what it has compiled.
        """
        memo = stack.piece.found.memo
        key = ("mbq", id(stack), tuple((g.sites, g.inspect, g.fold) for g in groups))
        if key not in memo:
            memo[key] = cls(stack, groups)
        return memo[key]

    def _features(
        self, weights, state, side, *, activation_bits=None
    ) -> list[Features]:
        rules = activation_rules(activation_bits)
        got = list(self._capture(weights, state, side, rules))
        features = []
        for i, group in enumerate(self.groups):
            n = len(group.region.side)
            (x, *inner), got = got[: 1 + n], got[1 + n :]
            (y, operand), got = got[:2], got[2:]
            channels = self._views[i].x_view(operand)
            features.append(
                Features(
                    x,
                    tuple(inner),
                    self._inspected[i].y_view(y),
                    balance.activation_magnitude(channels),
                    channel_max(channels),
                )
            )
        return features

    def _losses(
        self, weights, features, candidates, tokens, *, group, config, activation_bits
    ) -> dict[str, RunningMean]:
        """Both losses of every candidate ``[grid, K]`` of one group on one batch.

        `tokens` weighs the tokens ``[...]``; ones are the plain mean. Candidates run
        one after the other: `jax.vmap` would hold the weights and outputs of all of
        the grid at once, where the block of one is what has to fit in memory.
        """
        region, inspected = self.groups[group].region, self._inspected[group]

        def one(scale):
            changed = self.quantized(weights, group, scale, config, activation_bits)
            rules: tuple[base.Rule, ...] = ()
            if activation_bits is not None:
                rules = (self._activations(group, scale, activation_bits),)
            (y,) = region(changed, (features.x,), features.side, rules=rules)
            y = inspected.y_view(y)
            return {
                "mae": objective.mae(features.y, y, tokens),
                "mse": objective.mse(features.y, y, tokens),
            }

        return jax.lax.map(one, candidates)

    def quantized(
        self,
        weights: Mapping[str, jax.Array],
        group: int,
        scale: jax.Array,
        config: quantize.QuantConfig,
        activation_bits: int | None,
    ) -> dict[str, jax.Array]:
        """The block's weights with one group's quantized under a scale.

        Weight-only: ``Q(W s) / s``. With activations quantized the scale stays in the
        weight, and the activation is divided by it.

        Args:
          weights: The block's weights by name.
          group: Number of the group.
          scale: float32 ``[K]``.
          config: The weight quantizer.
          activation_bits: Width of the activations; ``None`` if they are left alone.

        Returns:
          All weights of the block.

        References:
          arXiv 2412.19509, section 3.2.
        """
        new = dict(weights)
        targets = self.groups[group].targets
        for name, w in scale_targets(weights, targets, scale).items():
            q = quantize.fake_quant(
                w, config, contract_axes=self._contract[group][name]
            )
            if activation_bits is None:
                spread = scale[targets[name].index]
                q = exact_divide(q.astype(jnp.float32), spread).astype(q.dtype)
            new[name] = q
        return new

    def _activations(self, group: int, scale: jax.Array, bits: int) -> base.Rule:
        sites = frozenset(self.groups[group].sites)

        def rule(site, op, x, w):
            if site.name not in sites:
                return op(x, w)
            balanced = exact_divide(x.astype(jnp.float32), scale)
            codes = quantize.fake_quant_activations(balanced, bits=bits)
            return op(codes.astype(x.dtype), w)

        return rule

    def _fold(self, weights, scale, *, group):
        """The block's weights with the scale of a group folded in."""
        return fold_scale(weights, self.groups[group], scale)

    def probe(self, weights, after, state, side, *, group: int) -> float:
        """How much folding a group changes the block; 0 unless the fold is wrong.

        The scales are powers of two, whose folding rounds nothing, so the answer does
        not depend on the precision that the program computes in.

        Args:
          weights: The block's weights.
          after: The state after the block.
          state: The state before it.
          side: Its side inputs.
          group: Number of the group.

        Returns:
          `relative_change` of the state after the block.
        """
        share = self.groups[group].share
        powers = np.random.default_rng(0).integers(-1, 2, share.size)[share]
        scale = jnp.asarray(2.0**powers, jnp.float32)
        trial = self.fold(weights, scale, group=group)
        return float(relative_change(after, self.run(trial, state, side)))


@jax.jit
def relative_change(before: Sequence[jax.Array], after: Sequence[jax.Array]):
    """Largest difference over the largest value; the worst of the floating arrays.

    Args:
      before: Arrays.
      after: As many, of the same shapes.

    Returns:
      float32 scalar; 0 if there is no floating array.

    Examples:
      >>> before, after = [jnp.array([1.0, -4.0])], [jnp.array([1.5, -4.0])]
      >>> print(relative_change(before, after))
      0.125
    """
    worst = jnp.float32(0.0)
    for y, z in zip(before, after, strict=True):
        if jnp.issubdtype(y.dtype, jnp.inexact):
            y, z = y.astype(jnp.float32), z.astype(jnp.float32)
            size = jnp.maximum(jnp.abs(y).max(), jnp.finfo(jnp.float32).tiny)
            worst = jnp.maximum(worst, jnp.abs(y - z).max() / size)
    return worst


@functools.partial(jax.jit, static_argnames=("grid", "share"))
def candidate_scales(
    magnitude: RunningMean, classes: jax.Array, *, grid: int, share: str
) -> jax.Array:
    """The scale of every exponent of the grid.

    Args:
      magnitude: Mean absolute input per channel, ``[K]``.
      classes: int ``[K]``, channels of one class share a scale.
      grid: Number of exponents.
      share: ``"max"`` or ``"mean"``, see `jeff.mbq.scales.balance.balance_scale`.

    Returns:
      float32 ``[grid, K]``; the first row is 1.

    Examples:
      >>> magnitude = RunningMean(jnp.array([1.0, 4.0, 16.0]), jnp.float32(1.0))
      >>> print(candidate_scales(magnitude, jnp.arange(3), grid=2, share="max"))
      [[1.  1.  1. ]
       [0.5 1.  2. ]]
    """
    make = functools.partial(balance.balance_scale, share=classes, reduce=share)
    return jax.vmap(make, in_axes=(None, 0))(
        magnitude.value, balance.balance_grid(grid)
    )


def _slice_axes(stack: Stack, group: Group) -> dict[str, tuple[int, ...]]:
    """Contracted axes of each of the group's weights, as one block holds it."""
    axes: dict[str, tuple[int, ...]] = {}
    for name in group.sites:
        for part in stack.piece.found.sites.named(name).parts:
            ref: Any = stack.leaves[0].get(part.leaf)
            if ref is not None:
                axes[part.leaf] = entry_axes(part.contract_axes, ref.axis)
    return axes
