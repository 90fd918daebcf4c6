"""Voters of local reparameterisation and flipout: how many are held at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.draws import light

from jeff import dm_bnn
from jeff.dm_bnn import chunks
from jeff.dm_bnn.arrange import arrange

KEY = jax.random.key(5)
SIZES = (24, 16, 8)


def mlp(p, x):
    for i, layer in enumerate(p):
        x = x @ layer["w"] + layer["b"]
        x = jax.nn.relu(x) if i < len(p) - 1 else x
    return x


def random_mlp(sizes):
    rng = np.random.default_rng(0)
    params = [
        {"w": rng.normal(size=(a, b)) / a**0.5, "b": rng.normal(size=b)}
        for a, b in zip(sizes, sizes[1:], strict=False)
    ]
    return dm_bnn.posterior(jax.tree.map(jnp.float32, params), 0.1)


RANDOM = random_mlp(SIZES)
X = jnp.asarray(np.random.default_rng(1).normal(size=(4, SIZES[0])), jnp.float32)
ROOM = 2**12  # words; a test's voters must pass it by far


@pytest.fixture
def little_room(monkeypatch):
    monkeypatch.setitem(chunks.WORDS, jax.default_backend(), ROOM)


def memory(random, x, **settings):
    """Words of temporary memory and of outputs, as the compiler plans them."""

    def run(random, x, key):
        return dm_bnn.predict(mlp, random, x, key, **settings)

    found = jax.jit(run).lower(random, x, KEY).compile().memory_analysis()
    return found.temp_size_in_bytes / 4, found.output_size_in_bytes / 4


@pytest.mark.parametrize(("mode", "voters"), [("lrt", 256), ("flipout", 64)])
def test_memory_does_not_grow_with_the_voters(little_room, mode, voters):
    def held(voters, **settings):
        return memory(RANDOM, X, voters=voters, mode=mode, draw=light, **settings)

    few, few_outputs = held(voters)
    many, many_outputs = held(8 * voters)
    # Outputs are made in the loop and then put into the voters' order.
    assert many - few <= many_outputs - few_outputs + 64
    # Squares of the standard deviations, computed once; four arrays, each of at most
    # what voters at a time may take.
    stds = sum(leaf.mean.size for leaf in jax.tree.leaves(RANDOM, is_leaf=is_random))
    assert many <= stds + 4 * ROOM + 2 * many_outputs
    # All voters at a time, as `chunk` has it if it is asked to.
    whole, _ = held(8 * voters, chunk=8 * voters)
    assert whole > 4 * many


def is_random(leaf):
    return isinstance(leaf, dm_bnn.MeanField)


def test_the_memory_of_a_network_of_784_200_200_10():
    """512 KiB of voters, or one voter; by default, and far from all of them."""
    random, t = random_mlp((784, 200, 200, 10)), 100
    for mode, rows in (("lrt", 64), ("flipout", 1)):
        x = jnp.ones((rows, 784))
        held = max(2**17, arrange(mlp, random, x, voters=t, mode=mode).words)
        words, outputs = memory(random, x, voters=t, mode=mode)
        stds = 784 * 200 + 200 * 200 + 200 * 10
        assert words <= stds + 4 * held + 2 * outputs
        assert 4 * words < t * (rows * 400 if mode == "lrt" else 784 * 200)


@pytest.mark.parametrize(
    ("mode", "voters"),
    [("lrt", (97,)), ("lrt", (2, 200)), ("flipout", (6, 20))],
)
def test_voters_and_counts_do_not_depend_on_chunks(little_room, mode, voters):
    settings = {"voters": voters, "mode": mode}
    words = arrange(mlp, RANDOM, X, **settings).words
    sizes = chunks.at_a_time(voters, mode, None, words, jax.default_backend())
    assert sizes != voters  # the default is one of the cases

    @jax.jit
    def run(x):
        return [
            dm_bnn.predict(mlp, RANDOM, x, KEY, chunk=chunk, draw=light, **settings)
            for chunk in (1000, None, 5)
        ]

    whole, *others = run(X)
    for found in others:
        np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)
    counts = [
        dm_bnn.voter_count(mlp, RANDOM, X, chunk=chunk, **settings)
        for chunk in (1000, None, 1, 5)
    ]
    # What voters share is computed before the loop, so that it counts once.
    assert len({c.multiplications for c in counts}) == 1
    assert len({c.macs for c in counts}) == 1
    assert len({c.random_draws for c in counts}) == 1


@pytest.mark.parametrize("seed", range(20))
def test_voters_at_a_time_fit_and_no_more_would(seed):
    rng = np.random.default_rng(seed)
    voters = tuple(int(t) for t in rng.integers(1, 60, rng.integers(1, 5)))
    words = int(rng.integers(1, 3000))
    sizes = chunks.at_a_time(voters, "lrt", None, words, "cpu")
    assert all(1 <= s <= t for s, t in zip(sizes, voters, strict=True))
    assert np.prod(sizes) * words <= max(words, chunks.WORDS["cpu"])
    # A level is cut only if all of it would not fit, and those above it are then cut
    # to what is left; at most half of the room is given up for even parts, each time.
    cut = [i for i, (s, t) in enumerate(zip(sizes, voters, strict=True)) if s < t]
    if cut:
        below = np.prod(sizes[cut[-1] :])
        assert 2 * (below + np.prod(sizes[cut[-1] + 1 :])) * words > chunks.WORDS["cpu"]
        assert np.prod(voters[cut[-1] :]) * words > chunks.WORDS["cpu"]
    assert chunks.at_a_time(voters, "dm", None, words, "cpu") == voters


def test_what_a_voter_holds():
    def program(p, x):
        h = jnp.tanh(x @ p["up"])  # [rows, 6] behind random weights
        scores = jax.nn.softmax(h @ h.T)  # [rows, rows]
        return jax.lax.scan(lambda h, w: (h @ w, None), scores @ h, p["stack"])[0]

    params = {"up": jnp.ones((5, 6)), "stack": jnp.ones((3, 6, 6))}
    random = dm_bnn.posterior(params, 0.1)
    rows = 50
    lrt = {"mode": "lrt", "voters": 1, "approximate": True}
    found = arrange(program, random, jnp.ones((rows, 5)), **lrt)
    assert found.words == 2 * rows * rows + rows  # scores over their sums
    flipout = arrange(program, random, jnp.ones((1, 5)), voters=1, mode="flipout")
    # A product of scores [1, 1] and h [1, 6]; noise of one entry of the stack, and its
    # input with signs.
    assert flipout.words == 1 + 2 * 6 + 36 + 6
    bias = dm_bnn.posterior({"w": jnp.ones((5, 6)), "b": jnp.ones(6)}, 0.1)
    found = arrange(
        lambda p, x: x @ p["w"] + p["b"], bias, jnp.ones((1, 5)), voters=1, mode="lrt"
    )
    assert found.words == 2 * 6 + 6  # in, out, and the bias, which is drawn whole


@pytest.mark.parametrize("mode", ["lrt", "flipout", "mean"])
@pytest.mark.parametrize("option", [{"alpha": 0.5}, {"tile": 64}])
def test_options_that_would_do_nothing_are_refused(mode, option):
    with pytest.raises(ValueError, match=f"mode='{mode}' draws no weights in tiles"):
        dm_bnn.predict(mlp, RANDOM, X, KEY, voters=2, mode=mode, **option)
