"""`QTensor`: a weight kept as packed codes with scales and zero points."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import core, lax

from jeff import base
from jeff.quantize import affine, checks, groups, views
from jeff.quantize.config import QuantConfig, check_config
from pallas_kernels import bits as layouts

__all__ = ["QTensor", "quantize"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class QTensor(base.StoredWeight):
    """A quantized weight, ``(codes - zero) * scale``, its codes really packed.

    All arrays have the rank and the axis order of the dense weight. Static fields count
    axes from the end, and sizes are read off the arrays, so that JAX may take entries
    of leading axes (``scan``, ``vmap``, ``tree.map(lambda a: a[i])``) or shards of any
    axis and what is left is a correct weight.

    Made by `quantize`, or from codes by `from_codes`.

    Attributes:
      packed: uint32; the dense shape, with the packed axis of size
        ``(n + pad) * bits / 32`` in the layout of `pallas_kernels.bits`.
      scale: The dense shape with every axis shrunk to its number of groups; floating.
      zero: Zero points, of the shape of `scale`: uint8, or floating; ``None`` where the
        codes are symmetric about ``2^(bits-1)``.
      bits: Static. Width of a code: 2, 3, 4 or 8.
      stride: Static. S of the packed layout.
      contract: Static. Axes that a product sums over, negative, outermost first; the
        last one is the packed axis.
      pad: Static. Codes at the end of the packed axis that stand for nothing.
      dense_dtype: Static. Dtype that the weight decodes to.

    Examples:
      >>> layers = jax.random.normal(jax.random.key(0), (12, 64, 8))
      >>> q = quantize(layers, QuantConfig(bits=3, group_size=32))
      >>> q
      QTensor(float32[12, 64, 8], 3 bits, scales float32[12, 2, 8])
      >>> jax.tree.map(lambda a: a[5], q)  # as `jax.lax.scan` does
      QTensor(float32[64, 8], 3 bits, scales float32[2, 8])
      >>> q.codes().shape, q.packed.shape, q.nbytes  # 3 words for 32 codes
      ((12, 64, 8), (12, 6, 8), 3264)
      >>> q.transpose((0, 2, 1)).shape, q.slice((0, 0, 0), (12, 64, 4)).shape
      ((12, 8, 64), (12, 64, 4))
      >>> q.reshape((12, 512)) is None  # would tear groups: decode first
      True
    """

    packed: jax.Array
    scale: jax.Array
    zero: jax.Array | None
    bits: int = dataclasses.field(metadata={"static": True})
    stride: int = dataclasses.field(metadata={"static": True})
    contract: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    pad: int = dataclasses.field(metadata={"static": True})
    dense_dtype: Any = dataclasses.field(metadata={"static": True})

    @classmethod
    def from_codes(
        cls,
        codes: jax.Array,
        scale: jax.Array,
        zero: jax.Array | None,
        *,
        bits: int,
        contract_axes: Sequence[int] = (-2,),
        stride: int | None = None,
        dtype: Any = jnp.float32,
    ) -> "QTensor":
        """Packs codes that some quantizer made.

        Args:
          codes: Unsigned integers of the dense shape.
          scale: Floating, of the rank of `codes`; each size divides that of `codes`.
          zero: uint8 or floating, of the shape of `scale`, or ``None``.
          bits: Width of a code: 2, 3, 4 or 8.
          contract_axes: Axes that a product sums over; packed along the last one.
          stride: S of the packed layout; ``None`` takes the largest that needs no more
            padding than a multiple of 32.
          dtype: Dtype to decode to.

        Returns:
          The weight.

        Raises:
          ValueError: If the shapes do not fit each other or an axis is out of range.

        Examples:
          >>> codes = jnp.arange(32, dtype=jnp.uint8).reshape(32, 1) % 8
          >>> w = QTensor.from_codes(codes, jnp.ones((1, 1)), None, bits=3)
          >>> print(w.shape, w.packed.shape, w.decode()[:5, 0])
          (32, 1) (3, 1) [-4. -3. -2. -1.  0.]
        """
        contract = groups.normalize_axes(contract_axes, codes.ndim, "contract_axes")
        fits = len(scale.shape) == codes.ndim and all(
            g > 0 and n % g == 0 for n, g in zip(codes.shape, scale.shape, strict=True)
        )
        if not contract or not fits:
            raise ValueError(
                f"scale of shape {scale.shape} does not divide codes of shape "
                f"{codes.shape} contracted over {contract}"
            )
        if zero is not None and zero.shape != scale.shape:
            raise ValueError(f"zero has shape {zero.shape}, scale {scale.shape}")
        size = codes.shape[contract[-1]]
        if stride is None:
            stride = layouts.default_stride(size + -size % 32)
        pad = -size % (32 * stride)
        if pad:
            widths = [(0, 0)] * codes.ndim
            widths[contract[-1]] = (0, pad)
            codes = jnp.pad(codes, widths)
        return cls(
            packed=layouts.pack(codes, bits=bits, axis=contract[-1], stride=stride),
            scale=scale,
            zero=zero,
            bits=bits,
            stride=stride,
            contract=contract,
            pad=pad,
            dense_dtype=jnp.dtype(dtype),
        )

    def __repr__(self) -> str:
        """What it is, without its numbers."""
        if not hasattr(self.packed, "shape"):  # a tree of specs, not of arrays
            return f"QTensor({self.packed}, {self.scale}, {self.zero})"
        return (
            f"QTensor({self.dtype}{list(self.shape)}, {self.bits} bits, "
            f"scales {self.scale.dtype}{list(self.scale.shape)})"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense weight."""
        shape = list(self.packed.shape)
        shape[self.contract[-1]] = shape[self.contract[-1]] * 32 // self.bits - self.pad
        return tuple(shape)

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the dense weight."""
        return self.dense_dtype

    @property
    def bits_per_weight(self) -> float:
        """Bits really held per weight: codes, padding, scales and zero points.

        Examples:
          >>> w = quantize(jnp.ones((512, 8)), QuantConfig(bits=3, group_size=128,
          ...                                              scale_dtype="float16"))
          >>> w.bits_per_weight  # 3 + (16 + 8) / 128
          3.1875
        """
        return 8 * self.nbytes / self.size

    def decode(self) -> jax.Array:
        """The dense weight, computed in float32 and cast to `dtype`."""
        return _decode(self)

    @property
    def code_bits(self) -> int:
        """How many low bits of a code are stored: `bits`."""
        return self.bits

    def codes(self) -> jax.Array:
        """The unsigned codes, uint8, of the dense shape."""
        axis = self.contract[-1]
        codes = layouts.unpack(
            self.packed, bits=self.bits, axis=axis, stride=self.stride
        )
        return lax.slice_in_dim(codes, 0, self.shape[axis], axis=axis)

    def with_codes(self, codes: jax.Array) -> "QTensor":
        """The same weight with other codes, under the same scales.

        Args:
          codes: Unsigned integers of the dense shape, below ``2^bits``.

        Returns:
          The weight.

        Raises:
          ValueError: If the shape differs.
        """
        if codes.shape != self.shape:
            raise ValueError(f"codes have shape {codes.shape}, expected {self.shape}")
        return QTensor.from_codes(
            codes, self.scale, self.zero, bits=self.bits, stride=self.stride,
            contract_axes=self.contract, dtype=self.dtype,
        )  # fmt: skip

    def can_index(self, axis: int) -> bool:
        """True for stack and output axes of which each entry has its own scales.

        Args:
          axis: An axis, from either side.

        Returns:
          Whether the arrays may be indexed along it like the dense weight.
        """
        axis = axis % self.ndim
        inside = axis - self.ndim in self.contract
        return not inside and self.scale.shape[axis] == self.shape[axis]

    def transpose(self, permutation: Sequence[int]) -> "QTensor":
        """The weight with axes permuted: always possible.

        Args:
          permutation: Old axis of every new axis.

        Returns:
          The weight of shape ``[shape[p] for p in permutation]``.

        Raises:
          ValueError: If it is no permutation of the axes.
        """
        return views.transpose(self, permutation)

    def reshape(self, shape: Sequence[int]) -> "QTensor | None":
        """The weight with axes split or merged, of one kind each.

        Args:
          shape: The new shape, of the same size.

        Returns:
          The weight; ``None`` if a group or a tile of codes would be torn, or axes of
          different kinds (contracted or not) merged.

        Raises:
          ValueError: If the size differs.
        """
        return views.reshape(self, shape)

    def slice(self, starts: Sequence[int], limits: Sequence[int]) -> "QTensor | None":
        """The part ``[starts, limits)``.

        Args:
          starts: First entry along every axis.
          limits: Entry after the last along every axis.

        Returns:
          The weight; ``None`` if a group is cut, the part is empty, or it starts
          inside a tile of packed codes.
        """
        return views.slice_(self, starts, limits)

    def take(self, indices: jax.Array, axis: int) -> "QTensor | None":
        """Entries along one axis, which is replaced by the axes of `indices`.

        Args:
          indices: Integers of any shape; out of range as in `jnp.take`.
          axis: A stack or output axis.

        Returns:
          The weight; ``None`` along a contraction axis, or where groups cross the axis.
        """
        return views.take(self, indices, axis)

    def astype(self, dtype: Any) -> "QTensor | None":
        """The weight decoding to another dtype.

        Args:
          dtype: A floating dtype.

        Returns:
          The weight; ``None`` if `dtype` is not floating, or if the weight's is narrow
          already: values rounded once are not what decoding to a wider one would give.
        """
        dtype = jnp.dtype(dtype)
        exact = self.dtype in (jnp.float32, dtype)
        if not exact or not jnp.issubdtype(dtype, jnp.floating):
            return None
        return dataclasses.replace(self, dense_dtype=dtype)


def quantize(
    w: jax.Array,
    config: QuantConfig,
    *,
    contract_axes: Sequence[int] = (-2,),
    stack_axes: Sequence[int] = (),
    stride: int | None = None,
) -> QTensor:
    """Quantizes a weight, rounding to nearest.

    Args:
      w: Weight of any shape, floating.
      config: The quantizer.
      contract_axes: Axes that a product sums over, in the row-major order along which
        groups run; ``(-2,)`` is right for ``x @ w``. Packed along the last one.
      stack_axes: Axes of which each entry is a weight of its own (layers, experts);
        they matter only if `config` is per tensor.
      stride: S of the packed layout; ``None`` picks. A smaller one lets the packed axis
        be sharded more finely, in units of ``32 * stride``.

    Returns:
      The stored weight, of the shape and dtype of `w`.

    Raises:
      ValueError: If the group size does not divide the contraction axes, or, outside
        of a trace, if `w` or its scales are not finite.
      TypeError: If `w` is not a floating array, `config` is no `QuantConfig`, or axes
        are no sequences of integers.

    Examples:
      >>> w = jax.random.normal(jax.random.key(0), (256, 64))
      >>> q = quantize(w, QuantConfig(bits=3, group_size=128))
      >>> q
      QTensor(float32[256, 64], 3 bits, scales float32[2, 64])
      >>> q.packed.shape, q.nbytes, w.nbytes
      ((24, 64), 6784, 65536)
      >>> bool(abs(q.decode() - w).max() < 0.55)
      True
    """
    check_config(config)
    w = affine.check_weight(w)
    contract = groups.normalize_axes(contract_axes, w.ndim, "contract_axes")
    stack = groups.normalize_axes(stack_axes, w.ndim, "stack_axes")
    if stride is not None:
        stride = checks.integer(stride, "stride")
    q = _quantize(w, config, contract, stack, stride)
    if not isinstance(q.scale, core.Tracer):
        # The range of a group with a NaN or an infinity is not finite either.
        bad = int(jnp.sum(~jnp.isfinite(q.scale)))
        if bad:
            odd = int(jnp.sum(~jnp.isfinite(w)))
            what = f"{odd} values of w are NaN or infinite" if odd else "w is too large"
            raise ValueError(
                f"{what}: {bad} of {q.scale.size} scales are not finite in "
                f"{config.scale_dtype}"
            )
    return q


@jax.jit
def _decode(q: QTensor) -> jax.Array:
    return affine.decode(q.codes(), q.scale, q.zero, bits=q.bits, dtype=q.dtype)


def _quantize_traced(w, config, contract_axes, stack_axes, stride) -> QTensor:
    scale, zero = affine.affine_parameters(
        w, config, contract_axes=contract_axes, stack_axes=stack_axes
    )
    codes = affine.encode(w, scale, zero, bits=config.bits)
    return QTensor.from_codes(
        codes, scale, zero, bits=config.bits, stride=stride,
        contract_axes=contract_axes, dtype=w.dtype,
    )  # fmt: skip


_quantize = jax.jit(_quantize_traced, static_argnums=(1, 2, 3, 4))
