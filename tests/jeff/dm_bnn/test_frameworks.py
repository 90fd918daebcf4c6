"""One network in four frameworks: the voters of the plain program, kernels left free.

An embedding, a dense layer, a layer norm and another dense layer. Every leaf is random;
what no product takes as it is stored is drawn whole.
"""

from typing import NamedTuple

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from support.case import filled
from support.draws import light

import jeff
from jeff import dm_bnn, tree

KEY = jax.random.key(13)
IDS = np.array([2, 0, 4, 2])
WORDS, WIDTH, HIDDEN, OUT = 5, 4, 6, 3
EPSILON = 1e-5


class Names(NamedTuple):
    """Leaves of the network in one framework; kernels are ``[inputs, outputs]``."""

    table: str = "embed.embedding"
    up: str = "up.kernel"
    up_bias: str = "up.bias"
    scale: str = "norm.scale"
    shift: str = "norm.bias"
    down: str = "down.kernel"
    down_bias: str = "down.bias"
    transposed: bool = False


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        self.up = nnx.Linear(WIDTH, HIDDEN, rngs=rngs)
        self.norm = nnx.LayerNorm(HIDDEN, epsilon=EPSILON, rngs=rngs)
        self.down = nnx.Linear(HIDDEN, OUT, rngs=rngs)

    def __call__(self, ids):
        return self.down(self.norm(jnp.tanh(self.up(self.embed(ids)))))


class Linen(linen.Module):
    @linen.compact
    def __call__(self, ids):
        x = linen.Embed(WORDS, WIDTH, name="embed")(ids)
        x = jnp.tanh(linen.Dense(HIDDEN, name="up")(x))
        x = linen.LayerNorm(EPSILON, name="norm")(x)
        return linen.Dense(OUT, name="down")(x)


class Equinox(eqx.Module):
    embed: eqx.nn.Embedding
    up: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    down: eqx.nn.Linear

    def __init__(self, key):
        a, b, c = jax.random.split(key, 3)
        self.embed = eqx.nn.Embedding(WORDS, WIDTH, key=a)
        self.up = eqx.nn.Linear(WIDTH, HIDDEN, key=b)
        self.norm = eqx.nn.LayerNorm(HIDDEN, EPSILON)
        self.down = eqx.nn.Linear(HIDDEN, OUT, key=c)

    def __call__(self, ids):
        def one(word):
            return self.down(self.norm(jnp.tanh(self.up(self.embed(word)))))

        return jax.vmap(one)(ids)


def haiku(ids):
    x = hk.Embed(WORDS, WIDTH, name="embed")(ids)
    x = jnp.tanh(hk.Linear(HIDDEN, name="up")(x))
    x = hk.LayerNorm(-1, True, True, EPSILON, name="norm")(x)
    return hk.Linear(OUT, name="down")(x)


def of_nnx():
    return jeff.functional(nnx.eval_shape(lambda: Nnx(nnx.Rngs(0))))


def of_linen():
    variables = jax.eval_shape(Linen().init, jax.random.key(0), IDS)
    return jeff.functional(Linen(), variables=variables)


def of_haiku():
    model = hk.without_apply_rng(hk.transform(haiku))
    variables = jax.eval_shape(model.init, jax.random.key(0), IDS)
    return jeff.functional(model, variables=variables)


def of_equinox():
    return jeff.functional(eqx.filter_eval_shape(Equinox, jax.random.key(0)))


OF_EQUINOX = {"table": "embed.weight", "up": "up.weight", "down": "down.weight"}
OF_HAIKU = {"table": "embed.embeddings", "up": "up.w", "down": "down.w"}
FRAMEWORKS = {
    "nnx": (of_nnx, Names()),
    "linen": (of_linen, Names()),
    "haiku": (
        of_haiku,
        Names(**OF_HAIKU, up_bias="up.b", shift="norm.offset", down_bias="down.b"),
    ),
    "equinox": (
        of_equinox,
        Names(**OF_EQUINOX, scale="norm.weight", transposed=True),
    ),
}


def plain(names):
    """The network written out, for params of any containers."""

    def apply(params, ids):
        leaves, _ = tree.flatten(params)
        up, down = leaves[names.up], leaves[names.down]
        if names.transposed:
            up, down = up.T, down.T
        x = jnp.tanh(leaves[names.table][ids] @ up + leaves[names.up_bias])
        x = x - x.mean(-1, keepdims=True)
        x = x / jnp.sqrt((x**2).mean(-1, keepdims=True) + np.float32(EPSILON))
        return (x * leaves[names.scale] + leaves[names.shift]) @ down + leaves[
            names.down_bias
        ]

    return apply


@pytest.fixture(scope="module", params=FRAMEWORKS)
def network(request):
    build, names = FRAMEWORKS[request.param]
    apply, params = build()
    return apply, dm_bnn.posterior(filled(0, params), 0.3), names


def test_voters_are_those_of_the_program_written_out(network):
    """Level 1 is the embedding, 2 and 3 the dense layers; the tree branches at two."""
    apply, random, names = network

    @jax.jit
    def run(ids):
        settings = {"voters": (2, 3), "draw": light}
        return (
            dm_bnn.predict(apply, random, ids, KEY, mode="naive", **settings),
            dm_bnn.predict(apply, random, ids, KEY, mode="dm", **settings),
            dm_bnn.predict(plain(names), random, ids, KEY, mode="naive", **settings),
        )

    naive, dm, wanted = run(IDS)
    assert naive.shape == (6, len(IDS), OUT)
    np.testing.assert_allclose(naive, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dm, wanted, rtol=1e-4, atol=1e-5)
    apart = np.abs(naive[:, None] - naive).max((2, 3)) + np.eye(6)
    assert apart.min() > 1e-2


def test_kernels_are_left_to_the_products(network):
    apply, random, names = network
    plan = dm_bnn.plan(apply, random, IDS, voters=(2, 3), hardware="datapath")
    whole = {names.table, names.up_bias, names.scale, names.shift, names.down_bias}
    assert set(plan.whole) == whole
    assert plan.recommended in plan.counts
    matrices = WIDTH * HIDDEN * 6 + HIDDEN * OUT * 6
    rest = WORDS * WIDTH * 2 + (HIDDEN * 3 + OUT) * 6
    assert plan.counts["naive"].random_draws == matrices + rest
