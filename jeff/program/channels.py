"""Which parameters scale an activation channel by channel.

Walking backwards from an activation through operations that are linear in one operand,
this finds the parameters whose division by ``s`` divides the activation by ``s``, one
factor per channel: a norm's scale and bias, the output columns of an earlier linear
layer seen through attention, a gate or a reshape. Nothing is assumed about names.

References:
  Dividing a layer's input by a scale per channel and multiplying its weight by it is
  the equivalent transform of SmoothQuant (arXiv 2211.10438, equation 3) and AWQ (arXiv
  2306.00978, section 3.2). What in front takes the division is found here.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jeff.program import channel_index, channel_steps, graph

__all__ = ["ChannelMap", "find_sources", "weight_channels"]


@dataclasses.dataclass(frozen=True)
class ChannelMap:
    """Which channel each element of a weight belongs to.

    Attributes:
      index: int array that broadcasts against the weight; ``-1``: no channel.
      offset: The value used is ``offset + weight`` (a norm stored around zero), so
        dividing it by ``s`` is ``(offset + w) / s - offset``.

    Examples:
      >>> weight, scale = np.array([0.0, 1.0]), np.array([2.0, 4.0])
      >>> norm = ChannelMap(np.array([0, 1]), offset=1.0)
      >>> ((norm.offset + weight) / scale[norm.index] - norm.offset).tolist()
      [-0.5, -0.5]
    """

    index: np.ndarray
    offset: float = 0.0


def find_sources(
    step: graph.Step,
    contract: Sequence[int],
    allowed: Sequence[str] | None = None,
) -> tuple[Mapping[str, ChannelMap], np.ndarray] | None:
    """Parameters that scale the input of a site, channel by channel.

    Args:
      step: The site's step.
      contract: Contracted axes of the site's activation operand, in the order of
        the weight's contracted axes.
      allowed: Names of the leaves that may be used; any if not given.

    Returns:
      ``(sources, share)``: a map per entry weight of the frame, and for each of the K
      channels the class of channels that must share one factor (grouped-query
      attention), int ``[K]``; ``None`` if there is no such set of parameters.

    Raises:
      ValueError: If the step is not a site.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff.program import trace
      >>> from jeff.program.sites import find
      >>> def normed(p, x):
      ...     return (x * p["scale"]) @ p["w"]
      >>> params = {"scale": jnp.ones(3), "w": jnp.ones((3, 2))}
      >>> traced = trace.tracer_of(normed).trace(params, (jnp.ones((4, 3)),), {})
      >>> found, share = find_sources(find(traced).steps["w"], (1,))
      >>> found["scale"].index.tolist(), share.tolist()
      ([0, 1, 2], [0, 1, 2])
    """
    return _search(step, 1 - _weight(step), contract, allowed)


def weight_channels(
    step: graph.Step, contract: Sequence[int]
) -> tuple[Mapping[str, ChannelMap], np.ndarray] | None:
    """Where the input channels of a site lie in the entry weights it is made of.

    Args:
      step: The site's step.
      contract: Contracted axes of the weight operand, in the leaf's order.

    Returns:
      ``(maps, share)`` as `find_sources`, or ``None`` if the weight is computed in a
      way that mixes channels.

    Raises:
      ValueError: If the step is not a site.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff.program import trace
      >>> from jeff.program.sites import find
      >>> def heads(p, x):  # [in, heads, width]
      ...     return x @ p["w"].reshape(3, 8)
      >>> params = {"w": jnp.ones((3, 2, 4))}
      >>> traced = trace.tracer_of(heads).trace(params, (jnp.ones((4, 3)),), {})
      >>> maps, _ = weight_channels(find(traced).steps["w"], (0,))
      >>> maps["w"].index.shape, maps["w"].index[:, 0, 0].tolist()
      ((3, 1, 1), [0, 1, 2])
    """
    return _search(step, _weight(step), contract, None)


def _weight(step: graph.Step) -> int:
    if step.weight is None:
        raise ValueError(f"{step.eqn.primitive.name} at {step.path} is no site")
    return step.weight


def _search(step, operand, contract, allowed):
    value = step.inputs[operand]
    index = channel_index.contracted(value.aval.shape, contract)
    names = None if allowed is None else frozenset(allowed)
    search = _Search({}, np.arange(index.size), names, step.outputs[0].frame)
    return (search.found, search.share) if search.push(value, index) else None


@dataclasses.dataclass
class _Search:
    """State of one backward walk; copied where the walk may have to turn back.

    Attributes:
      found: The parameters to scale, so far.
      share: For every channel the class of channels that share its factor.
      allowed: Names of the leaves that may be used; ``None``: any.
      frame: The frame that is searched.
      conflicts: How often another operand scales with the one that was chosen.
    """

    found: dict[str, ChannelMap]
    share: np.ndarray
    allowed: frozenset[str] | None
    frame: Any
    conflicts: int = 0

    def push(self, value: graph.Value, index: np.ndarray) -> bool:
        """Makes `value` scale by channel, by scaling parameters further back."""
        if (index < 0).all():
            return True
        if value.literal is not None:
            return not np.any(np.asarray(value.literal))  # zero scales to zero
        value = self.frame.first.get(value.number, value)
        step = value.step if value.frame is self.frame else None
        if step is None:
            return self.record(value, index, 0.0)
        if value.is_weight and (offset := _offset(step)) is not None:
            weight, constant = offset
            if weight.step is None or weight.frame is not self.frame:
                tied = channel_index.onto_operand(index, weight.aval.shape)
                if tied is None:
                    return False
                self.tie(tied[1])
                return self.record(weight, tied[0], constant)
        outputs = [v.number for v in step.outputs]
        output = outputs.index(value.number)
        return channel_steps.through(self, step, index, output)

    def push_all(self, values: Sequence[graph.Value], index: np.ndarray) -> bool:
        """The same for the operands of an elementwise operation, scalars among them."""
        for value in values:
            if value.literal is not None and not np.any(np.asarray(value.literal)):
                continue
            moved = channel_index.onto_operand(index, value.aval.shape)
            if moved is None:
                return False
            self.tie(moved[1])
            if not self.push(value, moved[0]):
                return False
        return True

    def attempt(
        self,
        operand: graph.Value,
        index: np.ndarray,
        others: Sequence[graph.Value],
        ties: Sequence[np.ndarray] = (),
    ) -> list["_Search"]:
        """The search after scaling `operand` alone, if that is possible.

        It has a conflict if another operand scales with it. In ``silu(g) = g *
        sigmoid(g)`` both factors come from one layer, so scaling it would scale more
        than the product. With one fused kernel the same leaf may be used through other
        columns, so a conflict is counted, not forbidden.
        """
        trial = dataclasses.replace(
            self, found=dict(self.found), share=self.share.copy()
        )
        trial.tie(ties)
        if not trial.push(operand, index):
            return []
        new = set(trial.found) - set(self.found)
        if any(new & _ancestors(v, self.frame) for v in others):
            trial.conflicts += 1
        return [trial]

    def choose(self, attempts: Sequence["_Search"]) -> bool:
        """Adopts the attempt with the fewest conflicts, the first of equals."""
        if attempts:
            best = min(attempts, key=lambda a: a.conflicts)
            self.found, self.share = best.found, best.share
            self.conflicts = best.conflicts
        return bool(attempts)

    def tie(self, classes: Sequence[np.ndarray]) -> None:
        """Makes the channels of each class share one factor."""
        for channels in classes:
            joined = np.unique(self.share[channels])
            self.share[np.isin(self.share, joined)] = joined.min()

    def record(self, value: graph.Value, index: np.ndarray, offset: float) -> bool:
        """Notes a parameter, if it may be scaled and no other way already."""
        origin = value.origin
        if origin is None or not origin.is_view:
            return False
        name = origin.leaves[0]
        if self.allowed is not None and name not in self.allowed:
            return False
        ones = (1,) * len(value.aval.shape)
        index = np.broadcast_to(index, np.broadcast_shapes(index.shape, ones))
        known = self.found.get(name)
        if known is not None:
            merged = channel_index.merged(known.index, index)
            if merged is None or known.offset != offset:
                return False
            index = merged
        self.found[name] = ChannelMap(index, offset)
        return True


def _offset(step) -> tuple[graph.Value, float] | None:
    """``(weight, c)`` if the step adds the scalar constant c to a weight."""
    if step.eqn.primitive.name != "add":
        return None
    for a, b in (step.inputs, step.inputs[::-1]):
        if a.literal is not None and b.is_weight and np.ndim(a.literal) == 0:
            return b, float(a.literal)
    return None


def _ancestors(value: graph.Value, frame: graph.Frame) -> set[str]:
    """Leaves that a value depends on within the frame."""
    names: set[str] = set()
    queue, seen = [value], set()
    while queue:
        v = queue.pop()
        if v.number in seen:
            continue
        seen.add(v.number)
        if v.origin is not None and v.origin.is_weight:
            names.update(v.origin.leaves)
        elif v.step is not None and v.frame is frame:
            queue.extend(v.step.inputs)
    return names
