"""What a site is: where a parameter leaf meets an activation, or a mark stands."""

import dataclasses
import difflib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jeff import prng, tree

__all__ = ["Part", "Site", "Sites"]


class Part(NamedTuple):
    """How one leaf enters a site's weight.

    Attributes:
      leaf: Path of the leaf.
      contract_axes: Axes of the leaf that are contracted; the entry axes of a row
        for a look-up.
      stack_axes: Axes of the leaf along which loops or experts take one entry.

    Examples:
      >>> from jeff.program.sites import sites
      >>> def scanned(p, x):
      ...     return jax.lax.scan(lambda h, w: (h @ w.T, None), x, p["w"])[0]
      >>> (site,) = sites(scanned, {"w": jnp.ones((3, 4, 4))}, jnp.ones((2, 4)))
      >>> site.parts
      (Part(leaf='w', contract_axes=(2,), stack_axes=(0,)),)
    """

    leaf: str
    contract_axes: tuple[int, ...]
    stack_axes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Site:
    """One equation in which a parameter leaf is multiplied, convolved or looked up.

    A site presents itself as ``[..., K] x [K, N]`` (plus leading batch axes for
    experts), whatever the dimension numbers of the equation. A value that `jeff.mark`
    named is a site too, of kind ``"mark"``, and has no weight.

    Attributes:
      name: Unique name: the leaf's path, with ``@1``, ``@2`` ... for further uses.
      leaf: Path of the (first) leaf; of a mark, the name it was given.
      leaves: Paths of all leaves in the weight; several only if `derived`.
      kind: ``"dot"``, ``"ragged_dot"``, ``"conv"``, ``"lookup"`` or ``"mark"``.
      use: Which use of the leaf this is, counted in program order; traced inside a
        rewritten loop that uses one weight again and again.
      derived: Whether the weight is computed from its leaves (LoRA, mask, norm).
      shape: Shape of the weight in the view, ``(*batch, K, N)``; ``()`` without one.
      x_shape: Shape of the activation a rule sees.
      y_shape: Shape of the output a rule returns.
      dtype: Dtype of the output.
      weight_dtype: Dtype of the weight operand; ``None`` without one.
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
      window: Sizes of a convolution's kernel along the image; empty for others.
      groups: Groups of a convolution's input channels.
      index: Iteration of each loop that steps through the stack; traced in a rule.
      marked_macs: Multiplications per element that a mark was told of, or ``None``.
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
    window: tuple[int, ...] = ()
    groups: int = 1
    index: tuple[Any, ...] = ()
    marked_macs: int | None = None

    def key(self, key: jax.Array) -> jax.Array:
        """A key of this site alone: by name, place in the stack, and use.

        A draw is the same whether the layers are scanned or written out, and does
        not depend on which other sites exist.

        Args:
          key: Any JAX key.

        Returns:
          A key folded with the leaf's name (or the mark's), its layer numbers (or the
          loop index) and the number of the use.

        References:
          ``jax.random.fold_in``,
          https://docs.jax.dev/en/latest/_autosummary/jax.random.fold_in.html.
        """
        name, numbers = tree.split_indices(self.leaf)
        name = name.replace("#.", "").replace(".#", "")
        if self.kind == "mark":  # never the key of a leaf
            name = f"mark {name}"
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
        """The site in one iteration of the loops around it.

        Args:
          iterations: Iteration of every loop, outermost first; traced or not.

        Returns:
          The site with its `index` and `use` there.
        """
        index, use = [], self.use
        for i, stride in zip(iterations, self.strides, strict=True):
            if stride:
                use = use + i * stride
            else:
                index.append(i)
        return dataclasses.replace(self, index=tuple(index), use=use)

    def as_dict(self) -> dict[str, Any]:
        """The site as plain data.

        Returns:
          Names, numbers and lists only, fit for JSON.
        """
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["dtype"] = jnp.dtype(self.dtype).name
        if self.weight_dtype is not None:
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
      lost_marks: Marks that are no sites: those of weights, and those inside what
        cannot be looked into, such as kernels.

    Examples:
      >>> from jeff.program.sites import sites
      >>> def attend(p, x):
      ...     return (x @ p["q"]) * (x @ p["k"])
      >>> params = {"q": jnp.ones((4, 8)), "k": jnp.ones((4, 8)), "old": jnp.ones(3)}
      >>> found = sites(attend, params, jnp.ones((2, 4)))
      >>> print(found)
      site  kind  weight  loops  MACs  bytes  input  producer
      q     dot   4x8     -      64    128    4      input
      k     dot   4x8     -      64    128    4      input
      unused leaves: old
      >>> [[site.name for site in group] for group in found.groups()]
      [['q', 'k']]
    """

    constants: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    elementwise: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()
    lost_marks: tuple[str, ...] = ()

    def named(self, name: str) -> Site:
        """The site called `name`.

        Args:
          name: Its name.

        Returns:
          The site.

        Raises:
          ValueError: If there is none; the message lists near names.
        """
        for site in self:
            if site.name == name:
                return site
        names = [s.name for s in self]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
        raise ValueError(f"no site {name!r}; nearest: {', '.join(near)}")

    def groups(self) -> list[tuple[Site, ...]]:
        """Sites that share an input: they must share what is done to it.

        Returns:
          Groups of products and convolutions, in program order.
        """
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
            shape = "x".join(map(str, s.shape)) or "-"
            shape += " derived" if s.derived else ""
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
            ("not followed", self.opaque),
            ("marks that are no sites", self.lost_marks),
        ):
            if items:
                lines.append(f"{label}: {', '.join(items)}")
        return "\n".join(lines)
