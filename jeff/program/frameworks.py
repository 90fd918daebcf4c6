"""How flax nnx, flax linen, dm-haiku and equinox hold and run a model.

No framework is imported here: an object of a framework can only exist if its framework
has been imported by whoever made it.
"""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

__all__ = ["Model", "is_instance", "read"]

_SUPPORTED = (
    "a flax.nnx module, a flax.linen module, a haiku.Transformed or "
    "haiku.TransformedWithState, or an equinox module"
)


class Model(NamedTuple):
    """What every framework's model comes down to.

    Attributes:
      params: Its parameters.
      state: Everything else that is an array; an empty tree if there is nothing.
      join: ``join(params, state)``, one tree in which both keep their leaf names.
      call: ``call(params, state, *inputs, **kwargs) -> (out, state)``.
    """

    params: Any
    state: Any
    join: Callable[[Any, Any], Any]
    call: Callable[..., tuple[Any, Any]]


def is_instance(x: Any, package: str, name: str) -> bool:
    """Whether `x` is an instance of ``package.name``, importing nothing.

    Args:
      x: Any object.
      package: Name of a module that may or may not have been imported.
      name: Name of a class in it.

    Returns:
      False if the package has not been imported: then no instance can exist.

    Examples:
      >>> is_instance(3, "equinox", "Module")
      False
    """
    kind = getattr(sys.modules.get(package), name, None)
    return kind is not None and isinstance(x, kind)


def read(
    module: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    key: Any,
    variables: Any,
    method: Any,
) -> Model:
    """Reads a model of any framework.

    Args:
      module: The model.
      inputs: Example inputs to initialise it with.
      kwargs: More arguments of the initialisation.
      key: Random key of the initialisation, or a dictionary of keys.
      variables: What the model holds, if it is initialised already.
      method: What to call instead of the model: a name or a function.

    Returns:
      Its arrays, and how to call it.

    Raises:
      TypeError: If `module` is of an unknown kind.
      ValueError: If what initialises the model is missing, or has no use.
    """
    is_nnx = is_instance(module, "flax.nnx", "Module")
    if is_nnx or is_instance(module, "equinox", "Module"):
        if inputs or kwargs or key is not None or variables is not None:
            raise ValueError(
                f"module: {type(module).__name__} holds its own arrays; inputs, key, "
                "variables and other arguments have no use"
            )
        reader = _read_nnx if is_nnx else _read_equinox
        return reader(module, _caller(method))
    if is_instance(module, "flax.linen", "Module"):
        return _read_linen(module, inputs, kwargs, key, variables, method)
    kinds = ("Transformed", "TransformedWithState")
    if any(is_instance(module, "haiku", kind) for kind in kinds):
        if method is not None:
            raise ValueError(f"method: a haiku transform has none, got {method!r}")
        return _read_haiku(module, inputs, kwargs, key, variables)
    hint = "; a plain function apply(params, *inputs) needs no conversion"
    raise TypeError(
        f"module must be {_SUPPORTED}, got {type(module).__name__}"
        + (hint if inspect.isroutine(module) else "")
    )


def _read_nnx(module, call_method) -> Model:
    nnx = sys.modules["flax.nnx"]
    graph, *states = nnx.split(module, nnx.Param, ...)
    # A copy: the variables of `module` itself may change later.
    params, state = jax.tree.map(lambda x: x, states)

    def call(params, state, *inputs, **kwargs):
        model = nnx.merge(graph, params, state)
        out = call_method(model, *inputs, **kwargs)
        return out, nnx.state(model, nnx.Not(nnx.Param))

    return Model(params, state, nnx.merge_state, call)


def _read_linen(module, inputs, kwargs, key, variables, method) -> Model:
    if module.scope is not None:
        module, bound = module.unbind()
        variables = bound if variables is None else variables
    if variables is None:
        _require_initialisation(inputs, key, "a flax.linen module")
        variables = module.init(key, *inputs, method=method, **kwargs)
    elif variables and "params" not in variables:
        raise ValueError(
            "variables: a flax.linen module needs the collection 'params', got "
            f"{sorted(variables)}"
        )
    params = variables.get("params", {})
    state = {name: v for name, v in variables.items() if name != "params"}

    def call(params, state, *inputs, rngs=None, **kwargs):
        variables = {"params": params, **state}
        mutable = list(state) or False
        out = module.apply(
            variables, *inputs, rngs=rngs, method=method, mutable=mutable, **kwargs
        )
        return out if state else (out, state)

    return Model(params, state, _beside, call)


def _read_haiku(module, inputs, kwargs, key, variables) -> Model:
    has_state = is_instance(module, "haiku", "TransformedWithState")
    if variables is None:
        _require_initialisation(inputs, key, "a haiku transform")
        variables = module.init(key, *inputs, **kwargs)
    if has_state and not (isinstance(variables, tuple) and len(variables) == 2):
        raise ValueError(
            "variables: a haiku.TransformedWithState needs (params, state), got "
            f"{type(variables).__name__}"
        )
    params, state = variables if has_state else (variables, {})
    names = list(inspect.signature(module.apply).parameters)
    takes_rng = names[1 + has_state : 2 + has_state] == ["rng"]

    def call(params, state, *inputs, rng=None, **kwargs):
        held = (params, state) if has_state else (params,)
        drawn = (rng,) if takes_rng else ()
        out = module.apply(*held, *drawn, *inputs, **kwargs)
        return out if has_state else (out, state)

    return Model(
        params, state, lambda p, s: _beside(p, {"state": s} if s else {}), call
    )


def _read_equinox(module, call_method) -> Model:
    equinox = sys.modules["equinox"]

    def is_array(x):
        return equinox.is_array(x) or isinstance(x, jax.ShapeDtypeStruct)

    params, static = equinox.partition(module, is_array)

    def call(params, state, *inputs, **kwargs):
        model = equinox.combine(params, static)
        return call_method(model, *inputs, **kwargs), state

    return Model(params, {}, lambda p, s: p, call)


def _caller(method: Any) -> Callable[..., Any]:
    """``caller(module, *inputs)`` that calls the module's `method`."""
    if method is None:
        return lambda module, *args, **kwargs: module(*args, **kwargs)
    if isinstance(method, str):
        return lambda module, *args, **kw: getattr(module, method)(*args, **kw)
    return method


def _require_initialisation(inputs, key, kind: str) -> None:
    if not inputs or key is None:
        raise ValueError(
            f"{'key' if inputs else 'inputs'}: {kind} holds no arrays; pass example "
            "inputs and key, or variables"
        )


def _beside(params: Any, collections: dict[str, Any]) -> Any:
    """`params` with the collections of state as further top-level entries."""
    for name in collections:
        if name in params:
            raise ValueError(
                f"module: {name!r} is both a module and a collection of state; use "
                "functional_with_state, which keeps the two apart"
            )
    return {**params, **collections} if collections else params
