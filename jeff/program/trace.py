"""From a call to a traced program: equations, named leaves, output structure."""

import dataclasses
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff import base, tree

__all__ = ["Traced", "Tracer", "program_inputs", "tracer_of"]


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
    out_tree: jax.tree_util.PyTreeDef


class Tracer:
    """Traces a function once per signature; later calls reuse the trace.

    The cache is ``jax.jit``'s own, so it knows about shapes, dtypes, meshes and the
    configuration that is in force.
    """

    def __init__(self, apply: Callable[..., Any]):
        # A strong reference from the jitted function would keep `apply` alive for as
        # long as the table of tracers does; a weak one lets both go.
        try:
            self._apply = weakref.ref(apply)
        except TypeError:
            self._apply = lambda: apply
        self._jitted = jax.jit(lambda params, args, kwargs: self.apply(
            params, *args, **kwargs))

    @property
    def apply(self) -> Callable[..., Any]:
        """The function."""
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

        Raises:
          ValueError: If the program uses a collective over an axis that is not bound
            (give its size in `axis_sizes`).
        """
        leaves, treedef = tree.flatten(params)
        dense = treedef.unflatten([_dense_aval(leaf) for leaf in leaves.values()])
        args = (dense, tuple(inputs), dict(kwargs))
        try:
            if axis_sizes:
                return self._trace_under_axes(args, tuple(leaves), axis_sizes)
            traced = self._jitted.trace(*args)
        except NameError as error:
            if "unbound axis name" not in str(error):
                raise
            raise ValueError(
                f"the program uses a named axis that is not bound here ({error}); "
                "pass its size, for example axis_sizes={'i': 4}"
            ) from error
        out_tree = jax.tree.structure(traced.out_info)
        return Traced(traced.jaxpr, tuple(leaves), out_tree)

    def _trace_under_axes(self, args, names, axis_sizes) -> Traced:
        def flat(*flat_args):
            params, inputs, kwargs = jax.tree.unflatten(in_tree, flat_args)
            return self.apply(params, *inputs, **kwargs)

        flat_args, in_tree = jax.tree.flatten(args)
        jaxpr, shape = jax.make_jaxpr(
            flat, axis_env=list(axis_sizes.items()), return_shape=True
        )(*flat_args)
        return Traced(jaxpr, names, jax.tree.structure(shape))


def _dense_aval(leaf: Any) -> Any:
    if base.is_stored(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return leaf


_TRACERS: "weakref.WeakKeyDictionary[Any, Tracer]" = weakref.WeakKeyDictionary()


def tracer_of(apply: Callable[..., Any]) -> Tracer:
    """The tracer of a function; one and the same for every call with it."""
    own = getattr(apply, "tracer", None)
    if isinstance(own, Tracer):
        return own
    try:
        tracer = _TRACERS.get(apply)
        if tracer is None:
            tracer = _TRACERS[apply] = Tracer(apply)
    except TypeError:  # cannot be hashed or referenced weakly
        tracer = Tracer(apply)
    return tracer


def program_inputs(params: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any]):
    """Flat values in the order of the traced program's inputs (stored leaves kept)."""
    leaves, _ = tree.flatten(params)
    rest = jax.tree.leaves((tuple(inputs), dict(kwargs)))
    values = [v if base.is_stored(v) else jnp.asarray(v) if not _is_array(v) else v
              for v in (*leaves.values(), *rest)]
    return values


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array | jax.ShapeDtypeStruct) or hasattr(x, "aval")
