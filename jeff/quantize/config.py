"""How a weight is quantized, as one hashable value."""

import dataclasses
from typing import Any, Literal

from jeff.quantize import checks
from pallas_kernels import bits as layouts

__all__ = ["QuantConfig", "check_config"]

_ZERO_POINTS = ("int", "float", "int_incl_zero")
_SCALE_DTYPES = ("float32", "float16", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """How a weight is quantized. Hashable, so it may be a static argument.

    The default zero point, ``"int"``, is that of MBQ and AWQ with its defect: a group
    whose weights are all positive decodes into ``[0, max - min]``, one whose weights
    are all negative into ``[min - max, 0]``, and what lies beyond is clipped.
    ``"int_incl_zero"`` extends the range of such a group to 0 and equals ``"int"`` for
    every other; ``"float"`` and symmetric codes do not clip either.

    Attributes:
      bits: Width of a code: 2, 3, 4 or 8.
      group_size: Weights along the (flattened) contraction axes that share a scale;
        ``None`` for one group per output channel.
      per_tensor: One scale for the whole weight (for each entry of a stack).
      symmetric: No zero point; else asymmetric.
      zero_point: How an asymmetric group finds its zero point: ``"int"`` (clips groups
        of one sign, as said above), ``"int_incl_zero"`` or ``"float"``.
      scale_dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``. The scale is rounded
        first, and the codes are computed with the rounded scale. A ``"float"`` zero
        point has the same dtype.

    Raises:
      TypeError: If a field is of another type; ``bits=4.0`` is.
      ValueError: If a field is out of range, or two contradict each other.

    Examples:
      >>> QuantConfig(bits=3, group_size=128).granularity
      'group'

      A group of weights of one sign, in all the forms that a zero point has:

      >>> import jax.numpy as jnp
      >>> from jeff.quantize import QuantConfig, quantize
      >>> w = jnp.array([[1.5], [2.0], [2.5], [3.0]])
      >>> for zero_point in ("int", "int_incl_zero", "float"):
      ...     config = QuantConfig(bits=2, zero_point=zero_point)
      ...     print(zero_point, quantize(w, config).decode()[:, 0])
      int [1.5 1.5 1.5 1.5]
      int_incl_zero [2. 2. 2. 3.]
      float [1.5 2.  2.5 3. ]

    References:
      MBQ, arXiv 2412.19509, equations 1 and 2; the clamped integer zero point is that
      of its program and of AWQ's (see `jeff.quantize.affine`).
    """

    bits: int
    group_size: int | None = None
    per_tensor: bool = False
    symmetric: bool = False
    zero_point: Literal["int", "float", "int_incl_zero"] = "int"
    scale_dtype: Literal["float32", "float16", "bfloat16"] = "float32"

    def __post_init__(self):
        """Checks the fields."""
        object.__setattr__(self, "bits", checks.integer(self.bits, "bits"))
        if self.bits not in layouts.WIDTHS:
            raise ValueError(f"bits must be one of {layouts.WIDTHS}, got {self.bits}")
        if self.group_size is not None:
            size = checks.integer(self.group_size, "group_size")
            object.__setattr__(self, "group_size", size)
            if size < 1:
                raise ValueError(f"group_size must be positive, got {size}")
        checks.flag(self.per_tensor, "per_tensor")
        checks.flag(self.symmetric, "symmetric")
        checks.word(self.zero_point, "zero_point", _ZERO_POINTS)
        checks.word(self.scale_dtype, "scale_dtype", _SCALE_DTYPES)
        if self.per_tensor and self.group_size is not None:
            raise ValueError(
                f"per_tensor has one scale; group_size={self.group_size} contradicts it"
            )
        if self.symmetric and self.zero_point != "int":
            raise ValueError(
                f"symmetric has no zero point; zero_point={self.zero_point!r} "
                "contradicts it"
            )

    @property
    def granularity(self) -> str:
        """What shares a scale: ``"tensor"``, ``"channel"`` or ``"group"``."""
        if self.per_tensor:
            return "tensor"
        return "channel" if self.group_size is None else "group"


def check_config(config: Any) -> None:
    """Refuses what is no `QuantConfig`, such as the number of bits alone.

    Args:
      config: What was given as the quantizer.

    Raises:
      TypeError: If it is anything else.

    Examples:
      >>> check_config(4)
      Traceback (most recent call last):
        ...
      TypeError: config must be a QuantConfig, got 4
    """
    if not isinstance(config, QuantConfig):
        raise TypeError(f"config must be a QuantConfig, got {config!r}")
