"""Products with drawn matrices: the same voters every way, exact counts, memory."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.draws import light

import jeff
from pallas_kernels.draw_matmul import draw_matmul

K, N, T, B = 13, 7, 5, 3


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=(K, N)), rng.uniform(0.1, 1, (K, N))
    return tuple(np.float32(a) for a in (rng.normal(size=(B, K)), mean, std))


def voter_keys(seed=0, count=T):
    return jax.random.split(jax.random.key(seed), count)


def voters_by_hand(arrays, draw):
    """Column n of the noise of a voter is drawn from fold_in(key, n), in a loop."""
    x, mean, std = arrays
    column = jax.jit(lambda key, n: draw(jax.random.fold_in(key, n), K))
    noise = np.stack([[column(k, n) for n in range(N)] for k in voter_keys()])
    w = mean.astype(np.float64) + std * noise.transpose(0, 2, 1)
    return np.einsum("bk,tkn->tbn", x, w)


@pytest.fixture(scope="module")
def by_hand(arrays):
    return voters_by_hand(arrays, light)


@pytest.mark.parametrize("method", ["dm", "scale_location"])
@pytest.mark.parametrize(("alpha", "tile"), [(1.0, 10**4), (0.5, 2 * K), (1 / N, 100)])
def test_every_way_gives_the_voters_worked_out_by_hand(
    arrays, by_hand, method, alpha, tile
):
    settings = {"method": method, "alpha": alpha, "tile": tile, "draw": light}
    y = jax.jit(lambda k, *a: draw_matmul(k, *a, **settings))(voter_keys(), *arrays)
    np.testing.assert_allclose(y, by_hand, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_the_default_draw_is_standard_normal(arrays, implementation):
    run = jax.jit(lambda k, *a: draw_matmul(k, *a, implementation=implementation))
    wanted = voters_by_hand(arrays, lambda k, count: jax.random.normal(k, (count,)))
    y = run(voter_keys(), *arrays)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


def one_voter(key, x, mean, std, method):
    return draw_matmul(key[None], x, mean, std, method=method, draw=light)[0]


@pytest.mark.parametrize("method", ["dm", "scale_location"])
def test_maps_over_keys_and_rows_are_voters_branches_and_rows(arrays, method):
    x, mean, std = arrays
    keys = voter_keys(1, 6).reshape(3, 2)

    @jax.jit
    def mapped(keys, x):
        tree = jax.vmap(
            lambda ks, row: jax.vmap(lambda k: one_voter(k, row, mean, std, method))(ks)
        )(keys, x)  # a branch of two voters per row
        rows = jax.vmap(lambda row: one_voter(keys[0, 0], row, mean, std, method))(x)
        return tree, rows

    tree, rows = mapped(keys, x)
    single = jax.jit(lambda k, row: one_voter(k, row, mean, std, "dm"))
    wanted = [[single(keys[g, t], x[g]) for t in range(2)] for g in range(3)]
    np.testing.assert_allclose(tree, np.array(wanted), rtol=1e-5, atol=1e-5)
    shared = [single(keys[0, 0], row) for row in x]
    np.testing.assert_allclose(rows, np.array(shared), rtol=1e-5, atol=1e-5)


def test_a_map_over_matrices_gives_the_product_of_each(arrays):
    x, mean, std = arrays
    keys = voter_keys()
    means = jnp.stack([mean, 2 * mean])
    run = jax.jit(jax.vmap(lambda m: draw_matmul(keys, x, m, std, draw=light)))
    np.testing.assert_allclose(
        run(means)[1] - run(means)[0],
        np.broadcast_to(x @ mean, (T, B, N)),
        atol=1e-5,
    )


def words(key, count):
    """Random words as numbers: a draw that takes no arithmetic."""
    return jax.lax.bitcast_convert_type(jax.random.bits(key, (count,)), jnp.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rows", [1, 4])
def test_counts_are_the_formulas(seed, rows):
    rng = np.random.default_rng(seed)
    k, n, t = (int(rng.integers(2, high)) for high in (90, 40, 30))
    alpha, tile = float(rng.uniform(0.05, 1)), int(rng.integers(1, 4000))
    spec = jax.ShapeDtypeStruct

    def total(method):
        def run(keys, x, mean, std):
            return draw_matmul(
                keys, x, mean, std, method=method, alpha=alpha, tile=tile, draw=words
            )

        return jeff.count(
            run, voter_keys(0, t), spec((rows, k), "float32"),
            spec((k, n), "float32"), spec((k, n), "float32"),
        )  # fmt: skip

    dm, standard = total("dm"), total("scale_location")
    assert dm.multiplications == rows * (t + 2) * k * n
    assert dm.additions == rows * ((t + 1) * k * n - n)
    assert standard.multiplications == t * (rows + 1) * k * n
    assert standard.additions == t * (k * n + rows * n * (k - 1))
    assert dm.random_draws == standard.random_draws == t * k * n
    assert not dm.unknown and not standard.unknown


@pytest.mark.parametrize("rows", [1, 4])
def test_temporary_memory_falls_with_alpha(rows):
    k, n, t, tile = 256, 128, 16, 512
    spec = jax.ShapeDtypeStruct

    def words_of(alpha):
        settings = {"alpha": alpha, "tile": tile, "draw": light}
        run = jax.jit(lambda keys, *a: draw_matmul(keys, *a, **settings))
        arrays = (spec(s, "float32") for s in ((rows, k), (k, n), (k, n)))
        compiled = run.lower(voter_keys(0, t), *arrays).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 4

    measured = {a: words_of(a) for a in (1.0, 0.5, 0.25, 0.125)}
    outputs = 2 * t * rows * n  # made in blocks, then put into the voters' order
    for alpha, held in measured.items():
        assert held <= alpha * rows * k * n + outputs + 6 * tile + 2 * rows * n
    assert sorted(measured.values(), reverse=True) == list(measured.values())
    assert measured[1.0] >= rows * k * n  # the first bound is about something


@pytest.mark.parametrize("method", ["dm", "scale_location"])
def test_derivatives_are_those_of_the_written_out_product(arrays, method):
    x, mean, std = arrays
    keys = voter_keys()

    def loss(implementation, *a):
        settings = {"method": method, "implementation": implementation}
        y = draw_matmul(keys, *a, draw=light, **settings)
        return (y**2).sum()

    got, wanted = (
        jax.jit(jax.grad(lambda *a, name=name: loss(name, *a), argnums=(0, 1, 2)))(
            x, mean, std
        )
        for name in ("xla", "reference")
    )
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"keys": np.zeros((2, 2), np.uint32)}, TypeError, "keys must be typed"),
        ({"x": np.zeros((2, K), int)}, TypeError, "x must be floating"),
        ({"x": np.zeros((2, K + 1), np.float32)}, ValueError, "does not fit"),
        ({"std": np.zeros((K, 1), np.float32)}, ValueError, "one shape"),
        ({"method": "fast"}, ValueError, "method must be one of"),
        ({"alpha": 0.0}, ValueError, "alpha must be in (0, 1], got 0.0"),
        ({"tile": 0}, ValueError, "tile must be positive"),
        ({"implementation": "cuda"}, ValueError, "implementation must be of"),
    ],
)
def test_errors_name_the_argument(arrays, change, error, message):
    x, mean, std = arrays
    arguments = {"keys": voter_keys(), "x": x, "mean": mean, "std": std} | change
    with pytest.raises(error, match=re.escape(message)):
        draw_matmul(**arguments)
