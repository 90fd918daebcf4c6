"""From a model of flax nnx, flax linen, dm-haiku or equinox to a pure function.

jeff works on programs ``apply(params, *inputs)``. A plain function is one already; the
two functions here make one from a model object. No framework is imported: a model can
only exist if its framework has been imported by whoever made it.
"""

import difflib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jeff import base, tree
from jeff.program import frameworks

__all__ = ["functional", "functional_with_state"]


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
        params of a haiku one, or its ``(params, state)``; stored weights may be in it.
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

    References:
      ``nnx.split``, https://flax.readthedocs.io/en/latest/nnx_basics.html;
      ``Module.apply`` of linen, https://flax-linen.readthedocs.io;
      ``hk.transform_with_state``, https://dm-haiku.readthedocs.io; ``eqx.partition``,
      https://docs.kidger.site/equinox.

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
    model = frameworks.read(
        module, inputs, kwargs, key=key, variables=variables, method=method
    )
    whole, order = _join(model)
    fit = _fitter(whole, "params")
    params_def = jax.tree.structure(model.params, is_leaf=base.is_stored)
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
    if frameworks.is_instance(module, "equinox", "Module"):
        raise TypeError(
            "module: an equinox module takes and returns its eqx.nn.State itself; use "
            "functional(module) and pass the state as an input"
        )
    model = frameworks.read(
        module, inputs, kwargs, key=key, variables=variables, method=method
    )
    fit_params = _fitter(model.params, "params")
    fit_state = _fitter(model.state, "state")

    def apply(params: Any, state: Any, *inputs: Any, **kwargs: Any) -> tuple[Any, Any]:
        return model.call(fit_params(params), fit_state(state), *inputs, **kwargs)

    return apply, model.params, model.state


def _join(model: frameworks.Model) -> tuple[Any, list[int]]:
    """The joined tree, and for each leaf of params, then of state, its index there."""
    params, params_def = jax.tree.flatten(model.params, is_leaf=base.is_stored)
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
                    f"{argument} lacks leaf {name!r} of shape {shape}"
                    f"{_near(name, found)}"
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
