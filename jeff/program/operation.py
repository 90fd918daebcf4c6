"""The presentation of every kind of operation that can be a site.

Products, ragged products, convolutions and look-ups each have their own dimension
numbers; here they are read into the one view ``[..., K] x [K, N]``.
"""

import math
from typing import Any

from jeff.program import contraction
from jeff.program.presentation import Presentation

__all__ = ["present"]


def present(eqn: Any, weight: int, kind: str) -> Presentation:
    """The presentation of a site's equation; nothing is computed.

    Args:
      eqn: The equation.
      weight: Which operand is the weight.
      kind: ``"dot"``, ``"ragged_dot"``, ``"conv"`` or ``"lookup"``.

    Returns:
      The presentation.

    Raises:
      NotImplementedError: If a ragged product is another than ``[m, k] x [g, k, n]``.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> def heads(x, w):  # 2 heads, 3 features in, 5 out; einsum puts w left
      ...     return jnp.einsum("bhk,nhk->bhn", x, w)
      >>> jaxpr = jax.make_jaxpr(heads)(jnp.ones((7, 2, 3)), jnp.ones((5, 2, 3)))
      >>> view = present(jaxpr.eqns[0], 0, "dot")
      >>> view.x_shape, view.w_shape, view.y_shape, view.contract
      ((2, 7, 3), (2, 3, 5), (2, 7, 5), (2,))
    """
    if kind == "dot":
        return _dot(eqn, weight)
    if kind == "ragged_dot":
        return _ragged(eqn, weight)
    if kind == "conv":
        return _conv(eqn, weight)
    return _lookup(eqn)


def _dot(eqn, weight) -> Presentation:
    contract, batch = eqn.params["dimension_numbers"]
    wc, wb = tuple(contract[weight]), tuple(batch[weight])
    xc, xb = tuple(contract[1 - weight]), tuple(batch[1 - weight])
    w_shape = eqn.invars[weight].aval.shape
    x_shape = eqn.invars[1 - weight].aval.shape
    # Contracted axes in the order of the weight's own axes: a leaf's row-major order.
    order = sorted(range(len(wc)), key=lambda i: wc[i])
    wc, xc = tuple(wc[i] for i in order), tuple(xc[i] for i in order)
    wf = tuple(i for i in range(len(w_shape)) if i not in wc + wb)
    xf = tuple(i for i in range(len(x_shape)) if i not in xc + xb)
    nb, nx, nw = len(wb), len(xf), len(wf)
    outer = tuple(range(nb))
    first, second = (nw, nx) if weight == 0 else (nx, nw)
    left = tuple(range(nb, nb + first))
    right = tuple(range(nb + first, nb + first + second))
    w_out, x_out = (left, right) if weight == 0 else (right, left)
    k, n = _prod(w_shape, wc), _prod(w_shape, wf)
    sizes = tuple(w_shape[i] for i in wb)
    rows = tuple(x_shape[i] for i in xf)
    return Presentation(
        eqn=eqn,
        kind="dot",
        weight=weight,
        activation=1 - weight,
        batch=sizes,
        k=k,
        n=n,
        x_shape=(*sizes, *rows, k),
        y_shape=(*sizes, *rows, n),
        w_permutation=(*wb, *wc, *wf),
        contract=wc,
        x_permutation=(*xb, *xf, *xc),
        y_permutation=(*outer, *x_out, *w_out),
        macs=contraction.macs(eqn),
    )


def _ragged(eqn, weight) -> Presentation:
    x, w = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape
    y = eqn.outvars[0].aval.shape
    numbers = eqn.params.get("ragged_dot_dimension_numbers")
    plain = numbers is None or (
        tuple(numbers.dot_dimension_numbers[0][0]) == (1,)
        and tuple(numbers.dot_dimension_numbers[0][1]) == (1,)
        and tuple(numbers.rhs_group_dimensions) == (0,)
    )
    if not plain or weight != 1 or len(w) != 3:
        raise NotImplementedError(
            "ragged_dot with other dimension numbers than [m, k] x [g, k, n]"
        )
    return Presentation(
        eqn=eqn,
        kind="ragged_dot",
        weight=1,
        activation=0,
        batch=w[:1],
        k=w[1],
        n=w[2],
        x_shape=x,
        y_shape=y,
        w_permutation=(0, 1, 2),
        contract=(1,),
        macs=contraction.macs(eqn),
    )


def _conv(eqn, weight) -> Presentation:
    numbers = eqn.params["dimension_numbers"]
    spec = numbers.rhs_spec  # (out, in, *spatial) positions
    w_shape, y_shape = eqn.invars[weight].aval.shape, eqn.outvars[0].aval.shape
    contract = tuple(sorted((spec[1], *spec[2:])))
    k, n = _prod(w_shape, contract), w_shape[spec[0]]
    return Presentation(
        eqn=eqn,
        kind="conv",
        weight=weight,
        activation=1 - weight,
        batch=(),
        k=k,
        n=n,
        x_shape=eqn.invars[1 - weight].aval.shape,
        y_shape=y_shape,
        w_permutation=(*contract, spec[0]),
        contract=contract,
        macs=contraction.macs(eqn),
    )


def _lookup(eqn) -> Presentation:
    table = eqn.invars[0].aval.shape
    indexed = [i for i, s in enumerate(eqn.params["slice_sizes"]) if s != table[i]]
    kept = tuple(i for i in range(len(table)) if i not in indexed)
    # A gather has one array of indices, a dynamic slice a scalar for each axis.
    activation = 1 if eqn.primitive.name == "gather" else 1 + indexed[0]
    return Presentation(
        eqn=eqn,
        kind="lookup",
        weight=0,
        activation=activation,
        batch=(),
        k=_prod(table, indexed),
        n=_prod(table, kept),
        x_shape=eqn.invars[activation].aval.shape,
        y_shape=eqn.outvars[0].aval.shape,
        w_permutation=(*indexed, *kept),
        contract=(),
        macs=0,
    )


def _prod(shape, axes) -> int:
    return math.prod(shape[i] for i in axes)
