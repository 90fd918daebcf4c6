"""MiBB: MAC-i.i.d. bit-bias faults of a layer's outputs.

An upset in a processing element adds one wrong bit to an output. With a probability
``p_m`` per multiplication and n_mac multiplications per output, an output of a tensor
in fixed point (`jeff.faults.fixed_point`: step, range S) becomes::

    p_l = 1 - (1 - p_m)^n_mac              theta ~ Bernoulli(p_l)
    e ~ Uniform{0 .. Q-1}                  s ~ Uniform{-1, +1}
    y'  = clip(q(y) + theta * s * 2^e * step, low, high)

independently for every element; low and high are where the codes of the format end,
-S and +S as a rule. Infinities and NaN pass unchanged. So the damage grows with the
layer's range and with its number of multiplications. `macs=1` is the i.i.d. bit-bias
model (iBB), whose rate is per output.

A fault that persists over `accumulations` sequential uses of the element (an adder
tree, `conv_macs`) has ``A = min(Q-1, floor(log2 n))`` more low bits::

    p_l -> min(1, p_l (Q + A) / Q)         e ~ Uniform{-A .. Q-1}
    bias = step * floor(n_eff * s * 2^e)   n_eff = n, or Binomial(n, activation_rate)

References:
  FTT-NAS, arXiv 2003.10375, section on feature faults; variants as in its program.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import base
from jeff.faults import fixed_point, gradients, masks, rates
from jeff.faults.mac_count import check_count, mac_fault_rate
from jeff.faults.method import checked
from jeff.faults.model import fault_model
from jeff.prng import named_key
from pallas_kernels.threefry import unrolled

__all__ = ["BitBias", "mibb"]


class BitBias(NamedTuple):
    """Sampled faults.

    Attributes:
      hit: bool of the array's shape.
      bias: float32 of the array's shape: what is added, in steps; 0 without a hit.
      overflow: bool ``[]``: the sampler's buffer was too short, or a traced rate above
        `max_rate`; hits are missing.
    """

    hit: jax.Array
    bias: jax.Array
    overflow: jax.Array


def mibb(
    rate: Any,
    *,
    macs: int = 1,
    bits: int = 8,
    accumulations: int = 1,
    activation_rate: float | None = None,
    tile: tuple[int, ...] | None = None,
    max_value_mode: bool = False,
    saturate: str = "paper",
    gradient: str = "straight_through",
    reference_quirks: bool = False,
    method: str | None = None,
    max_rate: float | None = None,
) -> base.FaultModel:
    """MAC-i.i.d. bit-bias faults.

    Args:
      rate: ``p_m``, probability in [0, 1] per multiplication; may be traced.
      macs: Multiplications per output, as of a `Site` or of `conv_macs`.
      bits: Q, width of the fixed-point format.
      accumulations: How often a faulty element is used per output.
      activation_rate: Probability that a use is disturbed; ``None``: every one is.
      tile: Period of the fault positions along the trailing axes of the array, for
        an array of processing elements used over and over: ``(h, w, c)`` for maps
        ``[n, h, w, c]``, ``(c, h, w)`` for maps ``[n, c, h, w]``. Leading axes have
        positions of their own, and biases never repeat.
      max_value_mode: Every bias is +S.
      saturate: Where codes end, see `to_fixed_point`.
      gradient: One of `gradients.GRADIENTS`; ``"straight_through"`` still stops where
        the sum has left the range.
      reference_quirks: Take the rate ``1 / int(1 / p_l)`` (at least ``p_l``, and 1 for
        every ``p_l > 0.5``), as the original program does. The rate must be known.
      method: Sampler, see `masks.mask`.
      max_rate: Largest ``p_m`` of a sweep, known.

    Returns:
      A `FaultModel` whose ``sample(key, like)`` gives `BitBias`. Its `inject` rounds
      the whole array to fixed point; at rate 0 that is all it does.

    Raises:
      TypeError: If `rate` is no real number; at use, if the array is not floating.
      ValueError: If an argument is out of its range, or `rate` above `max_rate`.

    Examples:
      >>> model, y = mibb(1.0), jnp.array([0.5, -1.0])
      >>> faults = model.sample(jax.random.key(0), y)
      >>> print(faults.bias, jax.jit(model.inject)(faults, y))
      [-8. 32.] [ 0.4375 -0.75  ]
    """
    for name, count in (("macs", macs), ("accumulations", accumulations)):
        check_count(name, count)
    rates.check_choice("gradient", gradient, gradients.GRADIENTS)
    lowest, highest = fixed_point.code_limits(bits, saturate)
    if activation_rate is not None:
        activation_rate = float(rates.checked_rate("activation_rate", activation_rate))
    for period in tile or ():
        check_count("tile", period)
    extra = min(bits - 1, int(accumulations).bit_length() - 1)  # floor(log2 n)

    def per_output(p):
        p = mac_fault_rate(p, macs)
        if extra:
            least = np.minimum if rates.is_known(p) else jnp.minimum
            p = least(p * np.float32((bits + extra) / bits), np.float32(1.0))
        if reference_quirks:
            p = rates.whole_inverse(p)
        return p

    p_output, top = _bounded(checked(rate, max_rate), per_output)

    biases = _Biases(bits, extra, accumulations, activation_rate)

    def sample_each(keys, likes):
        for like in likes:
            rates.check_floating("like", like)
        shapes = [like.shape for like in likes]
        if tile is not None:
            return _tiled(keys, p_output, shapes, tile, biases, method, top)
        drawn = masks.marked_each(
            keys, p_output, shapes, biases, method=method, max_rate=top
        )
        return [BitBias(mask.hit, bias, mask.overflow) for mask, bias in drawn]

    def inject(faults, y):
        rates.check_floating("y", y)
        form = fixed_point.fixed_point_format(y, bits=bits)
        clean = fixed_point.to_fixed_point(y, bits=bits, saturate=saturate)
        scale = form.full_scale
        bias = scale if max_value_mode else faults.bias * form.step
        total = clean.astype(jnp.float32) + bias
        low, high = lowest * form.step, highest * form.step
        value = jnp.clip(total, low, high).astype(y.dtype)
        hit = faults.hit & jnp.isfinite(y)
        inside = (total >= low) & (total <= high)
        passes = gradients.passing(hit, gradient) & inside
        faulty = gradients.straight_through(value, clean, passes)
        return jnp.where(hit, faulty, clean)

    return fault_model(sample_each, inject)


def _bounded(rate, per_output):
    """The rate per output and its bound, from the rate per multiplication.

    Traced, both are not rounded alike: the one is brought below the other where, and
    only where, the rate itself is within its bound.
    """
    value = per_output(rate.value)
    if rate.top is None:
        return value, None
    top = np.float32(per_output(np.float32(rate.top)))
    if not rates.is_known(value):
        beyond = jnp.maximum(value, np.nextafter(top, np.float32(2.0)))
        within = rate.value <= np.float32(rate.top)
        value = jnp.where(within, jnp.minimum(value, top), beyond)
    return value, float(top)


@dataclasses.dataclass(frozen=True)
class _Biases:
    """Draws biases in steps, float32; equal settings share compiled programs."""

    bits: int
    extra: int
    accumulations: int
    activation_rate: float | None

    def __call__(self, key, shape):
        span = self.bits + self.extra
        word = jax.random.bits(unrolled(key), shape, jnp.uint32)
        # A remainder of 32 bits by at most 31 is uniform to 1e-8.
        exponent = ((word >> jnp.uint32(1)) % jnp.uint32(span)).astype(jnp.int32)
        power = jnp.ldexp(jnp.ones(shape, jnp.float32), exponent - self.extra)
        bias = jnp.where((word & jnp.uint32(1)) == 1, power, -power)
        if self.activation_rate is None:
            one = self.accumulations == 1
            return bias if one else jnp.floor(self.accumulations * bias)
        uses = jax.random.binomial(
            named_key(key, "uses"),
            float(self.accumulations),
            self.activation_rate,
            shape,
        )
        return jnp.floor(uses.astype(jnp.float32) * bias)


def _tiled(keys, rate, shapes, tile, biases, method, top):
    """Faults whose positions repeat along the trailing axes."""
    for shape in shapes:
        if len(tile) > len(shape):
            raise ValueError(f"tile {tile} has more axes than the array, {shape}")
    split = [len(shape) - len(tile) for shape in shapes]
    tiles = [shape[:n] + tile for shape, n in zip(shapes, split, strict=True)]
    faults = []
    for key, shape, n, (mask, _) in zip(
        keys,
        shapes,
        split,
        masks.marked_each(keys, rate, tiles, None, method=method, max_rate=top),
        strict=True,
    ):
        repeats = [-(-a // t) for a, t in zip(shape[n:], tile, strict=True)]
        hit = jnp.tile(mask.hit, [1] * n + repeats)
        hit = hit[(...,) + tuple(slice(a) for a in shape[n:])]
        bias = jnp.where(hit, biases(named_key(key, "value"), shape), 0.0)
        faults.append(BitBias(hit, bias, mask.overflow))
    return faults
