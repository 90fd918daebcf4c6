"""What one equation without a program inside costs: arithmetic and bytes."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jeff.program import compat, contraction

__all__ = ["arithmetic", "bytes_moved"]

_ADDITIONS = frozenset({"add", "sub", "add_any"})
_MULTIPLICATIONS = frozenset({"mul", "square"})
_ELEMENTWISE = frozenset(
    """
    abs acos acosh and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp
    clz complex conj cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
    igamma igammac imag is_finite le lgamma log log1p logistic lt max min ne neg
    nextafter not or polygamma population_count pow random_clone random_fold_in
    random_seed random_split real reduce_precision rem round rsqrt select_n
    shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt tan tanh
    xor
    """.split()
)
# The total that each step of the following goes to; None: listed by name, "": none.
_REDUCTIONS = {
    "reduce_sum": "additions",
    "reduce_prod": "multiplications",
    "reduce_max": None,
    "reduce_min": None,
    "reduce_and": None,
    "reduce_or": None,
    "reduce_xor": None,
    "argmax": None,
    "argmin": None,
}
_CUMULATIVE = {
    "cumsum": "additions",
    "cumprod": "multiplications",
    "cummax": None,
    "cummin": None,
    "cumlogsumexp": None,
}
_WINDOWS = {
    "reduce_window_sum": "additions",
    "reduce_window_max": None,
    "reduce_window_min": None,
    "select_and_gather_add": None,
}
_SCATTERS = {
    "scatter": "",
    "scatter-add": "additions",
    "scatter-sub": "additions",
    "scatter_add": "additions",
    "scatter_sub": "additions",
    "scatter-mul": "multiplications",
    "scatter_mul": "multiplications",
    "scatter_max": None,
    "scatter_min": None,
    "scatter-max": None,
    "scatter-min": None,
}
# Listed by the elements that go in: order, selection, communication.
_BY_INPUT = frozenset(
    """
    all_gather all_gather_invariant all_to_all axis_index pmax pmin ppermute pbroadcast
    psum psum2 psum_invariant psum_scatter reduce_scatter sort top_k
    """.split()
)
_MOVES = frozenset(
    """
    broadcast_in_dim concatenate convert_element_type copy copy_p dynamic_slice
    dynamic_update_slice gather get iota masked_load masked_swap pad rev slice split
    swap transpose unstack
    """.split()
)
_FREE = frozenset(
    """
    bitcast_convert_type create_token debug_callback debug_print device_put empty empty2
    expand_dims jeff_mark layout_constraint mesh_cast num_programs optimization_barrier
    pcast program_id pvary random_unwrap random_wrap reshape reshard
    sharding_constraint squeeze stop_gradient
    """.split()
)


def arithmetic(eqn: Any) -> dict[str, Any] | None:
    """The arithmetic of one equation, in the fields of `jeff.program.count.Count`.

    Args:
      eqn: An equation without a program inside.

    Returns:
      Totals by field, or None if the primitive is not known here.

    Examples:
      >>> eqn = jax.make_jaxpr(jnp.exp)(jnp.ones((2, 3))).eqns[0]
      >>> arithmetic(eqn)
      {'other': {'exp': 6}}
    """
    name = eqn.primitive.name
    out: Any = eqn.outvars[0].aval if eqn.outvars else None
    first: Any = eqn.invars[0].aval if eqn.invars else None
    if name in _MOVES or name in _FREE:
        return {}
    if name in contraction.PRIMITIVES:
        macs, sums = contraction.macs_and_sums(eqn)
        return _real(out.dtype, multiplications=macs, additions=macs - sums, macs=macs)
    if name in _ADDITIONS:
        return _real(out.dtype, additions=out.size)
    if name in _MULTIPLICATIONS:
        return _real(out.dtype, multiplications=out.size)
    if name == "one_minus_square":
        return _real(out.dtype, multiplications=out.size, additions=out.size)
    if name == "integer_pow":
        return _integer_power(eqn.params["y"], out)
    if name in _ELEMENTWISE:
        return {"other": {name: out.size}}
    if name in ("random_bits", "rng_bit_generator", "rng_uniform"):
        return {"random_draws": eqn.outvars[-1].aval.size}
    if name in _REDUCTIONS:
        return _named(_REDUCTIONS[name], name, first.size - out.size, out.dtype)
    if name in _CUMULATIVE:
        lines = first.size // max(first.shape[eqn.params["axis"]], 1)
        return _named(_CUMULATIVE[name], name, first.size - lines, out.dtype)
    if name in _WINDOWS:
        window = math.prod(eqn.params["window_dimensions"])
        return _named(_WINDOWS[name], name, out.size * (window - 1), out.dtype)
    if name in _SCATTERS:
        updates = eqn.invars[2].aval.size
        return _named(_SCATTERS[name], name, updates, out.dtype)
    if name == "select_and_scatter_add":  # gradient of a maximum over windows
        compared = math.prod(eqn.params["window_dimensions"]) - 1
        return _real(out.dtype, additions=first.size) | {
            "other": {name: first.size * compared}
        }
    if name == "addupdate":
        return _real(eqn.invars[1].aval.dtype, additions=eqn.invars[1].aval.size)
    if name in _BY_INPUT:
        return {"other": {name: sum(v.aval.size for v in eqn.invars)}}
    return None


def bytes_moved(eqn: Any, *, in_kernel: bool) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes one equation reads and writes, by name of dtype.

    Args:
      eqn: An equation without a program inside.
      in_kernel: Whether it is in a Pallas kernel, where values are in registers and
        only loads and stores move bytes.

    Returns:
      ``(read, written)``.

    Examples:
      >>> eqn = jax.make_jaxpr(jnp.exp)(jnp.ones((2, 3))).eqns[0]
      >>> bytes_moved(eqn, in_kernel=False)
      ({'float32': 24}, {'float32': 24})
    """
    name = eqn.primitive.name
    ins = [v.aval for v in eqn.invars if not compat.is_literal(v)]
    outs = [v.aval for v in eqn.outvars]
    if name in ("get", "masked_load"):
        return _bytes(outs), {}
    if name in ("swap", "masked_swap", "addupdate"):
        value = [eqn.invars[1].aval]
        return (_bytes(value) if name == "addupdate" else {}), _bytes(value)
    transposes = name == "reshape" and eqn.params["dimensions"] is not None
    if in_kernel or (name in _FREE and not transposes):
        return {}, {}
    if name == "broadcast_in_dim" and outs[0].size == eqn.invars[0].aval.size:
        return {}, {}  # only adds axes of size one
    if name in ("gather", "dynamic_slice"):
        return _bytes([*outs, *_avals(eqn.invars[1:])]), _bytes(outs)
    if name == "dynamic_update_slice":
        update = [eqn.invars[1].aval]
        return _bytes([*update, *_avals(eqn.invars[2:])]), _bytes(update)
    if name in _SCATTERS:
        update = [eqn.invars[2].aval]
        old = [] if name == "scatter" else update
        return _bytes([*old, *update, *_avals(eqn.invars[1:2])]), _bytes(update)
    return _bytes(ins), _bytes(outs)


