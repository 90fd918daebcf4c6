"""How a weight is quantized, as one hashable value."""

import dataclasses
from typing import Literal

from pallas_kernels import bits as layouts

__all__ = ["QuantConfig"]

_ZERO_POINTS = ("int", "float", "int_incl_zero")
_SCALE_DTYPES = ("float32", "float16", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """How a weight is quantized. Hashable, so it may be a static argument.

    Attributes:
      bits: Width of a code: 2, 3, 4 or 8.
      group_size: Weights along the (flattened) contraction axes that share a scale;
        ``None`` for one group per output channel.
      per_tensor: One scale for the whole weight (for each entry of a stack).
      symmetric: No zero point; else asymmetric.
      zero_point: How an asymmetric group finds its zero point: ``"int"`` (of MBQ and
        AWQ, the default for parity), ``"int_incl_zero"`` or ``"float"``.
      scale_dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``. The scale is rounded
        first, and the codes are computed with the rounded scale. A ``"float"`` zero
        point has the same dtype.

    Raises:
      ValueError: If a field is out of range, or two contradict each other.

    Examples:
      >>> QuantConfig(bits=3, group_size=128).granularity
      'group'
    """

    bits: int
    group_size: int | None = None
    per_tensor: bool = False
    symmetric: bool = False
    zero_point: Literal["int", "float", "int_incl_zero"] = "int"
    scale_dtype: Literal["float32", "float16", "bfloat16"] = "float32"

    def __post_init__(self):
        """Checks the fields."""
        if self.bits not in layouts.WIDTHS:
            raise ValueError(f"bits must be one of {layouts.WIDTHS}, got {self.bits}")
        if self.group_size is not None and self.group_size < 1:
            raise ValueError(f"group_size must be positive, got {self.group_size}")
        if self.per_tensor and self.group_size is not None:
            raise ValueError(
                f"per_tensor has one scale; group_size={self.group_size} contradicts it"
            )
        if self.zero_point not in _ZERO_POINTS:
            raise ValueError(
                f"zero_point must be one of {_ZERO_POINTS}, got {self.zero_point!r}"
            )
        if self.symmetric and self.zero_point != "int":
            raise ValueError(
                f"symmetric has no zero point; zero_point={self.zero_point!r} "
                "contradicts it"
            )
        if self.scale_dtype not in _SCALE_DTYPES:
            raise ValueError(
                f"scale_dtype must be one of {_SCALE_DTYPES}, got {self.scale_dtype!r}"
            )

    @property
    def granularity(self) -> str:
        """``"tensor"``, ``"channel"`` or ``"group"``: what shares a scale."""
        if self.per_tensor:
            return "tensor"
        return "channel" if self.group_size is None else "group"
