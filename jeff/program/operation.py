"""How a site presents itself: ``[..., K] x [K, N]``, whatever the dimension numbers.

`Presentation` moves the operands of a product, convolution or look-up into the view a
`Rule` sees and moves the result back, so that the original equation runs on the
original layouts (transposes there and back cancel under XLA).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jeff import base
from jeff.program import compat

__all__ = ["Presentation", "present"]


@dataclasses.dataclass(frozen=True, eq=False)
class Presentation:
    """The layout of one site's operands.

    Attributes:
      kind: ``"dot"``, ``"ragged_dot"``, ``"conv"`` or ``"lookup"``.
      weight: Which operand is the weight.
      batch: Sizes of the batch axes of the weight (experts, heads).
      k: Contracted size per output element (rows of the table for a look-up).
      n: Number of output features.
      x_shape: Shape of the activation a rule sees.
      y_shape: Shape of the output a rule returns.
      w_permutation: Order of the weight operand's axes in the view.
      contract: Weight operand axes that are contracted.
      macs: Multiply-accumulates of one run of the equation.
    """

    eqn: Any
    kind: str
    weight: int
    batch: tuple[int, ...]
    k: int
    n: int
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    w_permutation: tuple[int, ...]
    contract: tuple[int, ...]
    macs: int
    x_permutation: tuple[int, ...] = ()
    y_permutation: tuple[int, ...] = ()

    @property
    def w_shape(self) -> tuple[int, ...]:
        """Shape of the weight a rule sees."""
        return (*self.batch, self.k, self.n)

    def x_view(self, x: jax.Array) -> jax.Array:
        """The activation as rules see it."""
        if not self.x_permutation:
            return x
        return lax.transpose(x, self.x_permutation).reshape(self.x_shape)

    def x_restore(self, x: jax.Array) -> jax.Array:
        """Inverse of `x_view`."""
        if not self.x_permutation:
            return x
        shape = self._aval(1 - self.weight).shape
        moved = x.reshape([shape[i] for i in self.x_permutation])
        return lax.transpose(moved, _inverse(self.x_permutation))

    def w_view(self, w: Any) -> Any:
        """The weight as rules see it: dense, or stored if the view can be expressed."""
        moved = w.transpose(self.w_permutation)
        viewed = None if moved is None else moved.reshape(self.w_shape)
        return self.w_view(w.decode()) if viewed is None else viewed

    def w_restore(self, w: Any) -> jax.Array:
        """Inverse of `w_view` for a dense weight."""
        w = w.decode() if base.is_stored(w) else w
        shape = self._aval(self.weight).shape
        moved = w.reshape([shape[i] for i in self.w_permutation])
        return lax.transpose(moved, _inverse(self.w_permutation))

    def y_view(self, y: jax.Array) -> jax.Array:
        """The output as rules see it."""
        if not self.y_permutation:
            return y
        return lax.transpose(y, self.y_permutation).reshape(self.y_shape)

    def y_restore(self, y: jax.Array) -> jax.Array:
        """Inverse of `y_view`."""
        if not self.y_permutation:
            return y
        shape = self.eqn.outvars[0].aval.shape
        moved = y.reshape([shape[i] for i in self.y_permutation])
        return lax.transpose(moved, _inverse(self.y_permutation))

    def run(self, operands: Sequence[Any], x: jax.Array, w: Any) -> jax.Array:
        """The original equation on other operands, in the view of the rules."""
        if self.kind == "lookup" and base.is_stored(w):
            return _stored_rows(self.eqn, w, operands)
        values = list(operands)
        values[self.weight] = self.w_restore(w)
        if self.kind != "lookup":
            values[1 - self.weight] = self.x_restore(x)
        elif len(values) == 2:
            values[1] = x
        return self.y_view(compat.bind(self.eqn, values)[0])

    def _aval(self, operand: int):
        return self.eqn.invars[operand].aval


def present(eqn: Any, weight: int, kind: str) -> Presentation:
    """The presentation of a site's equation (shapes only, nothing is computed)."""
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
        batch=sizes,
        k=k,
        n=n,
        x_shape=(*sizes, *rows, k),
        y_shape=(*sizes, *rows, n),
        w_permutation=(*wb, *wc, *wf),
        contract=wc,
        x_permutation=(*xb, *xf, *xc),
        y_permutation=(*outer, *x_out, *w_out),
        macs=math.prod(sizes) * math.prod(rows) * k * n,
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
        batch=w[:1],
        k=w[1],
        n=w[2],
        x_shape=x,
        y_shape=y,
        w_permutation=(0, 1, 2),
        contract=(1,),
        macs=x[0] * w[1] * w[2],
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
        batch=(),
        k=k,
        n=n,
        x_shape=eqn.invars[1 - weight].aval.shape,
        y_shape=y_shape,
        w_permutation=(*contract, spec[0]),
        contract=contract,
        macs=math.prod(y_shape) * k // eqn.params["batch_group_count"],
    )


