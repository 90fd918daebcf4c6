"""Sites: the places where a parameter leaf meets an activation."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jeff import prng, tree
from jeff.program import operation, trace, walk
from jeff.program.uses import Uses

__all__ = ["Part", "Site", "Sites", "find", "sites"]


class Part(NamedTuple):
    """How one leaf enters a site's weight.

    Attributes:
      leaf: Path of the leaf.
      contract_axes: Axes of the leaf that are contracted; the entry axes of a row
        for a look-up.
      stack_axes: Axes of the leaf along which loops or experts take one entry.
    """

    leaf: str
    contract_axes: tuple[int, ...]
    stack_axes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Site:
    """One equation in which a parameter leaf is multiplied, convolved or looked up.

    A site presents itself as ``[..., K] x [K, N]`` (plus leading batch axes for
    experts), whatever the dimension numbers of the equation.

    Attributes:
      name: Unique name: the leaf's path, with ``@1``, ``@2`` ... for further uses.
      leaf: Path of the (first) leaf.
      leaves: Paths of all leaves in the weight; several only if `derived`.
      kind: ``"dot"``, ``"ragged_dot"``, ``"conv"`` or ``"lookup"``.
      use: Which use of the leaf this is, counted in program order; traced inside a
        rewritten loop that uses one weight again and again.
      derived: Whether the weight is computed from its leaves (LoRA, mask, norm).
      shape: Shape of the weight in the view, ``(*batch, K, N)``.
      x_shape: Shape of the activation a rule sees.
      y_shape: Shape of the output a rule returns.
      dtype: Dtype of the output.
      weight_dtype: Dtype of the weight operand.
      parts: The leaves whose axes can be followed into the weight: one, or several
        for kernels laid side by side; none for a weight that is computed.
      trips: Iterations of the loops around it, outermost first; ``None`` unknown.
      macs: Multiply-accumulates of one run of the program (of one iteration per
        loop whose length is unknown).
      nbytes: Bytes of the weight operand, dense.
      input_id: Sites with equal ids multiply the same activation.
      producer: What computes the input: a site's name, ``"leaf:NAME"`` of an
        elementwise parameter such as a norm's scale, or a primitive's name.
      custom: Whether it lies inside a function with its own derivative.
      path: Where the equation stands in the nested program.
      strides: Per loop around it, how many uses of the leaf one iteration makes
        (negative if the loop runs backwards); 0 where the loop steps through a stack
        of weights.
      index: Iteration of each loop that steps through the stack; traced in a rule.
    """

    name: str
    leaf: str
    leaves: tuple[str, ...]
    kind: str
    use: Any
    derived: bool
    shape: tuple[int, ...]
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    dtype: Any
    weight_dtype: Any
    parts: tuple[Part, ...]
    trips: tuple[int | None, ...]
    macs: int
    nbytes: int
    input_id: int
    producer: str
    custom: bool
    path: tuple[int, ...]
    strides: tuple[int, ...] = ()
    index: tuple[Any, ...] = ()

    def key(self, key: jax.Array) -> jax.Array:
        """A key of this site alone: by name, place in the stack, and use.

        A draw is the same whether the layers are scanned or written out, and does
        not depend on which other sites exist.

        Args:
          key: Any JAX key.

        Returns:
          A key folded with the leaf's name, its layer numbers (or the loop index)
          and the number of the use.
        """
        name, numbers = tree.split_indices(self.leaf)
        name = name.replace("#.", "").replace(".#", "")
        return prng.named_key(key, name, *self.index, *numbers, self.use)

    @property
    def contract_axes(self) -> tuple[int, ...]:
        """Contracted axes of the leaf (of the first part)."""
        return self.parts[0].contract_axes if self.parts else ()

    @property
    def stack_axes(self) -> tuple[int, ...]:
        """Stack axes of the leaf (of the first part)."""
        return self.parts[0].stack_axes if self.parts else ()

    def at(self, iterations: tuple[Any, ...]) -> "Site":
        """The site in one iteration (traced or not) of the loops around it."""
        index, use = [], self.use
        for i, stride in zip(iterations, self.strides, strict=True):
            if stride:
                use = use + i * stride
            else:
                index.append(i)
        return dataclasses.replace(self, index=tuple(index), use=use)

    def as_dict(self) -> dict[str, Any]:
        """The site as plain data, for JSON."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["dtype"] = jnp.dtype(self.dtype).name
        data["weight_dtype"] = jnp.dtype(self.weight_dtype).name
        del data["index"], data["path"], data["strides"]
        data["parts"] = [p._asdict() for p in self.parts]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}


