"""From a model of flax nnx, flax linen, dm-haiku or equinox to a pure function.

jeff works on programs ``apply(params, *inputs)``. A plain function is one already; the
two functions here make one from a model object. No framework is imported: a model can
only exist if its framework has been imported by whoever made it.
"""

import difflib
import inspect
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jeff import base, tree

__all__ = ["functional", "functional_with_state"]

_SUPPORTED = (
    "a flax.nnx module, a flax.linen module, a haiku.Transformed or "
    "haiku.TransformedWithState, or an equinox module"
)


class _Model(NamedTuple):
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


def functional(
    module: Any,
    *inputs: Any,
    key: Any = None,
    variables: Any = None,
    method: Any = None,
    **kwargs: Any,
) -> tuple[Callable[..., Any], Any]:
    """The pure function a model computes, and the arrays it starts from.

    ``params`` holds *every* array of the model, in the containers of its framework
    (``nnx.State``, nested dictionaries, an equinox module), so that partition names
    and other metadata stay where they are. Leaves are called alike in all of them,
    ``layers.3.attn.q.kernel`` (see `jeff.tree.flatten`). State beside the parameters
    is part of the tree:

    * flax nnx: BatchNorm statistics, caches, random counters and keys, each at its
      module (``norm.mean``, ``dropout.rngs.count``).
    * flax linen: the other collections, each under its name (``batch_stats.norm.mean``)
      beside the top-level modules.
    * dm-haiku: the state, under the name ``state``.
    * equinox: nothing to do. An ``eqx.nn.State`` is an ordinary input and output of
      an equinox model and stays one.

    ``apply(params, *inputs, **kwargs)`` returns the model's output and drops changes of
    its state; `functional_with_state` returns them. Keys of dropout are the model's own
    state in nnx, the keyword ``rngs={"dropout": key}`` in linen, ``rng=key`` in haiku,
    ordinary arguments in equinox.

    `params` may be given to ``apply`` in any tree with the same leaf names, and with a
    `StoredWeight` in place of any leaf (it is decoded; `jeff.rewrite` does better).

    Args:
      module: A flax nnx or linen module, a haiku ``Transformed`` or
        ``TransformedWithState``, or an equinox module, in the mode it is to run in
        (``model.eval()``, ``train=False``).
      *inputs: Example inputs, to initialise a linen or haiku model with.
      key: Random key for that initialisation; for linen also a dictionary of keys.
      variables: Instead of `inputs` and `key`: the variables of a linen model, the
        params of a haiku one, or its ``(params, state)``.
      method: What to call instead of the model itself: the name of a method or a
        function of the module and the inputs (not for haiku).
      **kwargs: More arguments of the initialisation.

    Returns:
      ``(apply, params)``. ``apply`` raises ValueError, naming the leaf, if it is given
      a params tree that does not fit: a leaf missing, unknown, or of another shape.

    Raises:
      TypeError: If `module` is of another kind.
      ValueError: If what initialises the model is missing, or given to a model that
        holds its own arrays.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> apply, params = functional(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
      >>> list(tree.flatten(params)[0])
      ['bias', 'kernel']
      >>> apply(params, jnp.ones((5, 3))).shape
      (5, 2)
      >>> from flax import linen
      >>> model = linen.Dense(2)
      >>> apply, params = functional(model, jnp.ones((5, 3)), key=jax.random.key(0))
      >>> list(tree.flatten(params)[0])
      ['bias', 'kernel']
    """
    model = _read(module, inputs, kwargs, key, variables, method)
    whole, order = _join(model)
    fit = _fitter(whole, "params")
    params_def = jax.tree.structure(model.params)
    state_def = jax.tree.structure(model.state)

    def apply(params: Any, *inputs: Any, **kwargs: Any) -> Any:
        joined = jax.tree.leaves(fit(params))
        leaves = [joined[i] for i in order]
        split = params_def.num_leaves
        return model.call(
            params_def.unflatten(leaves[:split]),
            state_def.unflatten(leaves[split:]),
            *inputs,
            **kwargs,
        )[0]

    return apply, whole


def functional_with_state(
    module: Any,
    *inputs: Any,
    key: Any = None,
    variables: Any = None,
    method: Any = None,
    **kwargs: Any,
) -> tuple[Callable[..., tuple[Any, Any]], Any, Any]:
    """Like `functional`, with parameters and state apart, for training and decoding.

    Args:
      module: As for `functional`, but no equinox module: those hand their
        ``eqx.nn.State`` in and out themselves.
      *inputs: As for `functional`.
      key: As for `functional`.
      variables: As for `functional`.
      method: As for `functional`.
      **kwargs: As for `functional`.

    Returns:
      ``(apply, params, state)`` with ``apply(params, state, *inputs, **kwargs) ->
      (out, state)``. `params` has the parameters only (``nnx.Param``, linen's
      collection ``params``, haiku's params), `state` all other arrays; the state that
      comes back has the structure of the one that went in.

    Raises:
      TypeError: If `module` is of another kind.
      ValueError: As for `functional`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> apply, params, state = functional_with_state(
      ...     nnx.BatchNorm(2, rngs=nnx.Rngs(0))
      ... )
      >>> list(tree.flatten(params)[0]), list(tree.flatten(state)[0])
      (['bias', 'scale'], ['mean', 'var'])
      >>> y, state = apply(params, state, jnp.ones((4, 2)))
      >>> print(tree.get(state, "mean"))
      [0.01 0.01]
    """
    if _is("equinox", "Module", module):
        raise TypeError(
            "module: an equinox module takes and returns its eqx.nn.State itself; use "
            "functional(module) and pass the state as an input"
        )
    model = _read(module, inputs, kwargs, key, variables, method)
    fit_params = _fitter(model.params, "params")
    fit_state = _fitter(model.state, "state")

    def apply(params: Any, state: Any, *inputs: Any, **kwargs: Any) -> tuple[Any, Any]:
        return model.call(fit_params(params), fit_state(state), *inputs, **kwargs)

    return apply, model.params, model.state