def _integer_power(power: int, out: Any) -> dict[str, Any]:
    """Repeated squaring: one product per bit and one per further set bit."""
    n = abs(power)
    products = (n.bit_length() - 1 + n.bit_count() - 1) if n else 0
    cost = _real(out.dtype, multiplications=products * out.size)
    return cost | ({"other": {"div": out.size}} if power < 0 else {})


def _named(field: str | None, name: str, n: int, dtype: Any) -> dict[str, Any]:
    if field == "":
        return {}
    n = max(n, 0)
    return {"other": {name: n}} if field is None else _real(dtype, **{field: n})


def _real(dtype: Any, *, multiplications=0, additions=0, macs=0) -> dict[str, Any]:
    """Operations on numbers of `dtype` in terms of real ones."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        additions = 2 * additions + 2 * multiplications
        multiplications, macs = 4 * multiplications, 4 * macs
    return {
        "multiplications": multiplications,
        "additions": additions,
        "macs": macs,
    }


def _avals(atoms: Any) -> list[Any]:
    return [v.aval for v in atoms if not compat.is_literal(v)]


def _bytes(avals: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for aval in avals:
        dtype = getattr(aval, "dtype", None)  # tokens have none
        if dtype is not None and aval.size:
            bits = aval.size * _bits(dtype)
            total[str(dtype)] = total.get(str(dtype), 0) + -(-bits // 8)
    return total


def _bits(dtype: Any) -> int:
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return 8 * dtype.itemsize
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.iinfo(dtype).bits
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.finfo(dtype).bits
    return 8 * dtype.itemsize
