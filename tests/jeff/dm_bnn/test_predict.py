"""Voters of programs: the same whichever mode makes them, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.draws import light

import jeff
from jeff import dm_bnn

KEY = jax.random.key(7)


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


def by_hand(posterior, x, voters, shared):
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
            drawn = dict(layer)
            for name, w in layer.items():
                if isinstance(w, dm_bnn.MeanField):
                    key = dm_bnn.leaf_key(KEY, f"{i}.{name}")
                    drawn[name] = w.mean + w.std * noise(key, path, w.shape)
            params.append(drawn)
        outs.append(mlp(params, x))
    return np.stack(outs)


@pytest.mark.parametrize(("voters", "shared"), [((3, 1, 1), False), ((2, 3, 2), True)])
def test_all_exact_modes_give_the_voters_worked_out_by_hand(voters, shared):
    wanted = by_hand(POSTERIOR, X, voters, shared)
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


WIDEST = 12
KERNELS = mlp_posterior((6, WIDEST, 3), lambda name, _: name.endswith("w"))


@pytest.fixture(scope="module")
def branching():
    """A tree of independent branches on both levels, for one row, by hand."""
    return by_hand(KERNELS, X[:1], (2, 3), shared=False)


@pytest.mark.parametrize("mode", ["naive", "hybrid", "dm", "best"])
def test_no_mode_and_no_alpha_changes_a_voter(mode, branching):
    """Acceptance test 1: within 1e-5 of the largest output, all voters.

    "best" decomposes the second level alone, where three branches make it cheaper.
    """
    alphas = (1.0, 0.5, 0.25, 0.1, 1 / WIDEST)  # 12, 6, 3, 2 columns and 1 at a time

    @jax.jit
    def run(x):
        settings = {"voters": (2, 3), "mode": mode, "draw": light}
        return [
            dm_bnn.predict(mlp, KERNELS, x, KEY, alpha=alpha, **settings)
            for alpha in alphas
        ]

    atol = 1e-5 * np.abs(branching).max()
    for alpha, found in zip(alphas, run(X[:1]), strict=True):
        np.testing.assert_allclose(found, branching, 0, atol, err_msg=f"{alpha}")


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
