"""The compiled programs that are timed: tokens one after another, and prompts."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jeff import base, program
from jeff.models import decoder
from jeff.models.decode_bench.workload import Scheme
from jeff.models.decoder.config import DecoderConfig
from jeff.quantize import QTensor, fake_quant_activations, fused, integer_dots
from pallas_kernels import timing

__all__ = ["Compiled", "decoding", "difference", "prompt", "rules"]


class Compiled(NamedTuple):
    """A compiled program, ready to be timed.

    Attributes:
      program: What `timing.times` takes; a product of it is a token of every sequence,
        or a prompt.
      seconds: Time of lowering and compilation.
      peak: Bytes of arguments, results and temporaries together.
    """

    program: timing.Program
    seconds: float
    peak: int


def rules(scheme: Scheme) -> tuple[base.Rule, ...]:
    """The rules that a scheme's weights are multiplied by.

    Args:
      scheme: How weights are kept.
    """
    if scheme.bits is None:
        return ()
    if scheme.activation_bits is None:
        return (fused,)
    return (integer_dots(scheme.activation_bits),)


def decoding(
    params: Mapping[str, Any],
    scheme: Scheme,
    *,
    config: DecoderConfig,
    batch: int,
    context: int,
    steps: int,
    repeats: int,
) -> Compiled:
    """Greedy decoding of `steps` tokens from a cache of random keys and values.

    The parameters are arguments of the compiled program, never constants in it. On a
    GPU all steps are one compiled loop; on a CPU a step is a call, which costs next to
    nothing there, while a loop would keep products to one thread. A full cache has its
    last slot overwritten, which takes as long as writing another.

    Args:
      params: Parameters, layers stacked or listed.
      scheme: How they are kept.
      config: Sizes.
      batch: Sequences.
      context: Tokens in the cache at first.
      steps: Tokens of every sequence in a run.
      repeats: Runs that the cache has room for.

    Returns:
      The program.
    """
    step = program.rewrite(
        functools.partial(decoder.step, config=config), *rules(scheme)
    )
    calls, inside = (steps, 1) if jax.default_backend() == "cpu" else (1, steps)

    def once(params, state):
        scores, cache = step(params, *state)
        return cache, scores.argmax(-1).astype(jnp.int32)

    def run(params, state):
        if inside == 1:
            return once(params, state)
        return lax.fori_loop(0, inside, lambda _, s: once(params, s), state)

    slots, dtype = context + steps * (repeats + 1), params["embed"].dtype
    state = _state(config, batch, context, slots, dtype)
    call, seconds, peak = _compiled(jax.jit(run, donate_argnums=1), params, state)
    kept = [state]  # the cache of a call is that of the one before

    def timed():
        for _ in range(calls):
            kept[0] = call(params, kept[0])
        return jax.block_until_ready(kept[0])

    return Compiled(_program(timed, steps), seconds, peak)


def prompt(
    params: Mapping[str, Any], scheme: Scheme, *, config: DecoderConfig, length: int
) -> Compiled:
    """Reading one prompt into a cache.

    Args:
      params: Parameters, layers stacked or listed.
      scheme: How they are kept.
      config: Sizes.
      length: Tokens of the prompt.

    Returns:
      The program.
    """
    tokens = jnp.asarray(np.arange(length, dtype=np.int32)[None] % config.vocabulary)
    run = _prefill(config, length, rules(scheme))
    call, seconds, peak = _compiled(jax.jit(run), params, tokens)
    timed = functools.partial(_waited, call, params, tokens)
    return Compiled(_program(timed, 1), seconds, peak)


def difference(
    params: Mapping[str, Any], scheme: Scheme, *, config: DecoderConfig
) -> float:
    """How far packed weights are from decoded ones, over the first layer.

    A prompt of two sequences of four tokens is read and one more token decoded, by the
    rules that are timed and by plain products with decoded weights.

    Args:
      params: Parameters, layers stacked.
      scheme: How they are kept.
      config: Sizes.

    Returns:
      The largest difference of any score relative to the largest score.
    """
    short = dataclasses.replace(config, layers=1)
    tokens = np.arange(8, dtype=np.int32).reshape(2, 4) % config.vocabulary

    def scores(params, tokens, rules):
        first = jax.tree.map(lambda a: a[:1], params["layers"])
        params = {**params, "layers": first}
        before, cache = _prefill(short, 5, rules)(params, tokens)
        step = program.rewrite(functools.partial(decoder.step, config=short), *rules)
        return before, step(params, cache, tokens[:, 0])[0]

    bits = scheme.activation_bits
    plain = () if bits is None else (_rounding(bits),)
    got, want = (
        np.stack(jax.jit(functools.partial(scores, rules=r))(params, tokens))
        for r in (rules(scheme), plain)
    )
    return float(np.abs(got - want).max() / np.abs(want).max())


def _rounding(bits: int) -> base.Rule:
    """Activations are rounded, and multiplied with decoded weights."""

    def rule(site, op, x, w):
        if isinstance(w, QTensor) and site.kind == "dot":
            x = fake_quant_activations(x, bits=bits)
        return op(x, w)

    return rule


def _prefill(config, length, rules) -> Callable[..., Any]:
    def run(params, tokens):
        sequence = decoder.text(params, tokens)
        return decoder.prefill(params, sequence, config=config, length=length)

    return program.rewrite(run, *rules)


@functools.partial(jax.jit, static_argnums=range(5))
def _state(config, batch, context, slots, dtype):
    """A cache of `context` tokens, and the tokens to go on with."""
    shape = (config.layers, batch, slots, config.kv_heads, config.head_dim)
    keys = jax.random.split(jax.random.key(1, impl="rbg"))
    cache = decoder.Cache(
        key=jax.random.uniform(keys[0], shape, dtype, minval=-1, maxval=1),
        value=jax.random.uniform(keys[1], shape, dtype, minval=-1, maxval=1),
        valid=jnp.broadcast_to(jnp.arange(slots) < context, (batch, slots)),
        next=jnp.asarray(context, jnp.int32),
        position=jnp.full((batch,), context, jnp.int32),
    )
    return cache, jnp.arange(batch, dtype=jnp.int32) % config.vocabulary


def _compiled(jitted, *args) -> tuple[Callable[..., Any], float, int]:
    start = time.perf_counter()
    compiled = jitted.lower(*args).compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    parts = ("argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes")
    peak = sum(getattr(memory, part) for part in parts) - memory.alias_size_in_bytes
    return compiled, seconds, peak


def _program(run: Callable[[], Any], products: int) -> timing.Program:
    return timing.Program(first=run, run=run, products=products, sets=1, nbytes=0)


def _waited(call, *args) -> None:
    jax.block_until_ready(call(*args))
