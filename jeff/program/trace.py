"""From a call to a traced program: equations, named leaves, output structure."""

import dataclasses
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff import base, tree

__all__ = [
    "Traced",
    "Tracer",
    "check_params",
    "program_inputs",
    "tracer_of",
    "with_axes",
]


@dataclasses.dataclass(frozen=True)
class Traced:
    """One trace of ``apply(params, *inputs, **kwargs)`` over dense weights.

    Attributes:
      jaxpr: The closed program; its first inputs are the leaves of params.
      names: Names of the leaves of params, in order.
      out_tree: Structure of the output.
    """

    jaxpr: Any
    names: tuple[str, ...]
    out_tree: Any


class Tracer:
    """Traces a function once per signature; later calls reuse the trace.

    The cache is ``jax.jit``'s own, so it knows about shapes, dtypes, meshes and the
    configuration that is in force.

    Examples:
      >>> def model(params, x):
      ...     return x @ params["w"]
      >>> traced = Tracer(model).trace({"w": jnp.ones((2, 3))}, (jnp.ones(2),), {})
      >>> traced.names, [eqn.primitive.name for eqn in traced.jaxpr.eqns]
      (('w',), ['dot_general'])

    References:
      ``jax.jit(f).trace``: https://docs.jax.dev/en/latest/aot.html.
    """

    def __init__(self, apply: Callable[..., Any]):
        """Keeps a reference to the function, weak where that is possible."""
        # A strong reference would keep `apply` alive for as long as the table of
        # tracers does; a weak one lets both go.
        self._apply = _reference(apply)
        self._jitted = jax.jit(
            lambda params, args, kwargs: self.apply(params, *args, **kwargs)
        )

    @property
    def apply(self) -> Callable[..., Any]:
        """The function.

        Raises:
          ReferenceError: If it no longer exists.
        """
        apply = self._apply()
        if apply is None:
            raise ReferenceError("the traced function no longer exists")
        return apply

    def trace(
        self,
        params: Any,
        inputs: Sequence[Any],
        kwargs: Mapping[str, Any],
        axis_sizes: Mapping[str, int] | None = None,
    ) -> Traced:
        """Traces with every `StoredWeight` standing for its dense weight.

        Args:
          params: Params tree; leaves may be stored, or shapes only.
          inputs: Inputs of the program, or their shapes.
          kwargs: Keyword inputs.
          axis_sizes: Sizes of named axes that nobody binds.

        Returns:
          The trace.

        Raises:
          TypeError: If a leaf of the params or an input is no array or number.
          ValueError: If the program uses a collective over an axis that is not bound
            (give its size in `axis_sizes`).
        """
        leaves, treedef = tree.flatten(params)
        _check_leaves(leaves, inputs)
        dense = treedef.unflatten([_dense_aval(leaf) for leaf in leaves.values()])
        args = (dense, tuple(inputs), dict(kwargs))
        try:
            if axis_sizes:
                return self._trace_anew(args, tuple(leaves), axis_sizes)
            traced = self._jitted.trace(*args)
        except NameError as error:
            clear = axis_error(error)
            raise clear from (None if clear is error else error)
        if len(traced.jaxpr.in_avals) != len(jax.tree.leaves(args)):
            # It captured values of an outer trace, which jit passes as inputs.
            return self._trace_anew(args, tuple(leaves), {})
        out_tree = jax.tree.structure(traced.out_info)
        return Traced(traced.jaxpr, tuple(leaves), out_tree)

    def _trace_anew(self, args, names, axis_sizes) -> Traced:
        def flat(*flat_args):
            params, inputs, kwargs = jax.tree.unflatten(in_tree, flat_args)
            return self.apply(params, *inputs, **kwargs)

        flat_args, in_tree = jax.tree.flatten(args)
        jaxpr, shape = jax.make_jaxpr(
            flat, axis_env=list(axis_sizes.items()), return_shape=True
        )(*flat_args)
        return Traced(jaxpr, names, jax.tree.structure(shape))


def axis_error(error: NameError) -> Exception:
    """The clear error for a named axis that is not bound; any other as it is.

    Args:
      error: What tracing raised.

    Returns:
      The error to raise instead.
    """
    if "unbound axis name" not in str(error):
        return error
    return ValueError(
        f"the program uses a named axis that is not bound here ({error}); "
        "pass its size, for example axis_sizes={'i': 4}"
    )


