"""Numbering the uses of every leaf and mark as if all loops were written out."""

import dataclasses

from jeff.program.graph import Frame, Program, Step

__all__ = ["Uses"]


@dataclasses.dataclass
class Uses:
    """Which use of its leaf every site is, and which one of its name every mark.

    Attributes:
      first: Number of the use, by the site's step; in the entry 0 of the loops around.
      strides: How many uses further one iteration of a loop is, by step and by the
        loop's path; missing where the loop steps through a stack of weights.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jeff.program import sites
      >>> def unrolled(p, x):
      ...     return x @ p["w"] @ p["w"]
      >>> def looped(p, x):
      ...     return jax.lax.fori_loop(0, 2, lambda i, x: x @ p["w"], x)
      >>> arguments = {"w": jnp.eye(2)}, jnp.ones(2)
      >>> [site.use for site in sites(unrolled, *arguments)]
      [0, 1]
      >>> [site.at((1,)).use for site in sites(looped, *arguments)]  # its second turn
      [1]
    """

    first: dict[int, int]
    strides: dict[int, dict[tuple[int, ...], int]]

    @classmethod
    def of(cls, program: Program) -> "Uses":
        """The uses in a program, in program order.

        Args:
          program: The walked program.

        Returns:
          Their numbers.
        """
        uses = cls({}, {})
        uses._frame(program.frame, {})
        return uses

    def _frame(self, frame: Frame, counts: dict[str, int]) -> list[Step]:
        inside = []
        for step in frame.steps:
            label = step.label
            if label is not None:
                self.first[id(step)] = counts.get(label, 0)
                counts[label] = counts.get(label, 0) + 1
                inside.append(step)
            for child in step.children:
                inside += self._child(child, counts)
        return inside

    def _child(self, child: Frame, counts: dict[str, int]) -> list[Step]:
        before = dict(counts)
        inside = self._frame(child, counts)
        if child.kind not in ("scan", "while", "while_cond"):
            return inside
        assert child.step is not None
        backwards = child.kind == "scan" and child.step.eqn.params["reverse"]
        repeated = set()
        for step in inside:
            label = step.label
            if label is not None and child.path not in _stepped(step):
                stride = counts[label] - before.get(label, 0)
                if backwards:  # iterations are numbered by their place in the stack
                    self.first[id(step)] += ((child.trips or 1) - 1) * stride
                    stride = -stride
                self.strides.setdefault(id(step), {})[child.path] = stride
                repeated.add(label)
        for label in repeated:
            start = before.get(label, 0)
            counts[label] = start + (counts[label] - start) * (child.trips or 1)
        return inside


def _stepped(step: Step) -> tuple[tuple[int, ...], ...]:
    """Paths of the loops that step through a stack of the site's weight."""
    origin = None if step.weight is None else step.weight_value.origin
    return () if origin is None else origin.loops
