import jax
import jax.numpy as jnp
import pytest
from support.case import normal

from jeff import program
from jeff.mbq.groups.infer import infer_groups
from jeff.mbq.groups.nonlinear import nonlinear_between


@pytest.mark.parametrize(
    ("activation", "operations"),
    [
        (jax.nn.silu, ("logistic",)),
        (lambda h: jax.nn.gelu(h, approximate=False), ("erfc",)),
        (jax.nn.relu, ()),
    ],
    ids=["silu", "gelu", "relu"],
)
def test_what_is_not_linear_is_named(activation, operations):
    params = {"norm": jnp.ones(4), "up": normal(0, 4, 8), "down": normal(1, 8, 4)}

    def apply(p, x):
        scale = jnp.exp(x.mean(-1, keepdims=True))  # not on the way from the fold
        return scale * (activation((x * p["norm"]) @ p["up"]) @ p["down"])

    stack = program.whole(apply, params, normal(2, 3, 4))
    up, down = infer_groups(stack, lambda s: True)
    assert nonlinear_between(down) == operations
    assert nonlinear_between(up) == ()
