"""Whether trials that run together would each need products of their own.

Where only activations differ from trial to trial, trials fold into the batch: the same
products on more rows. Where weights differ, `jax.vmap` makes grouped convolutions and
batched products, which read every weight once per trial and take more processor time
than the plain ones one after another, on CPUs at least. The exception is an operation
on what is the same in all trials, such as the images themselves: there the weights of
all trials are columns of one larger product, or filters of one larger convolution.

References:
  jax-ml/jax pull request 858 (the batching rule of convolutions).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jeff.program import compat
from jeff.sweep.planning.arguments import Sweep
from jeff.sweep.planning.shapes import batch_shape, point_shapes
from jeff.sweep.planning.unit import TracedTrial

__all__ = ["OwnWeights", "own_weights"]


class OwnWeights(NamedTuple):
    """What costs more when trials run together.

    Attributes:
      convolutions: Convolutions that become grouped, or have more groups.
      products: Products without a batch axis that get one.
    """

    convolutions: int
    products: int


def own_weights(sweep: Sweep, traced: TracedTrial) -> OwnWeights:
    """Compares the program of one trial with that of two at once.

    Args:
      sweep: The sweep.
      traced: Its trial.

    Returns:
      How many operations would become grouped or batched.
    """

    def one(key, rate, design, number, batch):
        for_draw, for_evaluate = traced.consts
        faulty = traced.draw(for_draw, key, rate, design, number)
        return traced.evaluate(for_evaluate, faulty, batch)

    batch = batch_shape(sweep, (traced.batch,))
    both = jax.vmap(one, in_axes=(None, None, None, 0, None))
    groups = []
    for f, numbers in ((one, ()), (both, (2,))):
        number = jax.ShapeDtypeStruct(numbers, jnp.int32)
        program = jax.make_jaxpr(f)(*point_shapes(sweep), number, batch)
        groups.append(tuple(_groups(program)))
    grew = [kind for kind, n in _pairs(*groups) if n]
    return OwnWeights(grew.count("conv"), grew.count("dot"))


def _groups(jaxpr: Any) -> Iterator[tuple[str, int]]:
    """Groups of every convolution, and whether every product is batched, in order."""
    for eqn in compat.open_jaxpr(jaxpr).eqns:
        if eqn.primitive.name == "conv_general_dilated":
            params = eqn.params
            yield "conv", params["feature_group_count"] * params["batch_group_count"]
        elif eqn.primitive.name == "dot_general":
            yield "dot", int(bool(eqn.params["dimension_numbers"][1][0]))
        for inner in compat.subprograms(eqn):
            yield from _groups(inner)


def _pairs(one: Any, both: Any) -> Iterator[tuple[str, bool]]:
    """By operation, whether it grew; the operations of `both` are those of `one`.

    Where batching changed which operations there are (a `custom_vmap`, say), those of
    the batched program count that are beyond any of their kind before.
    """
    if [kind for kind, _ in one] == [kind for kind, _ in both]:
        for (kind, old), (_, new) in zip(one, both, strict=True):
            yield kind, new > old
        return
    most = {kind: max((n for k, n in one if k == kind), default=0) for kind, _ in both}
    for kind, new in both:
        yield kind, new > most[kind]
