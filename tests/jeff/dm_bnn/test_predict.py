"""Voters of programs: the same whichever mode makes them, and counted exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jeff
from jeff import dm_bnn

KEY = jax.random.key(7)


def light(key, count):
    """A draw that is quick to compile and differs by key."""
    frequency = (jax.random.key_data(key)[0] % 997).astype(jnp.float32)
    return jnp.sin(frequency * jnp.arange(1, count + 1, dtype=jnp.float32))


def mlp(p, x):
    for i, layer in enumerate(p):
        x = x @ layer["w"] + layer["b"]
        x = jnp.tanh(x) if i < len(p) - 1 else x
    return x


def mlp_posterior(sizes, where=None):
    rng = np.random.default_rng(0)
    params = [
        {"w": np.float32(rng.normal(size=(a, b))), "b": np.float32(rng.normal(size=b))}
        for a, b in zip(sizes, sizes[1:], strict=False)
    ]
    return dm_bnn.posterior(jax.tree.map(jnp.asarray, params), 0.3, where=where)


POSTERIOR = mlp_posterior((6, 5, 4, 3))
X = np.float32(np.random.default_rng(1).normal(size=(2, 6)))


def by_hand(posterior, voters, shared):
    """Every weight of every voter from its own key, one after another."""

    def noise(leaf_key, path, shape):
        key = leaf_key
        for i in path:
            key = jax.random.fold_in(key, i)
        count = shape[1] if len(shape) == 2 else 1
        columns = [light(jax.random.fold_in(key, n), shape[0]) for n in range(count)]
        return np.stack(columns, 1).reshape(shape)

    outs = []
    for indices in np.ndindex(*voters):
        params = []
        for i, layer in enumerate(posterior):
            path = [*zip(indices, voters, strict=True)][: i + 1]
            path = path[i:] if shared else path
            path = [branch for branch, branches in path if branches > 1]
            params.append(
                {
                    name: w.mean
                    + w.std * noise(dm_bnn.leaf_key(KEY, f"{i}.{name}"), path, w.shape)
                    for name, w in layer.items()
                }
            )
        outs.append(mlp(params, X))
    return np.stack(outs)


@pytest.mark.parametrize(("voters", "shared"), [((3, 1, 1), False), ((2, 3, 2), True)])
def test_all_exact_modes_give_the_voters_worked_out_by_hand(voters, shared):
    wanted = by_hand(POSTERIOR, voters, shared)
    for mode, alpha, chunk in (
        ("naive", 1, None),
        ("hybrid", 0.5, 2),
        ("dm", 0.2, None),
    ):
        run = jax.jit(
            lambda x, m=mode, a=alpha, c=chunk: dm_bnn.predict(
                mlp, POSTERIOR, x, KEY, voters=voters, mode=m, alpha=a, chunk=c,
                shared=shared, draw=light,
            )
        )  # fmt: skip
        np.testing.assert_allclose(run(X), wanted, rtol=1e-5, atol=1e-5, err_msg=mode)


def test_trailing_levels_have_one_branch():
    def run(voters):
        return dm_bnn.predict(mlp, POSTERIOR, X, KEY, voters=voters, draw=light)

    both = jax.jit(lambda: (run(3), run((3, 1, 1))))()
    np.testing.assert_array_equal(*both)


def scanned(p, x):
    def layer(x, w):
        return jnp.tanh(x @ w), None

    return jax.lax.scan(layer, x, p["w"])[0]


def written_out(p, x):
    for w in p["w"]:
        x = jnp.tanh(x @ w)
    return x


def test_scanned_and_written_out_layers_draw_the_same_weights():
    w = np.float32(np.random.default_rng(3).normal(size=(3, 4, 4)))
    stacked = dm_bnn.posterior({"w": jnp.asarray(w)}, 0.2)
    listed = dm_bnn.posterior({"w": [jnp.asarray(a) for a in w]}, 0.2)

    @jax.jit
    def both(x):
        settings = {"voters": 2, "draw": light}
        return (
            dm_bnn.predict(scanned, stacked, x, KEY, mode="naive", **settings),
            dm_bnn.predict(written_out, listed, x, KEY, mode="dm", **settings),
        )

    np.testing.assert_allclose(*both(X[:, :4]), rtol=1e-5, atol=1e-6)


def tied(p, tokens):
    h = p["embed"][tokens] * p["scale"]
    return h @ p["embed"].T


def test_a_tied_weight_is_one_weight_and_other_leaves_are_drawn_whole():
    params = {"embed": jnp.asarray(X), "scale": jnp.ones(6)}
    random = dm_bnn.posterior(params, 0.5)
    tokens = jnp.array([0, 1])

    @jax.jit
    def run(tokens):
        return dm_bnn.predict(tied, random, tokens, KEY, voters=4, draw=light)

    plan = dm_bnn.plan(tied, random, tokens, voters=4, hardware="datapath")
    assert set(plan.whole) == {"embed", "scale"}
    # The logits of tied weights W: (W[t] * s) @ W.T with one W per voter; the Gram
    # matrix of it with s = 1 would be symmetric, so dividing s out must give that.
    y = run(tokens)
    unit = dm_bnn.posterior(params, 0.5, where=lambda name, _: name == "embed")
    gram = dm_bnn.predict(tied, unit, tokens, KEY, voters=4, draw=light)
    np.testing.assert_allclose(gram, gram.transpose(0, 2, 1), rtol=1e-5, atol=1e-5)
    assert np.abs(y - gram).max() > 1e-3  # the random scale did something
    assert np.abs(gram[0] - gram[1]).max() > 1e-3


def conv(p, x):
    y = jax.lax.conv_general_dilated(x, p["k"], (1, 1), "SAME")
    return y.mean((2, 3)) @ p["w"]


def test_convolutions_draw_one_kernel_for_all_positions():
    params = {"k": jnp.ones((4, 1, 3, 3)), "w": jnp.ones((4, 2))}
    random = dm_bnn.posterior(params, 0.5)
    x = jnp.ones((2, 1, 5, 5))

    @jax.jit
    def run(x):
        modes = ("naive", "dm")
        return [
            dm_bnn.predict(conv, random, x, KEY, voters=3, mode=m, draw=light)
            for m in modes
        ]

    naive, dm = run(x)
    np.testing.assert_allclose(naive, dm, rtol=1e-5)
    with pytest.raises(ValueError, match="'k': a convolution uses one kernel"):
        dm_bnn.predict(conv, random, x, KEY, voters=3, mode="lrt")


def test_lrt_refuses_what_it_would_change():
    def recurrent(p, x):
        return jax.lax.fori_loop(0, 3, lambda i, h: jnp.tanh(h @ p), x)

    random = dm_bnn.posterior(jnp.eye(6), 0.1)
    with pytest.raises(ValueError, match="used more than once"):
        dm_bnn.predict(recurrent, random, X, KEY, voters=3, mode="lrt")
    linear = dm_bnn.posterior(jnp.ones((6, 2)), 0.1)
    with pytest.raises(ValueError, match="several rows per example"):
        dm_bnn.predict(
            lambda p, x: x @ p,
            linear,
            X[:, None].repeat(3, 1),
            KEY,
            voters=3,
            mode="lrt",
        )


BIG = mlp_posterior((784, 200, 200, 10), where=lambda name, _: name.endswith("w"))


@pytest.mark.parametrize(
    ("mode", "voters", "shared", "products", "draws"),
    [
        ("naive", 100, False, 39_760_000, 19_880_000),
        ("hybrid", 100, False, 24_393_600, 19_880_000),
        ("dm", 100, False, 28_593_600, 19_880_000),
        ("dm", 100, True, 28_593_600, 15_722_000),
        ("dm", (25, 4, 1), False, 10_833_600, 8_120_000),
        ("dm", (25, 4, 1), True, 10_833_600, 4_082_000),
        ("dm", (20, 5, 1), False, 9_649_600, 7_336_000),
        ("dm", (20, 5, 1), True, 9_649_600, 3_338_000),
        ("dm", (10, 10, 1), False, 7_281_600, 5_768_000),
        ("dm", (10, 10, 1), True, 7_281_600, 1_970_000),
        ("dm", (5, 5, 4), False, 2_797_600, 1_984_000),
        ("dm", (5, 5, 4), True, 2_797_600, 992_000),
        ("best", (10, 10, 1), False, 7_081_600, 5_768_000),
    ],
)
def test_counts_of_the_784_200_200_10_network(mode, voters, shared, products, draws):
    def matrices(p, x):  # without biases, as the formulas are
        for i, layer in enumerate(p):
            x = x @ layer["w"]
            x = jax.nn.relu(x) if i < 2 else x
        return x

    found = dm_bnn.voter_count(
        matrices, BIG, jnp.ones((1, 784)), voters=voters, mode=mode, shared=shared
    )
    assert found.multiplications == products
    assert found.random_draws == draws
    assert not found.unknown


def test_the_cost_of_a_tree_follows_from_small_ones():
    cost = dm_bnn.tree_cost(mlp, POSTERIOR, X[:1], levels=3, mode="dm")
    voters = (3, 2, 4)
    found = dm_bnn.voter_count(mlp, POSTERIOR, X[:1], voters=voters, mode="dm")
    assert cost.of(voters) == found.multiplications


def test_voters_are_differentiable_in_mean_and_std():
    @jax.jit
    def slopes(posterior):
        def loss(posterior, mode):
            y = dm_bnn.predict(mlp, posterior, X, KEY, voters=2, mode=mode, draw=light)
            return (y**2).mean()

        return [jax.grad(loss)(posterior, mode) for mode in ("naive", "dm")]

    naive, dm = map(jax.tree.leaves, slopes(POSTERIOR))
    for a, b in zip(naive, dm, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        assert np.abs(a).max() > 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"voters": 0}, ValueError, "voters must be positive"),
        ({"voters": 2.5}, TypeError, "voters must be whole"),
        ({"voters": (2, 2, 2, 2)}, ValueError, "only 3 deep"),
        ({"mode": "fast"}, ValueError, "mode must be one of"),
        ({"alpha": 1.5}, ValueError, r"alpha must be in \(0, 1\], got 1.5"),
        ({"chunk": 0}, ValueError, "chunk must be positive"),
        ({"key": jax.random.key(0, impl="rbg")}, ValueError, "threefry2x32"),
        ({"key": 3}, TypeError, "key must be a JAX key"),
        ({"posterior": [{"w": X.T, "b": X[0]}]}, ValueError, "no random leaf"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    arguments = {"posterior": POSTERIOR, "key": KEY, "voters": 2} | change
    posterior, key = arguments.pop("posterior"), arguments.pop("key")
    with pytest.raises(error, match=message):
        dm_bnn.predict(mlp, posterior, X, key, **arguments)


def test_a_posterior_without_rules_is_its_mean():
    got = jax.jit(jeff.rewrite(mlp))(POSTERIOR, X)
    mean = dm_bnn.predict(mlp, POSTERIOR, X, KEY, voters=1, mode="mean")[0]
    wanted = jax.jit(mlp)(jeff.base.decoded(POSTERIOR), X)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_allclose(mean, wanted, rtol=1e-6)
