"""Faults of all the weights of a program: dense leaves, and codes of stored ones."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jeff import base, prng, tree
from jeff.faults.composed import compose
from jeff.faults.model import Codes, overflow_of, sample_all
from jeff.faults.naming import naming
from jeff.faults.stacks import Stacked, check_stacks, per_entry, stack_axes
from jeff.faults.where import Where, chooser, chosen, is_weight

__all__ = ["WeightFaults", "on_weights"]


class WeightFaults(NamedTuple):
    """Sampled faults of a params tree.

    Attributes:
      leaves: Faults by name of the leaf, as the model's `sample` gave them.
      overflow: bool ``[]``: whether those of some leaf lack hits.
    """

    leaves: dict[str, Any]
    overflow: jax.Array


def on_weights(
    *models: base.FaultModel,
    where: Where | None = None,
    tied: Sequence[Sequence[str]] | None = None,
    stacked: Stacked | None = None,
) -> base.FaultModel:
    """A fault model of whole params trees.

    A dense leaf is hit as the array it is, a `StoredWeight` in its codes, on the bits
    that it really stores (`StoredWeight.code_bits`); scales and zero points stay. A
    leaf draws from ``named_key(key, name)``, so that its faults do not depend on which
    other leaves there are: ``sample(key, params).leaves[name]`` is
    ``model.sample(named_key(key, name), leaf)``. A leaf that a program uses at several
    sites is one leaf, and hit once.

    Args:
      *models: At least one; several act in the order given (`compose`).
      where: Leaves to hit: a regular expression searched for in the leaf's name,
        ``where(name, leaf) -> bool``, or a list of names. ``None``: every stored
        weight, and every floating or integer array.
      tied: Groups of leaves that stand for one memory (a params tree that holds a tied
        weight twice): all of a group get the faults of the first.
      stacked: Leaves that hold a stack of layers or experts, each entry of which is
        injected as an array of its own, as models need that take a range from the
        array (`adsaf`, `adsaf_cells`): names of leaves ``[layers, ...]``, the number of
        leading stack axes or a tuple of stack axes by name, or what `jeff.sites` found.
        What is drawn does not depend on it.

    Returns:
      A `FaultModel` whose ``sample(key, params)`` gives `WeightFaults` (of the shapes
      of `params`, which may be `jax.ShapeDtypeStruct`) and whose
      ``inject(faults, params)`` gives a tree of the same structure, shapes and dtypes.

    Raises:
      TypeError: If something is no fault model or `where` no choice; at use, if a model
        cannot act on a leaf (the message names it), or a chosen leaf is no array.
      ValueError: If no model is given; at use, if a name is unknown, nothing is chosen,
        tied leaves differ in shape or dtype, or the faults are of another tree or
        another choice of leaves.

    Examples:
      >>> from jeff.faults import bit_flip
      >>> params = {"up": jnp.zeros(6, jnp.int8), "down": jnp.zeros(6, jnp.int8)}
      >>> model = on_weights(bit_flip(0.1), where="up")
      >>> faults = model.sample(jax.random.key(1), params)
      >>> list(faults.leaves), bool(faults.overflow)
      (['up'], False)
      >>> print(model.inject(faults, params)["up"])
      [   4    0 -128    0 -114   64]
    """
    model = compose(*models)
    chooser(where)  # refuses early what is no choice
    for group in tied or ():
        names = () if isinstance(group, str) else tuple(group)
        if len(names) < 2 or not all(isinstance(name, str) for name in names):
            raise ValueError(f"tied must hold groups of 2 names or more, got {group!r}")

    groups = tuple(tuple(group) for group in tied or ())
    stacks = stack_axes(stacked)

    def sample(key, params):
        leaves, _ = tree.flatten(params)
        sources = _sources(leaves, where, groups)
        check_stacks(stacks, leaves)
        names = list(dict.fromkeys(sources.values()))
        likes = [_like(leaves[name]) for name in names]
        drawn = _drawn(model, prng.named_keys(key, names), names, likes)
        return WeightFaults(dict(zip(names, drawn, strict=True)), overflow_of(drawn))

    def inject(faults, params):
        leaves, treedef = tree.flatten(params)
        sources = _sources(leaves, where, groups)
        check_stacks(stacks, leaves)
        _check_names(faults.leaves, sources, leaves)
        for name, source in sources.items():
            own = model._replace(inject=per_entry(model.inject, stacks.get(name, ())))
            with naming(f"leaf {name!r}"):
                leaves[name] = _injected(own, faults.leaves[source], leaves[name])
        return treedef.unflatten(list(leaves.values()))

    return base.FaultModel(sample, inject)


def _sources(leaves, where, groups) -> dict[str, str]:
    """Names of the leaves to hit, each with the leaf whose faults it gets."""
    sources = {n: n for n in chosen(where, leaves, is_weight, "leaf of params")}
    for name in (*sources, *(name for group in groups for name in group)):
        if name in leaves and not hasattr(leaves[name], "dtype"):
            kind = type(leaves[name]).__name__
            raise TypeError(f"leaf {name!r} of params must be an array, got a {kind}")
    for group in groups:
        chosen(group, leaves, is_weight, "leaf of params")  # unknown names are refused
        first = leaves[group[0]]
        for name in group:
            leaf = leaves[name]
            if (leaf.shape, leaf.dtype, type(leaf)) != (
                first.shape, first.dtype, type(first),
            ):  # fmt: skip
                raise ValueError(
                    f"tied leaves must be alike: {group[0]!r} is {first.dtype}"
                    f"{list(first.shape)}, {name!r} is {leaf.dtype}{list(leaf.shape)}"
                )
        if any(name in sources for name in group):
            sources.update(dict.fromkeys(group, group[0]))
    return sources


def _check_names(faulty, sources, leaves) -> None:
    """Refuses faults of other leaves than those to hit."""
    for name in faulty:
        if name not in leaves:
            near = tree.nearest(name, leaves)
            raise ValueError(f"faults are of leaf {name!r}, not in params; {near}")
        if name not in sources.values():
            raise ValueError(f"faults are of leaf {name!r}, which is not to be hit")
    for name in sources.values():
        if name not in faulty:
            raise ValueError(f"faults hold none of leaf {name!r}, which is to be hit")


def _like(leaf):
    """What `sample` is told of a leaf."""
    if not base.is_stored(leaf):
        return leaf
    codes = jax.eval_shape(lambda w: w.codes(), leaf)
    return Codes(shape=codes.shape, dtype=codes.dtype, bits=leaf.code_bits)


def _drawn(model, keys, names, likes):
    try:
        return sample_all(model, keys, likes)
    except (TypeError, ValueError):
        for i, (name, like) in enumerate(zip(names, likes, strict=True)):
            with naming(f"leaf {name!r}"):  # which leaf is it?
                jax.eval_shape(lambda key, n=like: model.sample(key, n), keys[i])
        raise


def _injected(model, faults, leaf):
    if not base.is_stored(leaf):
        return _checked(model, faults, leaf, leaf)
    codes = leaf.codes()
    faulty = _checked(model, faults, codes, _like(leaf))
    if leaf.code_bits < jnp.iinfo(codes.dtype).bits:
        # No model can set a bit that is not there.
        faulty = faulty & jnp.asarray(2**leaf.code_bits - 1, codes.dtype)
    return leaf.with_codes(faulty)


def _checked(model, faults, x, like):
    """The injection, if the faults are of the array's shape."""
    arrays = [a for a in jax.tree.leaves(faults) if jnp.ndim(a)]
    fit = all(jnp.shape(a)[jnp.ndim(a) - x.ndim :] == x.shape for a in arrays)
    if not fit or any(jnp.ndim(a) < x.ndim for a in arrays):
        # A record of another form than the array: as `sample` makes it?
        made = jax.eval_shape(lambda k: model.sample(k, like), jax.random.key(0))
        expected, got = (
            [jnp.shape(a) for a in jax.tree.leaves(f)] for f in (made, faults)
        )
        if expected != got:
            raise ValueError(
                f"its faults hold arrays of shapes {got}, but those of an array of "
                f"shape {x.shape} have {expected}"
            )
    faulty = model.inject(faults, x)
    if faulty.shape != x.shape or faulty.dtype != x.dtype:
        raise ValueError(
            f"injection made {faulty.dtype}{list(faulty.shape)} of "
            f"{x.dtype}{list(x.shape)}: are the faults of another array?"
        )
    return faulty
