"""Why a fold is wrong: the activation between is not linear in the factor.

Whether a scale may be folded is decided by running the block. When that refuses, this
looks for the reason: an operation ``f`` on the way from the divided weights to the
input that should be divided, with ``f(x / s) != f(x) / s``.
"""

from jeff.mbq.groups.infer import Group

__all__ = ["nonlinear_between"]

# Elementwise operations that a positive factor does not pass through.
_NONLINEAR = frozenset(
    {
        "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "clamp",
        "cos", "cosh", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "integer_pow",
        "log", "log1p", "logistic", "pow", "rsqrt", "sin", "sinh", "sqrt", "square",
        "tan", "tanh",
    }
)  # fmt: skip


def nonlinear_between(group: Group) -> tuple[str, ...]:
    """Operations between a group's fold and its input that are not linear.

    Args:
      group: A group with sources.

    Returns:
      Names of JAX primitives, in program order, each once; empty if there are none (a
      fold is then wrong for another reason).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jeff import program
      >>> from jeff.mbq.groups.infer import infer_groups
      >>> def apply(p, x):
      ...     return jax.nn.silu(p["norm"] * x @ p["up"]) @ p["down"]
      >>> params = {"norm": jnp.ones(4), "up": jnp.ones((4, 8)),
      ...           "down": jnp.ones((8, 4))}
      >>> block = program.whole(apply, params, jnp.ones((2, 4)))
      >>> up, down = infer_groups(block, lambda site: True)
      >>> down.fold, nonlinear_between(down), nonlinear_between(up)
      (('up',), ('logistic',), ())
    """
    (x,) = group.region.start
    frame = group.region.frame
    needed = {x.number}
    for step in reversed(frame.steps):
        if any(v.number in needed for v in step.outputs):
            needed.update(v.number for v in step.inputs)
    scaled: set[int] = set()
    names: dict[str, None] = {}
    for step in frame.steps:
        if not any(v.number in scaled or _is_source(v, group) for v in step.inputs):
            continue
        scaled.update(v.number for v in step.outputs)
        inside = any(v.number in needed for v in step.outputs)
        if inside and step.eqn.primitive.name in _NONLINEAR:
            names[step.eqn.primitive.name] = None
    return tuple(names)


def _is_source(value, group: Group) -> bool:
    """Whether a value is one of the weights that the scale divides, or a view of it."""
    origin = value.origin
    return origin is not None and bool(set(origin.leaves) & set(group.fold))
