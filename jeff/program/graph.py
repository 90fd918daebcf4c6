"""The data-flow graph of a program: values, steps, frames."""

import dataclasses
from typing import Any

from jeff.program.origin import Origin

__all__ = ["Frame", "Program", "Step", "Value"]


class Value:
    """One value of the program: a node's output, an input or a constant.

    Attributes:
      aval: Its shape and dtype.
      number: Value number; equal numbers mean equal values.
      origin: Where it comes from; ``None`` for an activation.
      step: The step that computes it, or ``None``.
      frame: The frame it lives in.
      root: The value it is a cast or another shape of, itself if there is none.
      literal: The array or scalar it is, if it is known without running anything.
    """

    __slots__ = ("aval", "frame", "literal", "number", "origin", "root", "step")

    def __init__(
        self,
        aval: Any,
        number: int,
        origin: Origin | None,
        frame: Any,
        step=None,
        root=None,
    ):
        """Makes the value; without `root` it is its own."""
        self.aval = aval
        self.number = number
        self.origin: Origin | None = origin
        self.frame = frame
        self.step: Step | None = step
        self.root: Value = self if root is None else root
        self.literal: Any = None

    @property
    def is_weight(self) -> bool:
        """Whether a parameter leaf is in it and no activation."""
        return self.origin is not None and self.origin.is_weight

    @property
    def leaves(self) -> tuple[str, ...]:
        """Names of the parameter leaves in it; none for an activation."""
        return () if self.origin is None else self.origin.leaves

    def __repr__(self):
        """Type and number, as in ``Value(float32[2], #7)``."""
        return f"Value({self.aval.str_short()}, #{self.number})"


@dataclasses.dataclass(eq=False)
class Step:
    """One equation after inlining calls.

    Attributes:
      eqn: The equation.
      inputs: Its operands.
      outputs: Its results.
      path: Where the equation stands in the nested jaxpr.
      children: Frames of its sub-programs, if it is a loop or a branch.
      weight: Position of the operand that is a weight, if the step is a site.
      kind: Kind of site, marks included, or ``""``.
      custom: Whether the step lies inside a function with its own derivative.
    """

    eqn: Any
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    path: tuple[int, ...]
    children: tuple["Frame", ...] = ()
    weight: int | None = None
    kind: str = ""
    custom: bool = False

    @property
    def weight_value(self) -> Value:
        """The weight of a site.

        Raises:
          ValueError: If the step is not a site.
        """
        if self.weight is None:
            raise ValueError(f"{self.eqn.primitive.name} at {self.path} is no site")
        return self.inputs[self.weight]

    @property
    def label(self) -> str | None:
        """What its uses are counted under: its first leaf, or the name of a mark.

        ``None`` if the step is neither a mark nor a site of a parameter leaf.
        """
        if self.kind == "mark":
            return self.eqn.params["name"]
        if self.weight is None or not self.weight_value.is_weight:
            return None
        return self.weight_value.leaves[0]


@dataclasses.dataclass(eq=False)
class Frame:
    """A straight-line piece of program: the whole, a loop body, or a branch.

    Attributes:
      kind: ``"program"``, ``"scan"``, ``"while"``, ``"while_cond"``, ``"branch"``
        or ``"shard_map"``.
      parent: The frame its equation stands in.
      trips: How often it runs per run of its parent; ``None`` if not known.
      inputs: Values bound on entry.
      outputs: Values returned.
      steps: Its steps, in program order.
      num_consts: Loop-invariant inputs come first.
      num_carry: Then the carried ones; for a scan the rest are slices.
      path: Where its equation stands.
      first: The first value computed in it, by number; equal ones are computed once.
    """

    kind: str
    parent: "Frame | None"
    trips: int | None
    path: tuple[int, ...]
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    steps: list[Step] = dataclasses.field(default_factory=list)
    num_consts: int = 0
    num_carry: int = 0
    step: Step | None = None
    first: dict[int, Value] = dataclasses.field(default_factory=dict)

    @property
    def loops(self) -> tuple["Frame", ...]:
        """The loop frames around (and including) this one, outermost first."""
        outer = self.parent.loops if self.parent is not None else ()
        looped = self.kind in ("scan", "while", "while_cond")
        return (*outer, self) if looped else outer


@dataclasses.dataclass(eq=False)
class Program:
    """The result of the walk.

    Attributes:
      frame: The outermost frame.
      leaves: The entry value of every parameter leaf, by name.
      sites: Steps in which a weight meets an activation, and marks, in program order.
      constants: Arrays captured in closures that are used like weights.
      used: Names of leaves that reach any equation or output.
      opaque: Equations that take a weight and that the walk does not look into.
      consts: Values of the arrays the function closed over.
      lost: Lines about weights whose uses could not be followed.
      lost_marks: Marks that are no sites, and why.
    """

    frame: Frame
    leaves: dict[str, Value]
    sites: list[Step]
    constants: list[Step]
    used: set[str]
    opaque: list[Step]
    consts: list[Value] = dataclasses.field(default_factory=list)
    lost: list[str] = dataclasses.field(default_factory=list)
    lost_marks: list[str] = dataclasses.field(default_factory=list)
