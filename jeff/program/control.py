"""Rewriting through loops, branches and calls: each is rebuilt around its sub-program.

Every function here takes the running interpretation (`jeff.program.run.Run`), the
equation, its operands (stored weights among them), its path and the scope, and returns
the equation's outputs and what the sites inside emitted.

References:
  Rebuilding a program by interpreting its jaxpr:
  https://docs.jax.dev/en/latest/notebooks/Writing_custom_interpreters_in_Jax.html.
  Functions with a derivative of their own:
  https://docs.jax.dev/en/latest/notebooks/Custom_derivative_rules_for_Python_code.html.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jeff import base
from jeff.program import compat, shard

__all__ = ["descend"]


def descend(run, eqn, operands, path, scope):
    """Runs an equation that has sites inside its sub-program.

    Args:
      run: The interpretation.
      eqn: A loop, branch, call, ``shard_map`` or custom derivative.
      operands: A value per ``eqn.invars``, dense or stored.
      path: Where the equation stands.
      scope: Iterations of the loops around it, and feeds of the sites inside.

    Returns:
      ``(outputs, emitted)``: a value per ``eqn.outvars``, and by site what the taps
      emitted, with a leading axis if the equation is a scan.
    """
    name = eqn.primitive.name
    if name in ("remat", "remat2", "checkpoint"):
        return _remat(run, eqn, operands, path, scope)
    if name in compat.CALLS:
        return run.jaxpr(compat.inner_jaxpr(eqn), operands, (*path, 0), scope)
    if name in compat.CUSTOM_DERIVATIVES:
        return _custom(run, eqn, operands, path, scope)
    return _LOOPS[name](run, eqn, operands, path, scope)


def _inner_feeds(run, scope, path) -> dict[str, Any]:
    """Feeds of the sites inside the equation at `path`."""
    return {
        site.name: scope.feeds[site.name]
        for site in run.found.sites
        if site.path[: len(path)] == path and site.name in scope.feeds
    }


def _scan(run, eqn, operands, path, scope):
    num_consts, num_carry = compat.scan_layout(eqn)
    params, closed = eqn.params, eqn.params["jaxpr"]
    body = compat.open_jaxpr(closed)
    stop = num_consts + num_carry
    fixed = {  # carried values the body hands on unchanged are constants
        i for i in range(num_carry) if body.outvars[i] is body.invars[num_consts + i]
    }
    init = [v for i, v in enumerate(operands[num_consts:stop]) if i not in fixed]
    init = run.decode_all(init, "a scan's carry")
    xs = [
        v
        if not base.is_stored(v) or v.can_index(0)
        else run.decode_all([v], "a scan along a packed axis")[0]
        for v in operands[stop:]
    ]
    feeds = _inner_feeds(run, scope, path)
    steps = jnp.arange(params["length"], dtype=jnp.int32)

    def step(carry, slices):
        i, xs, feeds = slices
        moving = iter(carry)
        full = [
            operands[num_consts + j] if j in fixed else next(moving)
            for j in range(num_carry)
        ]
        values = [*operands[:num_consts], *full, *xs]
        outs, emitted = run.jaxpr(closed, values, (*path, 0), scope.inner(i, feeds))
        new = [v for j, v in enumerate(outs[:num_carry]) if j not in fixed]
        new = run.decode_all(new, "a scan's carry")
        return new, (run.decode_all(outs[num_carry:], "a scan's output"), emitted)

    carry, (ys, emitted) = lax.scan(
        step,
        init,
        (steps, xs, feeds),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    moving = iter(carry)
    final = [
        operands[num_consts + j] if j in fixed else next(moving)
        for j in range(num_carry)
    ]
    return [*final, *ys], emitted


def _while(run, eqn, operands, path, scope):
    params = eqn.params
    nc, nb = params["cond_nconsts"], params["body_nconsts"]
    body = compat.open_jaxpr(params["body_jaxpr"])
    inits = operands[nc + nb :]
    fixed = {i for i in range(len(inits)) if body.outvars[i] is body.invars[nb + i]}
    init = run.decode_all(
        [v for i, v in enumerate(inits) if i not in fixed], "a while loop's carry"
    )
    # An iteration's feeds cannot be sliced where their number is not known.
    inner = scope

    def full(carry):
        moving = iter(carry)
        return [inits[i] if i in fixed else next(moving) for i in range(len(inits))]

    def condition(state):
        i, carry, _ = state
        values = [*operands[:nc], *full(carry)]
        outs, _ = run.jaxpr(
            params["cond_jaxpr"], values, (*path, 0), inner.inner(i, {})
        )
        return outs[0]

    def advance(i, carry):
        values = [*operands[nc : nc + nb], *full(carry)]
        outs, emitted = run.jaxpr(
            params["body_jaxpr"], values, (*path, 1), inner.inner(i, {})
        )
        outs = run.decode_all(outs, "a while loop's carry")
        return [v for j, v in enumerate(outs) if j not in fixed], emitted

    def step(state):
        i, carry, total = state
        new, emitted = advance(i, carry)
        return i + 1, new, jax.tree.map(jnp.add, total, emitted)

    start = jnp.int32(0)
    _, emitted = jax.eval_shape(advance, start, init)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), emitted)
    _, carry, total = lax.while_loop(condition, step, (start, init, zeros))
    return full(carry), total


def _cond(run, eqn, operands, path, scope):
    index, values = operands[0], operands[1:]

    def make(i, closed):
        def branch(values):
            outs, emitted = run.jaxpr(closed, values, (*path, i), scope)
            return run.decode_all(outs, "a branch's output"), emitted

        return branch

    branches = [make(i, b) for i, b in enumerate(eqn.params["branches"])]
    # Every branch returns every tap; those of the branches not taken are zero.
    shapes: dict[str, Any] = {}
    for branch in branches:
        shapes.update(jax.eval_shape(branch, values)[1])
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)

    def padded(branch):
        def call(values):
            outs, emitted = branch(values)
            return outs, {**zeros, **emitted}

        return call

    return lax.switch(index, [padded(b) for b in branches], values)


def _remat(run, eqn, operands, path, scope):
    feeds = _inner_feeds(run, scope, path)

    def block(values, feeds):
        inner = type(scope)(scope.iterations, {**scope.feeds, **feeds})
        outs, emitted = run.jaxpr(compat.inner_jaxpr(eqn), values, (*path, 0), inner)
        return run.decode_all(outs, "a checkpoint's output"), emitted

    return jax.checkpoint(
        block, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"]
    )(list(operands), feeds)


def _custom(run, eqn, operands, path, scope):
    """The rewritten value, with the derivative of the original equation.

    Stored weights are decoded before the call, so the derivative sees dense ones and
    gradients reach scales through the decoding. What the rules themselves bring in
    (a trained scale, say) gets its gradient through them.
    """
    name = eqn.primitive.name
    operands = run.decode_all(operands, name)
    if not run.hooked:
        return compat.bind(eqn, operands), {}
    if eqn.effects:
        run.notes.append(f"a {name} with side effects is left alone")
        return compat.bind(eqn, operands), {}
    if run.attach is not None and _inner_feeds(run, scope, path):
        run.notes.append(f"no cotangent tap inside a {name}: its derivative is its own")
    if run.rules:
        run.notes.append(f"rules inside a {name} keep the original's derivative")
    originals = compat.bind(eqn, operands)
    plain = type(scope)(scope.iterations, {})
    values, emitted = run.jaxpr(
        compat.inner_jaxpr(eqn), lax.stop_gradient(operands), (*path, 0), plain
    )
    values = run.decode_all(values, name)
    outs = [
        _carried(value, original) if jnp.issubdtype(value.dtype, jnp.inexact) else value
        for value, original in zip(values, originals, strict=True)
    ]
    return outs, emitted


@jax.custom_jvp
def _carried(value, original):
    """`value`, which changes as `original` does."""
    del original
    return value


@_carried.defjvp
def _carried_jvp(primals, tangents):
    return primals[0], tangents[0] + tangents[1]


def _shard_map(run, eqn, operands, path, scope):
    params = eqn.params
    mesh, sizes = params["mesh"], dict(params["mesh"].shape)
    values, specs = [], []
    for value, spec in zip(operands, params["in_specs"], strict=True):
        if base.is_stored(value):
            stored = shard.stored_specs(value, spec, sizes)
            if stored is None:
                (value,) = run.decode_all([value], "a shard_map that cuts its groups")
            else:
                spec = stored
        values.append(value)
        specs.append(spec)
    if run.tap is not None:
        run.notes.append("sites inside a shard_map are not tapped")
    inner = type(run)(rules=run.rules, notes=run.notes, found=run.found)

    def body(iterations, *values):
        local = type(scope)(tuple(iterations), {})
        outs, _ = inner.jaxpr(params["jaxpr"], list(values), (*path, 0), local)
        return inner.decode_all(outs, "a shard_map's output")

    mapped = jax.shard_map(
        body,
        mesh=mesh,
        in_specs=(PartitionSpec(), *specs),
        out_specs=list(params["out_specs"]),
        axis_names=compat.shard_map_axes(eqn),
        check_vma=params["check_vma"],
    )
    return mapped(list(scope.iterations), *values), {}


_LOOPS = {"scan": _scan, "while": _while, "cond": _cond, "shard_map": _shard_map}
