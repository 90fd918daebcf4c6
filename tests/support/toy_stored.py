"""A StoredWeight with every view: int8 codes and scales shared along some axes."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff import base, tree

__all__ = ["Toy", "store", "store_sites"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Toy(base.StoredWeight):
    """``integers * scale``; both have the rank and axis order of the dense weight.

    Attributes:
      integers: int8, the dense shape.
      scale: float32; size 1 along axes that share a scale, else the dense size.
      dense_dtype: Static. Dtype it decodes to.
    """

    integers: jax.Array
    scale: jax.Array
    dense_dtype: Any = dataclasses.field(metadata={"static": True})

    @property
    def shape(self):
        """Shape of the dense weight."""
        return tuple(self.integers.shape)

    @property
    def dtype(self):
        """Dtype of the dense weight."""
        return self.dense_dtype

    def decode(self):
        """The dense weight."""
        dense = self.integers.astype(jnp.float32) * self.scale
        return dense.astype(self.dense_dtype)

    def codes(self):
        """The stored integers."""
        return self.integers

    def with_codes(self, codes):
        """The same scales with other integers."""
        return dataclasses.replace(self, integers=codes)

    def can_index(self, axis):
        """Whether each entry along `axis` has its own scale."""
        return self.scale.shape[axis] == self.integers.shape[axis]

    def transpose(self, permutation):
        """Both arrays transposed."""
        return self._both(lambda a: jnp.transpose(a, permutation))

    def reshape(self, shape):
        """Both arrays reshaped, unless shared and unshared axes would be mixed."""
        scale = _scale_shape(self.shape, self.scale.shape, tuple(shape))
        if scale is None:
            return None
        return dataclasses.replace(
            self,
            integers=self.integers.reshape(shape),
            scale=self.scale.reshape(scale),
        )

    def slice(self, starts, limits):
        """Both arrays sliced; a shared scale stays."""
        index = tuple(slice(a, b) for a, b in zip(starts, limits, strict=True))
        kept = tuple(
            i if n > 1 else slice(None)
            for i, n in zip(index, self.scale.shape, strict=True)
        )
        return dataclasses.replace(
            self, integers=self.integers[index], scale=self.scale[kept]
        )

    def take(self, indices, axis):
        """Entries along an axis whose entries have their own scales."""
        if not self.can_index(axis):
            return None
        return self._both(lambda a: jnp.take(a, indices, axis))

    def astype(self, dtype):
        """The same codes decoding to another dtype, if that loses nothing more."""
        if self.dense_dtype not in (jnp.float32, dtype):
            return None
        return dataclasses.replace(self, dense_dtype=jnp.dtype(dtype))

    def _both(self, fn):
        return dataclasses.replace(
            self, integers=fn(self.integers), scale=fn(self.scale)
        )


def store(w: jax.Array, shared: tuple[int, ...] = (-2,)) -> Toy:
    """`w` in at most 127 steps, with one scale along the `shared` axes.

    Scales are powers of two, so that decoding is exact and fusing it into a sum (a
    fused multiply-add) changes no bit. Made by NumPy: JAX would compile a program for
    each shape.
    """
    w32 = np.asarray(w).astype(np.float32)
    axes = tuple(a % w.ndim for a in shared)
    largest = np.abs(w32).max(axis=axes, keepdims=True)
    _, exponent = np.frexp(largest / np.float32(127) + np.float32(1e-8))
    scale = np.ldexp(np.float32(1), exponent)
    integers = np.round(w32 / scale).astype(np.int8)
    return Toy(jnp.asarray(integers), jnp.asarray(scale), w.dtype)


def store_sites(params: Any, sites: Any, kinds: tuple[str, ...] = ()) -> Any:
    """`params` with every floating leaf of the sites stored, scales shared along K.

    Args:
      params: Params tree.
      sites: From `jeff.sites`.
      kinds: Kinds of sites to look at; all if empty.
    """
    shared = {}
    for site in sites:
        if not kinds or site.kind in kinds:
            for name in site.leaves:
                shared.setdefault(name, None)
            for part in site.parts:
                shared[part.leaf] = part.contract_axes

    def replace(name, leaf):
        if name not in shared or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        axes = shared[name]
        return store(leaf, (leaf.ndim - 1,) if axes is None else axes)

    return tree.map_with_path(replace, params)


def _scale_shape(old, scale, new):
    """Shape of the scales after ``old -> new``, or ``None``."""
    out: list[int] = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = [i] if i < len(old) else [], [j] if j < len(new) else []
        i, j = i + len(a), j + len(b)
        while math.prod(old[k] for k in a) != math.prod(new[k] for k in b):
            if math.prod(old[k] for k in a) < math.prod(new[k] for k in b):
                a, i = [*a, i], i + 1
            else:
                b, j = [*b, j], j + 1
        shared = all(scale[k] == 1 for k in a)
        if not shared and any(scale[k] != old[k] for k in a):
            return None
        out += [1 if shared else new[k] for k in b]
    return tuple(out)
