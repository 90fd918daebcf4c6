"""Where a value of a traced program comes from: a parameter leaf, seen through views.

An `Origin` follows one leaf through casts, reshapes, transposes and slices, and keeps
for every axis of the value which axes of the leaf it is made of. That is how a site
knows, without being told, which axes of the stored leaf are contracted.

An axis is a row-major list of *atoms*, factors of the leaf's axes: ``reshape`` regroups
the list, ``transpose`` permutes the axes, a slice shortens an atom.
"""

import dataclasses
import math
from collections.abc import Sequence

__all__ = ["Atom", "Origin", "concatenate", "constant", "derive", "leaf"]


@dataclasses.dataclass(frozen=True)
class Atom:
    """A factor of a value's axis: `size` entries of the leaf's axis (None: none)."""

    axis: int | None
    size: int


Axes = tuple[tuple[Atom, ...], ...]


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a value is made of, if no activation enters it.

    Attributes:
      leaves: Names of the leaves it depends on; empty for a constant.
      axes: Per axis of the value the atoms of the leaf's axes, outermost first.
      stack: Axes of the leaf along which one entry was taken (scanned layers,
        experts).
      loops: Paths of the loops whose iterations choose those entries.
      derived: Whether the value is computed from the leaf rather than a view of it.
      impure: Whether something that depends on the program's inputs was mixed in
        (a sampled mask, say); a pure weight wins over it when both meet.
      broadcast: Whether the value repeats the leaf along an axis.
      parts: For kernels concatenated into one (q, k and v, say): the origin of each.

    Examples:
      >>> kernel = leaf("q.kernel", (8, 12)).reshape((8, 3, 4)).transpose((1, 0, 2))
      >>> kernel.axes[0], kernel.axes[2]
      ((Atom(axis=1, size=3),), (Atom(axis=1, size=4),))
      >>> kernel.scanned(loop=(0,)).stack  # a loop over the heads
      (1,)
    """

    leaves: tuple[str, ...] = ()
    axes: Axes = ()
    stack: tuple[int, ...] = ()
    loops: tuple[tuple[int, ...], ...] = ()
    derived: bool = False
    impure: bool = False
    broadcast: bool = False
    parts: tuple["Origin", ...] = ()

    @property
    def is_weight(self) -> bool:
        """Whether any parameter leaf is in it."""
        return bool(self.leaves)

    @property
    def is_view(self) -> bool:
        """Whether it is exactly one leaf, only moved around."""
        return len(self.leaves) == 1 and not self.derived

    def transpose(self, permutation: Sequence[int]) -> "Origin":
        """The origin after a transpose.

        Args:
          permutation: Old axis of every new axis.

        Returns:
          The origin with its axes, or those of its parts, permuted.
        """
        if self.parts:
            parts = tuple(p.transpose(permutation) for p in self.parts)
            return dataclasses.replace(self, parts=parts)
        if self.derived or not self.leaves:
            return self
        return dataclasses.replace(self, axes=tuple(self.axes[i] for i in permutation))

    def reshape(self, shape: Sequence[int]) -> "Origin":
        """The origin after a reshape.

        Args:
          shape: The new shape.

        Returns:
          The origin with its atoms regrouped; derived if an atom would be torn.

        Examples:
          >>> leaf("w", (4, 6)).reshape((2, 12)).axes
          ((Atom(axis=0, size=2),), (Atom(axis=0, size=2), Atom(axis=1, size=6)))
          >>> leaf("w", (4, 6)).reshape((3, 8)).derived
          True
        """
        if self.derived or not self.leaves:
            return self.as_derived() if self.parts else self
        axes = _regroup([a for axis in self.axes for a in axis], shape)
        return self.as_derived() if axes is None else self.with_axes(axes)

    def slice(self, starts: Sequence[int], limits: Sequence[int]) -> "Origin":
        """The origin after a static slice of unit stride.

        Args:
          starts: First entry along every axis.
          limits: Entry after the last along every axis.

        Returns:
          The origin of the part; derived if an axis of several atoms is cut.
        """
        if self.derived or not self.leaves:
            return dataclasses.replace(self, parts=())
        axes = list(self.axes)
        for i, (start, limit) in enumerate(zip(starts, limits, strict=True)):
            size = math.prod(a.size for a in axes[i])
            if limit - start == size:
                continue
            if len(axes[i]) != 1:
                return self.as_derived()
            axes[i] = (Atom(axes[i][0].axis, limit - start),)
        return self.with_axes(tuple(axes))

    def drop(self, axes: Sequence[int]) -> "Origin":
        """The origin after squeezing axes of size 1.

        Args:
          axes: The axes that go.

        Returns:
          The origin without them.
        """
        if self.derived or not self.leaves:
            return dataclasses.replace(self, parts=())
        kept = tuple(a for i, a in enumerate(self.axes) if i not in set(axes))
        return self.with_axes(kept)

    def broadcast_in_dim(
        self, old: Sequence[int], shape: Sequence[int], dimensions: Sequence[int]
    ) -> "Origin":
        """The origin after ``broadcast_in_dim``.

        Args:
          old: Shape before.
          shape: Shape after.
          dimensions: New axis of every old axis.

        Returns:
          The origin; axes that are new or repeated hold none of the leaf.
        """
        if self.derived or not self.leaves:
            return dataclasses.replace(self, parts=())
        axes: list[tuple[Atom, ...]] = [
            () if n == 1 else (Atom(None, n),) for n in shape
        ]
        repeated = math.prod(shape) != math.prod(old)
        for i, d in enumerate(dimensions):
            if old[i] == shape[d]:
                axes[d] = self.axes[i]
        return dataclasses.replace(
            self, axes=tuple(axes), broadcast=self.broadcast or repeated
        )

    def scanned(self, loop: tuple[int, ...]) -> "Origin":
        """The origin of one iteration's slice along the first axis.

        Args:
          loop: Path of the loop.

        Returns:
          The origin of an entry, the first axis among its stack axes.
        """
        if not self.leaves:
            return dataclasses.replace(self, parts=())
        loops = (*self.loops, loop)
        if self.derived:
            return dataclasses.replace(self, loops=loops, parts=())
        taken = tuple(a.axis for a in self.axes[0] if a.axis is not None)
        return dataclasses.replace(
            self, axes=self.axes[1:], stack=self.stack + taken, loops=loops
        )

    def with_axes(self, axes: Axes) -> "Origin":
        """The same origin with other axes."""
        return dataclasses.replace(self, axes=axes)

    def as_derived(self) -> "Origin":
        """The origin of something computed from this value."""
        return dataclasses.replace(self, axes=(), derived=True, parts=())


def leaf(name: str, shape: Sequence[int]) -> Origin:
    """The origin of a parameter leaf itself.

    Args:
      name: Its name.
      shape: Its shape.

    Returns:
      An origin whose axes are those of the leaf.

    Examples:
      >>> leaf("w", (2, 3)).transpose((1, 0)).axes
      ((Atom(axis=1, size=3),), (Atom(axis=0, size=2),))
    """
    return Origin((name,), tuple((Atom(i, n),) for i, n in enumerate(shape)))


def constant() -> Origin:
    """The origin of a value that depends on neither parameters nor inputs."""
    return Origin()


def derive(origins: Sequence["Origin | None"]) -> "Origin | None":
    """The origin of a value computed from several.

    Args:
      origins: The origin of each; ``None`` for an activation.

    Returns:
      ``None`` if one of them is an activation; a derived origin with all their leaves;
      a constant if they have none.

    Examples:
      >>> derive([leaf("a", (2,)), leaf("b", (2,))]).leaves
      ('a', 'b')
      >>> derive([leaf("a", (2,)), None]) is None
      True
    """
    if any(o is None for o in origins):
        return None
    known = [o for o in origins if o is not None]
    names = tuple(dict.fromkeys(n for o in known for n in o.leaves))
    if not names:
        return constant()
    return Origin(
        leaves=names,
        derived=True,
        impure=any(o.impure for o in known),
        broadcast=any(o.broadcast for o in known),
        stack=next(o.stack for o in known if o.leaves),
        loops=tuple(dict.fromkeys(loop for o in known for loop in o.loops)),
    )


def concatenate(origins: Sequence["Origin | None"]) -> "Origin | None":
    """The origin of several kernels laid side by side.

    Args:
      origins: The origin of each.

    Returns:
      A derived origin, with its parts if each is a view of a leaf; ``None`` if one of
      them is an activation.

    Examples:
      >>> fused = concatenate([leaf("q", (4, 8)), leaf("k", (4, 2))])
      >>> fused.derived, [part.leaves for part in fused.parts]
      (True, [('q',), ('k',)])
    """
    mixed = derive(origins)
    if mixed is None or not all(o is not None and o.is_view for o in origins):
        return mixed
    return dataclasses.replace(mixed, parts=tuple(o for o in origins if o is not None))


def _regroup(atoms: list[Atom], shape: Sequence[int]) -> Axes | None:
    """Regroups a row-major list of atoms into axes of the given sizes."""
    queue = [a for a in atoms if a.size != 1]
    axes = []
    for size in shape:
        group: list[Atom] = []
        have = 1
        while have < size:
            if not queue:
                return None
            head = queue.pop(0)
            need = size // have
            if size % have or (head.size > need and head.size % need):
                return None
            if head.size > need:
                queue.insert(0, Atom(head.axis, head.size // need))
                head = Atom(head.axis, need)
            group.append(head)
            have *= head.size
        if have != size:
            return None
        axes.append(tuple(group))
    return tuple(axes) if not queue else None
