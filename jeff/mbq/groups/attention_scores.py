"""Which products of a block make queries and keys: those that feed attention scores."""

from typing import Any

from jeff.program import graph
from jeff.program.blocks import Stack

__all__ = ["score_sites"]

_EXPONENTIALS = frozenset({"exp", "exp2", "expm1"})


def score_sites(stack: Stack) -> frozenset[str]:
    """Sites whose output enters attention scores.

    From a site's output on, the program is followed to the first products of two
    activations. If the output of such a product reaches an exponential (of a softmax)
    before it meets a weight or another product, it is a matrix of scores. The values'
    product leads to a weight instead. A product with a constant (a rotation, heads
    repeated by ones and zeros) is followed through. A fused projection of queries, keys
    and values counts, as its queries do. Attention that runs in a loop of the block, a
    kernel or a primitive of its own cannot be followed: all that feeds it counts,
    values too, if both a product and an exponential are inside, or it is called
    attention.

    Args:
      stack: The block.

    Returns:
      Names in the template block.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jeff import program
      >>> def attend(p, x):
      ...     q, k, v = x @ p["q"], x @ p["k"], x @ p["v"]
      ...     return (jax.nn.softmax(q @ k.T) @ v) @ p["o"]
      >>> params = {n: jnp.ones((4, 4)) for n in "qkvo"}
      >>> sorted(score_sites(program.whole(attend, params, jnp.ones((3, 4)))))
      ['k', 'q']

    References:
      AWQ's program (github mit-han-lab/llm-awq) leaves query, key and fused projections
      out of its clipping search by their names.
    """
    found, frame = stack.piece.found, stack.piece.frame
    readers: dict[int, list[graph.Step]] = {}
    active = {id(v) for v in frame.inputs if v.origin is None}  # activations
    for step in frame.steps:
        if any(id(v) in active for v in step.inputs):
            active.update(id(v) for v in step.outputs)
        for value in step.inputs:
            readers.setdefault(value.number, []).append(step)

    def is_product(step: graph.Step) -> bool:
        """Whether a step multiplies two activations."""
        return _is_dot(step) and all(id(v) in active for v in step.inputs)

    def reached(start: graph.Step):
        """Steps that depend on `start`, not seen through sites and products."""
        queue, seen = [start], set()
        while queue:
            for value in queue.pop().outputs:
                for step in readers.get(value.number, ()):
                    if id(step) in seen:
                        continue
                    seen.add(id(step))
                    yield step
                    ends = step.path in found.by_path or is_product(step)
                    if not ends and not step.children:
                        queue.append(step)

    def makes_scores(step: graph.Step) -> bool:
        if step.path in found.by_path:
            return False
        if step.children:
            return _attends(step)
        if "attention" in step.eqn.primitive.name:
            return True
        inner = _names_inside(step.eqn)
        if "dot_general" in inner and inner & _EXPONENTIALS:
            return True
        return is_product(step) and any(
            s.eqn.primitive.name in _EXPONENTIALS for s in reached(step)
        )

    return frozenset(
        name
        for name in stack.sites
        if any(makes_scores(step) for step in reached(found.steps[name]))
    )


def _is_dot(step: graph.Step) -> bool:
    return step.eqn.primitive.name == "dot_general"


def _names_inside(eqn: Any) -> set[str]:
    """Names of all primitives in the sub-programs of an equation."""
    names: set[str] = set()
    for value in eqn.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(part, "jaxpr", part)
            for nested in getattr(inner, "eqns", ()):
                names |= {nested.primitive.name} | _names_inside(nested)
    return names


def _attends(step: graph.Step) -> bool:
    """Whether a loop or branch holds a product of activations and an exponential."""
    inner = [s for frame in step.children for s in frame.steps]
    return any(_attends(s) for s in inner if s.children) or (
        any(_is_dot(s) and s.weight is None for s in inner)
        and any(s.eqn.primitive.name in _EXPONENTIALS for s in inner)
    )
