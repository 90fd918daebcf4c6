"""Small dm-haiku models."""

import haiku as hk
import jax
import jax.numpy as jnp

from jeff.program.functional import functional, functional_with_state
from support.case import Case, filled, normal

__all__ = ["CASES"]


def _variables(model, x):
    return filled(0, jax.eval_shape(model.init, jax.random.key(0), x))


def convolutional() -> Case:
    """A convolution, then haiku's MLP on its mean."""

    def forward(x):
        x = jax.nn.relu(hk.Conv2D(8, 3, name="conv")(x))
        return hk.nets.MLP([12, 4], name="mlp")(jnp.mean(x, axis=(1, 2)))

    x = normal(1, 2, 6, 6, 3)
    model = hk.without_apply_rng(hk.transform(forward))
    apply, params = functional(model, variables=_variables(model, x))
    return Case(
        apply=apply,
        params=params,
        inputs=(x,),
        linears={"conv.w": 1, "mlp/~/linear_0.w": 1, "mlp/~/linear_1.w": 1},
        marks=frozenset({"conv"}),
    )


def stateful_train() -> Case:
    """A centred linear layer with dropout: running mean and key in, mean out."""

    def forward(x):
        x = hk.Linear(8, name="linear")(x)
        mean = jnp.mean(x, axis=0)
        running = hk.get_state("mean", mean.shape, init=jnp.zeros)
        hk.set_state("mean", 0.9 * running + 0.1 * mean)
        x = x - mean
        keep = jax.random.bernoulli(hk.next_rng_key(), 0.75, x.shape)
        return jnp.where(keep, jax.nn.relu(x) / 0.75, 0.0)

    x = normal(1, 4, 16)
    model = hk.transform_with_state(forward)
    step, params, state = functional_with_state(model, variables=_variables(model, x))

    def apply(params, state, key, x):
        return step(params, state, x, rng=key)

    return Case(
        apply=apply,
        params=params,
        inputs=(state, jax.random.key(3), x),
        linears={"linear.w": 1},
        marks=frozenset({"state", "dropout"}),
    )


def lstm() -> Case:
    """An LSTM: one product with input and state concatenated, in a scan."""

    def forward(x):
        core = hk.LSTM(12, name="lstm")
        out, _ = hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]))
        return hk.Linear(4, name="head")(out[-1])

    x = normal(1, 5, 2, 8)
    model = hk.without_apply_rng(hk.transform(forward))
    apply, params = functional(model, variables=_variables(model, x))
    return Case(
        apply=apply,
        params=params,
        inputs=(x,),
        linears={"lstm/linear.w": 1, "head.w": 1},
        marks=frozenset({"scan", "scan_const"}),
    )


CASES = {f"haiku_{fn.__name__}": fn for fn in (convolutional, stateful_train, lstm)}
