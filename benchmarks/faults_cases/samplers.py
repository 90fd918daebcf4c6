"""Time of each sampler by rate: flip words of as many int8 weights as ResNet-20 has."""

import jax

from jeff.evaluate import Measure
from jeff.faults import bit_words
from pallas_kernels.dequant_matmul import timing

__all__ = ["RATES", "sampler_measures"]

RATES = (1e-5, 1e-4, 1e-3, 1e-2)
_METHODS = ("sparse", "bit_plane", "dense")
_CALLS = 4


def sampler_measures(words: int, repeats: int) -> list[Measure]:
    """Times all methods at all rates they reach, in turns.

    Args:
      words: Number of int8 weights.
      repeats: Timed runs.

    Returns:
      ``sampler_seconds.METHOD.RATE``, ``ratio.dense_sampler.RATE``, dense over sparse.
    """
    programs = {}
    for rate in RATES:
        for method in _METHODS:
            program = _program(words, rate, method)
            if program is not None:
                programs[f"{method}.{rate:g}"] = program
    seconds = timing.times(programs, repeats)
    found = []
    for name, samples in seconds.items():
        s = timing.spread(samples)
        ends = {"low": s.low, "high": s.high, "trials": s.trials}
        found.append(Measure(f"sampler_seconds.{name}", s.median, "s", **ends))
    for rate in RATES:
        ratio = seconds[f"dense.{rate:g}"] / seconds[f"sparse.{rate:g}"]
        s = timing.spread(ratio)
        ends = {"low": s.low, "high": s.high, "trials": s.trials}
        found.append(Measure(f"ratio.dense_sampler.{rate:g}", s.median, "", **ends))
    return found


def _program(words: int, rate: float, method: str) -> timing.Program | None:
    @jax.jit
    def draw(key):
        return bit_words(key, rate, (words,), bits=8, method=method)

    keys = jax.random.split(jax.random.key(0), _CALLS)
    try:
        jax.block_until_ready(draw(keys[0]))
    except ValueError:  # the method does not reach the rate
        return None
    return timing.Program(
        first=lambda: None,
        run=lambda: jax.block_until_ready([draw(key) for key in keys]),
        products=_CALLS,
        sets=1,
        nbytes=0,
    )