class Sites(tuple[Site, ...]):
    """The sites of a program, in program order; prints as a table.

    Attributes:
      constants: Shapes of arrays captured in a closure and used like weights.
      unused: Leaves that reach neither a site nor any other equation.
      elementwise: Leaves used, but at no site (biases, norms).
      opaque: Equations that take a weight but cannot be looked into, and weights
        that a loop carries and changes.
    """

    constants: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    elementwise: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()

    def named(self, name: str) -> Site:
        """The site called `name`.

        Raises:
          ValueError: If there is none; the message lists near names.
        """
        for site in self:
            if site.name == name:
                return site
        import difflib

        names = [s.name for s in self]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
        raise ValueError(f"no site {name!r}; nearest: {', '.join(near)}")

    def groups(self) -> list[tuple[Site, ...]]:
        """Sites that share an input, in program order (products only)."""
        found: dict[Any, list[Site]] = {}
        for site in self:
            if site.kind in ("dot", "ragged_dot", "conv"):
                found.setdefault(site.input_id, []).append(site)
        return [tuple(g) for g in found.values()]

    def __str__(self) -> str:
        """The sites as a table, one a line."""
        header = (
            "site",
            "kind",
            "weight",
            "loops",
            "MACs",
            "bytes",
            "input",
            "producer",
        )
        rows: list[tuple[str, ...]] = [header]
        for s in self:
            loops = "x".join("?" if t is None else str(t) for t in s.trips) or "-"
            shape = "x".join(map(str, s.shape)) + (" derived" if s.derived else "")
            rows.append(
                (
                    s.name,
                    s.kind,
                    shape,
                    loops,
                    f"{s.macs:,}",
                    f"{s.nbytes:,}",
                    str(s.input_id),
                    s.producer,
                )
            )
        widths = [max(len(r[i]) for r in rows) for i in range(len(header))]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip()
            for r in rows
        ]
        for label, items in (
            ("constants used as weights", self.constants),
            ("unused leaves", self.unused),
            ("not looked into", self.opaque),
        ):
            if items:
                lines.append(f"{label}: {', '.join(items)}")
        return "\n".join(lines)


@dataclasses.dataclass(eq=False)
class Found:
    """A program with its sites: what the rewriting, tapping and cutting share.

    Attributes:
      program: The walked program.
      sites: Its sites.
      steps: The step of each site, by the site's name.
      by_path: The site and its presentation, by the path of the equation.
      inside: Paths of all equations that have a site inside them.
      memo: What others derived from this program, so that it is derived once.
    """

    traced: trace.Traced
    program: walk.Program
    sites: Sites
    steps: dict[str, walk.Step]
    by_path: dict[tuple[int, ...], tuple[Site, operation.Presentation]]
    inside: frozenset[tuple[int, ...]]
    memo: dict[Any, Any] = dataclasses.field(default_factory=dict)


def sites(
    apply: Callable[..., Any],
    params: Any,
    *inputs: Any,
    axis_sizes: Mapping[str, int] | None = None,
    **kwargs: Any,
) -> Sites:
    """Every place of a program where a parameter meets an activation.

    The program is traced, never run; arguments may be `jax.ShapeDtypeStruct`. Leaves
    are followed through casts, reshapes, transposes, slices, ``jit``, ``scan``,
    ``while``, ``cond``, ``remat``, ``custom_jvp`` and ``custom_vjp``.

    Args:
      apply: ``apply(params, *inputs, **kwargs)``, any JAX function.
      params: Any pytree; leaves may be `StoredWeight`.
      *inputs: Inputs of the program.
      axis_sizes: Sizes of named axes the program reduces over, if it is meant to run
        inside ``vmap(axis_name=...)`` or ``shard_map``.
      **kwargs: Keyword inputs.

    Returns:
      The sites in program order, with what else was found (see `Sites`).

    Raises:
      ValueError: If the program uses a named axis whose size was not given.

    Examples:
      >>> import jax.numpy as jnp
      >>> def mlp(p, x):
      ...     return jnp.tanh(x @ p["up"]) @ p["down"]
      >>> params = {"up": jnp.ones((4, 8)), "down": jnp.ones((8, 2))}
      >>> for s in sites(mlp, params, jnp.ones((3, 4))):
      ...     print(s.name, s.shape, s.macs, s.producer)
      up (4, 8) 96 input
      down (8, 2) 48 tanh
    """
    return find(trace.tracer_of(apply).trace(params, inputs, kwargs, axis_sizes)).sites


