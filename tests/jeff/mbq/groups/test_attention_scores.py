"""What feeds attention scores, on programs of every make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_blocks, zoo

from jeff import program
from jeff.mbq.groups.attention_scores import score_sites

NAMES = {
    "plain_attention_general": {"q", "k"},
    "plain_qkv_split_after": {"qkv"},  # fused: its queries are not to be clipped
    "nnx_transformer": {"layers.0.q.kernel", "layers.0.k.kernel"},
    "nnx_transformer_scanned": {"layers.q.kernel", "layers.k.kernel"},
    "linen_attention_general": {"attention.query.kernel", "attention.key.kernel"},
    "equinox_attention": {"attention.query_proj.weight", "attention.key_proj.weight"},
}


@pytest.mark.parametrize("name", NAMES)
def test_queries_and_keys_by_their_use(name):
    if name not in zoo.NAMES:
        pytest.skip("the framework is not installed")
    case = zoo.build(name)
    args = case.apply, case.params, *case.inputs
    stack = (program.blocks(*args) or (program.whole(*args),))[0]
    assert score_sites(stack) == NAMES[name]


def test_an_mlp_has_none():
    """A sigmoid is an exponential too, but no product of activations is before it."""
    (batch,) = mbq_blocks.batches()
    params = mbq_blocks.make_params()
    (stack,) = program.blocks(mbq_blocks.gated(), params, *batch.inputs)
    assert score_sites(stack) == frozenset()


PARAMS = {n: jnp.eye(8) for n in "qkvo"}
X = jnp.ones((4, 8))


def test_linear_attention_has_no_scores():
    def apply(p, x):
        q, k, v = x @ p["q"], x @ p["k"], x @ p["v"]
        return (q @ (k.T @ v)) @ p["o"]

    assert score_sites(program.whole(apply, PARAMS, X)) == frozenset()


def test_attention_in_a_loop_takes_all_that_feeds_it():
    """Values cannot be told from queries there; they are left out as well."""

    def apply(p, x):
        q, k, v = x @ p["q"], x @ p["k"], x @ p["v"]

        def part(carry, kv):
            top, bottom = carry
            e = jnp.exp(q @ kv[0].T)
            return (top + e @ kv[1], bottom + e.sum(1, keepdims=True)), None

        parts = k.reshape(2, 2, 8), v.reshape(2, 2, 8)
        zero = jnp.zeros((4, 8)), jnp.zeros((4, 1))
        (top, bottom), _ = jax.lax.scan(part, zero, parts)
        return (top / bottom) @ p["o"]

    assert score_sites(program.whole(apply, PARAMS, X)) == {"q", "k", "v"}


ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0].astype("f4")
TWICE = np.kron(np.eye(4), np.ones((2, 1))).T.astype(
    "f4"
)  # every second key for two heads
CONSTANTS = {
    "rotated": (lambda q, k: (q @ ROTATION, k @ ROTATION)),
    "repeated": (lambda q, k: (q, k[:, :4] @ TWICE)),
    "computed": (lambda q, k: (q @ (jnp.eye(8) * jnp.arange(8.0)), k)),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_products_with_constants_are_followed_through(name):
    """Such as rotary angles or repeated heads written as matrices."""

    def apply(p, x):
        q, k = CONSTANTS[name](x @ p["q"], x @ p["k"])
        return (jax.nn.softmax(q @ k.T) @ (x @ p["v"])) @ p["o"]

    assert score_sites(program.whole(apply, PARAMS, X)) == {"q", "k"}