def _lookup(eqn) -> Presentation:
    table = eqn.invars[0].aval.shape
    indices = eqn.invars[1].aval.shape
    indexed = [i for i, s in enumerate(eqn.params["slice_sizes"]) if s != table[i]]
    kept = tuple(i for i in range(len(table)) if i not in indexed)
    return Presentation(
        eqn=eqn,
        kind="lookup",
        weight=0,
        batch=(),
        k=_prod(table, indexed),
        n=_prod(table, kept),
        x_shape=indices,
        y_shape=eqn.outvars[0].aval.shape,
        w_permutation=(*indexed, *kept),
        contract=(),
        macs=0,
    )


def _stored_rows(eqn, table, operands) -> jax.Array:
    """A look-up that decodes only the rows it needs."""
    sizes = tuple(eqn.params["slice_sizes"])
    # `table` is the [rows, n] view; bring it back to the operand's axes first.
    shape = eqn.invars[0].aval.shape
    indexed = [i for i, s in enumerate(sizes) if s != shape[i]]
    order = (*indexed, *(i for i in range(len(shape)) if i not in indexed))
    whole = table.reshape([shape[i] for i in order])
    whole = None if whole is None else whole.transpose(_inverse(order))
    if whole is None:
        values = (table.decode().reshape([shape[i] for i in order]),)
        dense = lax.transpose(values[0], _inverse(order))
        return compat.bind(eqn, [dense, *operands[1:]])[0]
    rows = take_rows(eqn, whole, operands)
    if rows is None:
        return compat.bind(eqn, [whole.decode(), *operands[1:]])[0]
    return rows


def take_rows(eqn, table, operands) -> Any:
    """A gather or dynamic slice of a stored weight along one axis, or ``None``.

    Returns a dense array for rows of a table; used with `stack_take` for stacks.
    """
    taken = stack_take(eqn, table, operands)
    if taken is None:
        return None
    stored, valid = taken
    y = stored.decode()
    if valid is not None:
        fill = jnp.nan if jnp.issubdtype(y.dtype, jnp.inexact) else 0
        y = jnp.where(valid, y, jnp.asarray(fill, y.dtype))
    return y


def stack_take(eqn, weight, operands):
    """``(stored weight, validity mask or None)`` after an indexing equation."""
    shape, sizes = weight.shape, tuple(eqn.params["slice_sizes"])
    out_shape = eqn.outvars[0].aval.shape
    cut = [i for i, s in enumerate(sizes) if s != shape[i]]
    if len(cut) != 1 or not weight.can_index(cut[0]):
        return None
    (axis,) = cut
    if eqn.primitive.name == "dynamic_slice":
        start = jnp.clip(operands[1 + axis], 0, shape[axis] - sizes[axis])
        rows = start + jnp.arange(sizes[axis], dtype=start.dtype)
        return _or_none(weight.take(rows, axis), None)
    numbers = eqn.params["dimension_numbers"]
    if (
        tuple(numbers.collapsed_slice_dims) != (axis,)
        or tuple(numbers.start_index_map) != (axis,)
        or getattr(numbers, "operand_batching_dims", ())
    ):
        return None
    index = operands[1][..., 0]
    mode = eqn.params["mode"]
    valid = None
    if mode == lax.GatherScatterMode.FILL_OR_DROP:
        inside = (index >= 0) & (index < shape[axis])
        valid = jnp.broadcast_to(
            jnp.expand_dims(inside, tuple(numbers.offset_dims)), out_shape
        )
    taken = weight.take(jnp.clip(index, 0, shape[axis] - 1), axis)
    if taken is None:
        return None
    # `take` leaves the index axes where the axis was; the equation wants them
    # everywhere but at offset_dims.
    rank, spread = index.ndim, len(out_shape)
    batch = [i for i in range(spread) if i not in numbers.offset_dims]
    source: list[int] = [0] * spread
    for position, i in enumerate(batch):
        source[i] = axis + position
    kept = [i for i in range(spread) if not axis <= i < axis + rank]
    for position, i in enumerate(numbers.offset_dims):
        source[i] = kept[position]
    return _or_none(taken.transpose(source), valid)


def _or_none(stored, valid):
    return None if stored is None else (stored, valid)


def _inverse(permutation: Sequence[int]) -> tuple[int, ...]:
    inverse = [0] * len(permutation)
    for i, p in enumerate(permutation):
        inverse[p] = i
    return tuple(inverse)


def _prod(shape, axes) -> int:
    return math.prod(shape[i] for i in axes)