def _is(package: str, name: str, x: Any) -> bool:
    """Whether `x` is an instance of ``package.name``, importing nothing."""
    kind = getattr(sys.modules.get(package), name, None)
    return kind is not None and isinstance(x, kind)


def _read(module, inputs, kwargs, key, variables, method) -> _Model:
    if _is("flax.nnx", "Module", module) or _is("equinox", "Module", module):
        if inputs or kwargs or key is not None or variables is not None:
            raise ValueError(
                f"module: {type(module).__name__} holds its own arrays; inputs, key, "
                "variables and other arguments have no use"
            )
        read = _read_nnx if _is("flax.nnx", "Module", module) else _read_equinox
        return read(module, _caller(method))
    if _is("flax.linen", "Module", module):
        return _read_linen(module, inputs, kwargs, key, variables, method)
    if _is("haiku", "Transformed", module) or _is(
        "haiku", "TransformedWithState", module
    ):
        if method is not None:
            raise ValueError(f"method: a haiku transform has none, got {method!r}")
        return _read_haiku(module, inputs, kwargs, key, variables)
    hint = "; a plain function apply(params, *inputs) needs no conversion"
    raise TypeError(
        f"module must be {_SUPPORTED}, got {type(module).__name__}"
        + (hint if inspect.isroutine(module) else "")
    )


def _read_nnx(module, call_method) -> _Model:
    nnx = sys.modules["flax.nnx"]
    graph, *states = nnx.split(module, nnx.Param, ...)
    # A copy: the variables of `module` itself may change later.
    params, state = jax.tree.map(lambda x: x, states)

    def call(params, state, *inputs, **kwargs):
        model = nnx.merge(graph, params, state)
        out = call_method(model, *inputs, **kwargs)
        return out, nnx.state(model, nnx.Not(nnx.Param))

    return _Model(params, state, nnx.merge_state, call)


def _read_linen(module, inputs, kwargs, key, variables, method) -> _Model:
    if module.scope is not None:
        module, bound = module.unbind()
        variables = bound if variables is None else variables
    if variables is None:
        _require_initialisation(inputs, key, "a flax.linen module")
        variables = module.init(key, *inputs, method=method, **kwargs)
    elif "params" not in variables:
        raise ValueError(
            "variables: a flax.linen module needs the collection 'params', got "
            f"{sorted(variables)}"
        )
    params = variables["params"]
    state = {name: v for name, v in variables.items() if name != "params"}

    def call(params, state, *inputs, rngs=None, **kwargs):
        variables = {"params": params, **state}
        options = {"rngs": rngs, "method": method, "mutable": list(state)}
        if not state:
            return module.apply(
                variables, *inputs, **kwargs, **(options | {"mutable": False})
            ), state
        return module.apply(variables, *inputs, **kwargs, **options)

    return _Model(params, state, lambda p, s: _beside(p, s), call)


def _read_haiku(module, inputs, kwargs, key, variables) -> _Model:
    has_state = _is("haiku", "TransformedWithState", module)
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

    return _Model(
        params, state, lambda p, s: _beside(p, {"state": s} if s else {}), call
    )


def _read_equinox(module, call_method) -> _Model:
    equinox = sys.modules["equinox"]

    def is_array(x):
        return equinox.is_array(x) or isinstance(x, jax.ShapeDtypeStruct)

    params, static = equinox.partition(module, is_array)

    def call(params, state, *inputs, **kwargs):
        model = equinox.combine(params, static)
        return call_method(model, *inputs, **kwargs), state

    return _Model(params, {}, lambda p, s: p, call)


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


def _join(model: _Model) -> tuple[Any, list[int]]:
    """The joined tree, and for each leaf of params, then of state, its index there."""
    params, params_def = jax.tree.flatten(model.params)
    state, state_def = jax.tree.flatten(model.state)
    whole = model.join(model.params, model.state)
    numbers = range(len(params) + len(state))
    numbered = model.join(
        params_def.unflatten(numbers[: len(params)]),
        state_def.unflatten(numbers[len(params) :]),
    )
    place = {number: i for i, number in enumerate(jax.tree.leaves(numbered))}
    return whole, [place[number] for number in numbers]


def _fitter(expected: Any, argument: str) -> Callable[[Any], Any]:
    """``fit(given)``: its leaves, found by name, dense, in the structure `expected`."""
    leaves, treedef = tree.flatten(expected)
    shapes = {name: np.shape(leaf) for name, leaf in leaves.items()}

    def fit(given: Any) -> Any:
        found, _ = tree.flatten(given)
        for name, shape in shapes.items():
            if name not in found:
                raise ValueError(
                    f"{argument} lacks leaf {name!r} of shape {shape}{_near(name, found)}"
                )
            if np.shape(found[name]) != shape:
                raise ValueError(
                    f"{argument} leaf {name!r} has shape {np.shape(found[name])}, the "
                    f"program expects {shape}"
                )
        for name in found:
            if name not in shapes:
                raise ValueError(
                    f"{argument} has a leaf {name!r} that the program does not know"
                    f"{_near(name, shapes)}"
                )
        return base.decoded(treedef.unflatten([found[name] for name in shapes]))

    return fit


def _near(name: str, names: Any) -> str:
    near = difflib.get_close_matches(name, [*names], n=1, cutoff=0.6)
    return f"; nearest: {near[0]!r}" if near else ""