def _check_leaves(leaves: Mapping[str, Any], inputs: Sequence[Any]) -> None:
    """One clear line for a string or an object among the arrays."""
    named = [(f"params leaf {name!r}", leaf) for name, leaf in leaves.items()]
    named += [
        (f"inputs[{i}]", leaf)
        for i, tree_ in enumerate(inputs)
        for leaf in jax.tree.leaves(tree_)
    ]
    for where, leaf in named:
        known = isinstance(leaf, bool | int | float | complex) or base.is_stored(leaf)
        if not known and not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise TypeError(f"{where} is a {type(leaf).__name__}, not an array")


def _dense_aval(leaf: Any) -> Any:
    if base.is_stored(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return leaf


_TRACERS: dict[Any, Tracer] = {}


def tracer_of(apply: Callable[..., Any]) -> Tracer:
    """The tracer of a function; one and the same for every call with it.

    Functions are told apart by identity, methods by their object and function. As
    under ``jax.jit``, what a function captures is read once, at the first trace.

    Args:
      apply: The function.

    Returns:
      Its tracer.

    Raises:
      TypeError: If `apply` is not callable.

    Examples:
      >>> def model(params, x):
      ...     return x @ params["w"]
      >>> tracer_of(model) is tracer_of(model)
      True
    """
    own = getattr(apply, "tracer", None)
    if isinstance(own, Tracer):
        return own
    if not callable(apply):
        raise TypeError(f"apply must be a function, got a {type(apply).__name__}")
    owner = apply.__self__ if isinstance(apply, types.MethodType) else apply
    key = (id(owner), id(getattr(apply, "__func__", None)))
    if key not in _TRACERS:
        tracer = Tracer(apply)
        try:
            weakref.finalize(owner, _TRACERS.pop, key, None).atexit = False
        except TypeError:  # cannot be referenced weakly: no entry could be removed
            return tracer
        _TRACERS[key] = tracer
    return _TRACERS[key]


def _reference(apply: Callable[..., Any]) -> Callable[[], Any]:
    try:
        if isinstance(apply, types.MethodType):
            return weakref.WeakMethod(apply)
        return weakref.ref(apply)
    except TypeError:
        return lambda: apply


def with_axes(
    fn: Callable[..., Any], axis_sizes: Mapping[str, int] | None
) -> Callable[..., Any]:
    """`fn` as one member of named axes whose members all get the same arguments.

    Args:
      fn: Any function of arrays.
      axis_sizes: Sizes of the axes by name; ``None``: `fn` as it is.

    Returns:
      A function of the same signature.

    Examples:
      >>> total = with_axes(lambda x: jax.lax.psum(x, "i"), {"i": 4})
      >>> print(total(2.0))
      8.0
    """
    for name, size in (axis_sizes or {}).items():
        fn = _with_axis(fn, name, size)
    return fn


def _with_axis(fn, name, size):
    def member(*args):
        mapped = jax.vmap(fn, in_axes=None, axis_name=name, axis_size=size)
        return jax.tree.map(lambda a: a[0], mapped(*args))

    return member


def program_inputs(
    params: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[Any]:
    """The arguments of a call, flat.

    Args:
      params: Params tree; leaves may be stored.
      inputs: Inputs of the program.
      kwargs: Keyword inputs.

    Returns:
      Arrays, and weights that are still stored, in the order of the traced program's
      inputs.
    """
    leaves, _ = tree.flatten(params)
    rest = jax.tree.leaves((tuple(inputs), dict(kwargs)))
    return [
        v if base.is_stored(v) or hasattr(v, "aval") else jnp.asarray(v)
        for v in (*leaves.values(), *rest)
    ]


def check_params(traced: Traced, params: Any) -> dict[str, Any]:
    """The leaves of `params`, if they are those the program was traced with.

    Args:
      traced: The trace.
      params: Params tree; leaves may be stored.

    Returns:
      The leaves by name.

    Raises:
      ValueError: If a leaf is missing, new, or of another shape; it is named.
    """
    leaves, _ = tree.flatten(params)
    fault = next((f"has no leaf {n!r}" for n in traced.names if n not in leaves), "")
    if not fault:
        known = set(traced.names)
        fault = next(
            (f"has a leaf {n!r} too many" for n in leaves if n not in known), ""
        )
    for name, aval in zip(traced.names, traced.jaxpr.in_avals, strict=False):
        if not fault and jnp.shape(leaves[name]) != aval.shape:
            fault = f"has {name!r} of {jnp.shape(leaves[name])}, not {aval.shape}"
    if fault:
        raise ValueError(f"params does not fit the program: it {fault}")
    return leaves
