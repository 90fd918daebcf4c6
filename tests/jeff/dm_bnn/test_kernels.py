"""Kernels of several axes: one voter whichever way it is made, and no noise stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.draws import light

from jeff import dm_bnn, tree
from jeff.dm_bnn.arrange import arrange
from jeff.dm_bnn.rule import Drawing, draw_leaf

KEY = jax.random.key(11)
D, H, K = 4, 2, 3  # features, heads, features of a head


def through(x, stack):
    """Layers of heads and back, a kernel each."""
    split, merge = stack["split"], stack["merge"]
    return jnp.einsum("bshk,hkd->bsd", jnp.einsum("bsd,dhk->bshk", x, split), merge)


def scanned(x, stack):
    return jax.lax.scan(lambda x, w: (jnp.tanh(through(x, w)), None), x, stack)[0]


# By name: how x [2, 3, D] or heads of it [2, 3, H, K] meet a kernel, its shape, and why
# it is drawn whole, if it is.
USES = {
    "split": (lambda x, w: jnp.einsum("bsd,dhk->bshk", x, w), (D, H, K), ""),
    "merge": (lambda x, w: jnp.einsum("bshk,hkd->bsd", heads(x), w), (H, K, D), ""),
    "contracted apart": (
        lambda x, w: jnp.einsum("bshk,hdk->bsd", heads(x), w),
        (H, D, K),
        "",
    ),
    "contracted in the middle": (
        lambda x, w: jnp.einsum("bsd,hdk->bshk", x, w),
        (H, D, K),
        "",
    ),
    "on the left": (
        lambda x, w: jax.lax.dot_general(w, x, (((1,), (2,)), ((), ()))),
        (H, D, K),
        "",
    ),
    "kept in another order": (
        lambda x, w: jnp.tensordot(x, w.transpose(2, 1, 0), 1),
        (K, H, D),
        "",
    ),
    "contracted in another order": (
        lambda x, w: jnp.tensordot(heads(x).swapaxes(2, 3), w.transpose(2, 0, 1), 2),
        (H, D, K),
        "",
    ),
    "merged axes": (lambda x, w: x @ w.reshape(D, H * K), (D, H, K), ""),
    "merged in another order": (
        lambda x, w: x @ w.transpose(2, 1, 0).reshape(D, H * K),
        (K, H, D),
        "",
    ),
    "all contracted": (lambda x, w: jnp.tensordot(heads(x), w, 2), (H, K), ""),
    "an axis of 1": (lambda x, w: jnp.tensordot(x, w, 1), (D, 1, K), ""),
    "a mapped batch": (
        lambda x, w: jax.vmap(lambda x: jnp.einsum("sd,dhk->shk", x, w))(x),
        (D, H, K),
        "",
    ),
    "two uses": (
        lambda x, w: jnp.tensordot(x, w, 1) * jnp.einsum("bsd,dhk->bshk", x + 1, w),
        (D, H, K),
        "",
    ),
    "two uses in two orders": (
        lambda x, w: (x @ w.reshape(D, -1)) * (x @ w.swapaxes(1, 2).reshape(D, -1)),
        (D, H, K),
        "in another order at another use",
    ),
    "contracted in two orders": (
        lambda x, w: (
            jnp.tensordot(heads(x), w, 2)
            + jnp.tensordot(heads(x).swapaxes(2, 3), w.swapaxes(0, 1), 2)
        ),
        (H, K, D),
        "in another order at another use",
    ),
    "contracted both ways": (
        lambda x, w: (
            jnp.einsum("bsd,dhk->bshk", x, w).sum() * x[0, 0, 0]
            + jnp.einsum("bshk,dhk->bsd", heads(x), w)
        ),
        (D, H, K),
        "contracted along other axes at another use",
    ),
    "torn axes": (
        lambda x, w: jnp.tensordot(x, w.reshape(D, H, K), 1),
        (D, H * K),
        "used in parts or in another order",
    ),
    "a matrix per head": (
        lambda x, w: jnp.einsum("bshk,hkd->bshd", heads(x), w),
        (H, K, D),
        "a stack at its site",
    ),
    "a vector": (lambda x, w: x @ w, (D,), "a vector at its site"),
}


def heads(x):
    return jnp.stack([x[..., :K], x[..., -K:]], -2)


def program(p, x):
    """All uses at once, and layers on the second level; what comes out, by use."""
    outs = {name: use(x, p["uses"][name]) for name, (use, *_) in USES.items()}
    outs["deep"] = through(x, p["deep"])
    outs["scanned"] = scanned(outs["merge"], p["stack"])
    return outs


def normal(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), "float32")


PARAMS = {
    "uses": {name: normal(*shape) for name, (_, shape, _) in USES.items()},
    "deep": {"split": normal(D, H, K), "merge": normal(H, K, D)},
    "stack": {"split": normal(2, D, H, K), "merge": normal(2, H, K, D)},
}
POSTERIOR = dm_bnn.posterior(PARAMS, 0.3)
X = {"six rows": normal(2, 3, D), "one row": normal(1, 1, D)}
TREE = (3, 2)
MODES = {  # all of them are held against the plain program
    "six rows": ("naive", "dm"),
    "one row": ("hybrid", "dm", "best"),
}


def drawn(plan, indices):
    """The params of one voter, each leaf drawn whole."""

    def draw(name, w):
        leaf = plan.levels.leaves[name]
        return draw_leaf(KEY, name, w, leaf, indices, Drawing(1, False, light, 64))

    return tree.map_with_path(draw, POSTERIOR)


@pytest.fixture(scope="module", params=list(X))
def voters(request):
    """Voters by mode; and what the plain program gives with weights drawn whole."""

    @jax.jit
    def run(x):
        settings = {"voters": TREE, "draw": light}
        found = {
            mode: dm_bnn.predict(program, POSTERIOR, x, KEY, mode=mode, **settings)
            for mode in MODES[request.param]
        }
        plan = arrange(program, POSTERIOR, x, voters=TREE, mode="naive")

        def plain(i, j):
            return program(drawn(plan, (i, j)), x)

        return found, jax.vmap(plain)(*map(jnp.ravel, jnp.indices(TREE)))

    return run(X[request.param])


@pytest.mark.parametrize("name", [*USES, "deep", "scanned"])
def test_every_mode_gives_the_plain_program_with_weights_drawn_whole(voters, name):
    found, plain = voters
    wanted = plain[name]
    for mode, outs in found.items():
        message = f"{name}, {mode}"
        np.testing.assert_allclose(outs[name], wanted, 1e-5, 1e-5, err_msg=message)
    branches = wanted.reshape(*TREE, -1)
    assert np.abs(branches[0] - branches[1]).max() > 1e-3
    grows = np.abs(branches[:, 0] - branches[:, 1]).max() > 1e-3
    assert grows == (name in ("deep", "scanned"))


def test_only_what_no_product_takes_as_it_is_is_drawn_whole():
    plan = dm_bnn.plan(program, POSTERIOR, X["one row"], voters=2, hardware="datapath")
    wanted = {f"uses.{name}": why for name, (*_, why) in USES.items() if why}
    assert plan.whole == wanted


def test_columns_count_through_the_kept_axes():
    """Column n of the noise by hand: n = k H + h where axes are merged as [k, h]."""
    name = "merged in another order"
    use, shape, _ = USES[name]
    random = dm_bnn.posterior({"w": jnp.zeros(shape)}, 1.0)

    @jax.jit
    def run(x):
        key = dm_bnn.leaf_key(KEY, "w")
        columns = [light(jax.random.fold_in(key, n), D) for n in range(K * H)]
        settings = {"voters": 1, "mode": "naive", "draw": light}
        got = dm_bnn.predict(lambda p, x: use(x, p["w"]), random, x, KEY, **settings)
        return got[0], x @ jnp.stack(columns, 1)

    np.testing.assert_allclose(*run(X["six rows"]), rtol=1e-5, atol=1e-5)


def test_scanned_and_written_out_layers_draw_the_same_kernels():
    listed = [jax.tree.map(lambda a, i=i: a[i], PARAMS["stack"]) for i in range(2)]

    def written_out(stack, x):
        for w in stack:
            x = jnp.tanh(through(x, w))
        return x

    @jax.jit
    def both(x):
        stacked = {"layers": dm_bnn.posterior(PARAMS["stack"], 0.2)}
        apart = {"layers": dm_bnn.posterior(listed, 0.2)}
        settings = {"voters": 2, "draw": light}
        return (
            dm_bnn.predict(
                lambda p, x: scanned(x, p["layers"]), stacked, x, KEY, mode="naive",
                **settings,
            ),
            dm_bnn.predict(
                lambda p, x: written_out(p["layers"], x), apart, x, KEY, mode="dm",
                **settings,
            ),
        )  # fmt: skip

    np.testing.assert_allclose(*both(X["six rows"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_the_formulas(seed):
    rng = np.random.default_rng(seed)
    d, h, k, rows, t = (int(rng.integers(2, high)) for high in (60, 9, 20, 6, 40))
    random = dm_bnn.posterior(jnp.ones((d, h, k)), 0.1)
    x, n = jnp.ones((rows, d)), h * k

    def total(mode):
        return dm_bnn.voter_count(
            lambda w, x: jnp.einsum("bd,dhk->bhk", x, w), random, x, voters=t, mode=mode
        )

    dm, naive, lrt = total("dm"), total("naive"), total("lrt")
    assert naive.multiplications == t * (rows + 1) * d * n
    assert dm.multiplications == rows * (t + 2) * d * n
    assert dm.additions == rows * ((t + 1) * d * n - n)
    assert dm.random_draws == naive.random_draws == t * d * n
    assert lrt.random_draws == t * rows * n
    assert not dm.unknown


@pytest.mark.parametrize("mode", ["naive", "dm"])
def test_the_voters_of_a_kernel_are_not_stored(mode):
    d, h, k, t, tile = 32, 8, 8, 64, 1024
    n = h * k

    def words(use, shape):
        random = dm_bnn.posterior(jnp.ones(shape), 0.1)

        def run(random, x, key):
            settings = {"voters": t, "mode": mode, "tile": tile}
            return dm_bnn.predict(lambda w, x: use(x, w), random, x, key, **settings)

        compiled = jax.jit(run).lower(random, jnp.ones((1, d)), KEY).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 4

    # The bound of a product with drawn matrices (its own test holds it to that), and
    # the matrices of the mean and the standard deviation.
    bound = d * n + 2 * t * n + 6 * tile + 2 * n + 2 * d * n
    assert words(lambda x, w: jnp.einsum("bd,dhk->bhk", x, w), (d, h, k)) <= bound
    whole = words(lambda x, w: jnp.tensordot(x, w.reshape(d, h, k), 1), (d, n))
    assert whole >= t * d * n > 4 * bound  # torn axes: one kernel per voter