_FOUND: "dict[int, tuple[Any, Found]]" = {}
_FOUND_LIMIT = 64


def find(traced: trace.Traced) -> Found:
    """Walks a trace and describes its sites; the last few traces are remembered."""
    key = id(traced.jaxpr)
    if key in _FOUND and _FOUND[key][0] is traced.jaxpr:
        return _FOUND[key][1]
    found = _find(traced)
    if any(isinstance(c, Tracer) for c in traced.jaxpr.consts):
        return found  # belongs to an outer trace, which must not outlive itself
    while len(_FOUND) >= _FOUND_LIMIT:
        _FOUND.pop(next(iter(_FOUND)))
    _FOUND[key] = (traced.jaxpr, found)
    return found


def _find(traced: trace.Traced) -> Found:
    program = walk.walk(traced)
    seen: dict[str, int] = {}
    uses = Uses.of(program)
    names: dict[int, str] = {}
    listed, steps, by_path = [], {}, {}
    for step in program.sites:
        leaf = step.weight_value.leaves[0]
        assert step.weight is not None
        seen[leaf] = seen.get(leaf, -1) + 1
        name = f"{leaf}@{seen[leaf]}" if seen[leaf] else leaf
        names[id(step)] = name
        try:
            view = operation.present(step.eqn, step.weight, step.kind)
        except NotImplementedError:
            program.opaque.append(step)
            continue
        site = _describe(step, view, name, uses, names)
        listed.append(site)
        steps[name] = step
        by_path[step.path] = (site, view)
    result = Sites(listed)
    at_sites = {n for s in listed for n in s.leaves}
    result.constants = tuple(
        f"{step.weight_value.aval.str_short()} in {step.kind}"
        for step in program.constants
    )
    result.unused = tuple(n for n in program.leaves if n not in program.used)
    result.elementwise = tuple(
        n for n in program.leaves if n in program.used and n not in at_sites
    )
    result.opaque = tuple(
        f"{step.eqn.primitive.name} of "
        + "+".join(n for v in step.inputs for n in v.leaves)
        for step in program.opaque
    )
    result.opaque += tuple(dict.fromkeys(program.lost))
    inside = {path[:i] for path in by_path for i in range(1, len(path))}
    return Found(traced, program, result, steps, by_path, frozenset(inside))


def _describe(step, view, name, uses, names) -> Site:
    weight = step.inputs[step.weight]
    origin = weight.origin
    loops = _frame(step).loops
    trips = tuple(f.trips for f in loops)
    strides = uses.strides.get(id(step), {})
    contract = view.contract if step.kind != "lookup" else _row_axes(step)
    views = [o for o in (origin.parts or (origin,)) if o.is_view and o.axes]
    x = step.inputs[1 - step.weight] if step.kind != "lookup" else step.inputs[1]
    return Site(
        name=name,
        leaf=origin.leaves[0],
        leaves=origin.leaves,
        kind=step.kind,
        use=uses.first[id(step)],
        derived=origin.derived,
        shape=view.w_shape,
        x_shape=view.x_shape,
        y_shape=view.y_shape,
        dtype=step.outputs[0].aval.dtype,
        weight_dtype=weight.aval.dtype,
        parts=tuple(_part(o, contract) for o in views),
        trips=trips,
        macs=view.macs * math.prod(t for t in trips if t is not None),
        nbytes=math.prod(weight.aval.shape) * weight.aval.dtype.itemsize,
        input_id=x.root.number,
        producer=_producer(x.root, names),
        custom=step.custom,
        path=step.path,
        strides=tuple(strides.get(f.path, 0) for f in loops),
    )


def _part(origin, contract: tuple[int, ...]) -> Part:
    atoms = [a.axis for i in contract for a in origin.axes[i] if a.axis is not None]
    return Part(
        origin.leaves[0], tuple(dict.fromkeys(atoms)), tuple(sorted(set(origin.stack)))
    )


def _frame(step: walk.Step) -> walk.Frame:
    return step.outputs[0].frame


def _row_axes(step) -> tuple[int, ...]:
    shape = step.inputs[0].aval.shape
    sizes = step.eqn.params["slice_sizes"]
    return tuple(i for i, s in enumerate(sizes) if s == shape[i] and s > 1)


def _producer(value: walk.Value, names: dict[int, str]) -> str:
    step = value.step
    if step is None:
        return "input"
    if id(step) in names:
        return names[id(step)]
    if step.children:
        return step.eqn.primitive.name
    for operand in step.inputs:
        if operand.is_weight:
            return "leaf:" + operand.leaves[0]
    return step.eqn.primitive.name
