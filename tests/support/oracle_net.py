"""A net so small that every single fault of it can be tried: 8,288 bits."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.quantize import QuantConfig, quantize
from jeff.sweep import Examples, FaultSpace, enumerate_faults, examples, exhaustive

__all__ = [
    "CLASSES",
    "HIDDEN",
    "IMAGES",
    "INPUTS",
    "Oracle",
    "brackets",
    "oracle",
    "truth",
]

IMAGES, INPUTS, HIDDEN, CLASSES = 16, 64, 14, 10


class Oracle(NamedTuple):
    """Params of 1,036 weights of 8 bits, dense int8 and codes, and all about them."""

    apply: Any
    params: Any
    space: FaultSpace
    data: Examples


@functools.cache
def oracle() -> Oracle:
    """The net."""
    rng = np.random.default_rng(0)
    first = np.round(rng.normal(0, 25, (INPUTS, HIDDEN))).clip(-127, 127)
    second = rng.normal(0, HIDDEN**-0.5, (HIDDEN, CLASSES)).astype(np.float32)
    params = {
        "first": jnp.asarray(first, jnp.int8),
        "second": quantize(second, QuantConfig(bits=8)),
    }

    def apply(params, x):
        hidden = jax.nn.relu(x @ (params["first"].astype(jnp.float32) / 200))
        return hidden @ params["second"]

    images = np.random.default_rng(1).normal(size=(IMAGES, INPUTS)).astype(np.float32)
    data = examples(apply, params, images, batch=IMAGES)
    return Oracle(apply, params, enumerate_faults(params), data)


@functools.cache
def truth() -> np.ndarray:
    """Whether each fault changes the top class of some image; bool [faults]."""
    net = oracle()

    def top(params):
        dense = {**params, "second": params["second"].decode()}
        return jnp.argmax(net.apply(dense, net.data.inputs), axis=1)

    golden = jax.jit(top)(net.params)
    return exhaustive(
        lambda p: (top(p) != golden).any(), net.params, space=net.space, chunk=512,
        batch_size=64,
    )  # fmt: skip


def brackets(estimates, rate, variance, covered) -> None:
    """Estimates of many campaigns scatter about the rate as their variance says."""
    # The mean of R estimates is off by sqrt(variance / R) or so: 4 of them. Their
    # spread is known to sqrt(1 / (2 R)), or worse for heavy tails: 40 %. Coverage of
    # 95 % has a standard deviation of sqrt(0.0475 / R): 4 of them.
    count = len(estimates)
    assert abs(np.mean(estimates) - rate) < 4 * np.sqrt(variance / count)
    assert np.var(estimates, ddof=1) == pytest.approx(variance, rel=0.4)
    assert np.mean(covered) > 0.95 - 4 * np.sqrt(0.0475 / count)
