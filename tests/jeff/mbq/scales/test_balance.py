import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_reference as ref
from support import mbq_reference_run as run
from support import mbq_toy
from support.mbq_toy_numpy import Toy

from jeff.mbq.calibration.token_weights import token_weights
from jeff.mbq.scales import balance, objective

CASES, C = 1000, 24


@pytest.fixture(scope="module")
def magnitudes():
    """A thousand random magnitudes over eight decades, some channels dead."""
    rng = np.random.default_rng(0)
    m = 10.0 ** rng.uniform(-5, 3, (CASES, C))
    m[rng.uniform(size=m.shape) < 0.02] = 0.0
    return m.astype(np.float32)


def all_candidates(magnitude):
    return jax.vmap(balance.balance_scale, (None, 0))(magnitude, balance.balance_grid())


def test_against_float64_reference(magnitudes):
    got = jax.jit(jax.vmap(all_candidates))(magnitudes)
    want = [
        [ref.scale(m.astype(np.float64), i / ref.GRID) for i in range(ref.GRID)]
        for m in magnitudes
    ]
    np.testing.assert_allclose(got, want, rtol=2e-6)


def test_alpha_zero_is_exactly_one(magnitudes):
    got = jax.vmap(lambda m: balance.balance_scale(m, 0.0))(magnitudes)
    np.testing.assert_array_equal(got, 1.0)


def test_centred_and_positive(magnitudes):
    got = np.asarray(jax.vmap(all_candidates)(magnitudes), np.float64)
    np.testing.assert_allclose(got.max(-1) * got.min(-1), 1.0, rtol=2e-6)
    assert got.min() > 0


def test_larger_magnitude_never_gets_a_smaller_scale(magnitudes):
    got = jax.vmap(all_candidates)(np.sort(magnitudes, axis=-1))
    assert (np.diff(got, axis=-1) >= 0).all()


def test_permutation_equivariance(magnitudes):
    order = np.random.default_rng(1).permutation(C)
    got = jax.vmap(all_candidates)(magnitudes[:, order])
    np.testing.assert_array_equal(got, jax.vmap(all_candidates)(magnitudes)[..., order])


def test_grid_is_exact():
    want = np.array([i * 1 / 20 for i in range(20)], np.float32)
    np.testing.assert_array_equal(balance.balance_grid(), want)


@pytest.mark.parametrize("which", ["mha", "gqa"])
def test_original_scales(which):
    _, z = mbq_toy.load(which)
    checked = 0
    for key in z:
        tag, _, rest = key.partition("/")
        if not key.endswith("/scale") or not tag.endswith(("_rw", "_plain")):
            continue
        group = rest.removesuffix("/scale")
        alpha = int(z[f"{tag}/{group}/alpha20"]) / 20
        got = balance.balance_scale(z[f"actscale/{group}"], alpha)
        np.testing.assert_allclose(got, z[key], rtol=2e-6)
        checked += 1
    assert checked == 8 * 3 * (4 if which == "mha" else 3)


@pytest.mark.parametrize("which", ["mha", "gqa"])
@pytest.mark.parametrize("kind", ["mae", "mse"])
def test_original_search_of_single_linears(which, kind):
    """Scale, weights, loss and choice together, around the NumPy quantizer."""
    meta, z = mbq_toy.load(which)
    params, batch = mbq_toy.make_params(meta), mbq_toy.make_batch(z)
    toy, tag = Toy(params, batch), f"w3_{kind}_rw"
    masks = {"vision": batch["vision_mask"], "language": batch["caption_mask"]}
    loss = jax.jit(getattr(objective, kind))
    x = toy.x0
    for layer, p in zip(mbq_toy.layer_names(meta), toy.blocks, strict=True):
        x, seen = run.capture(p, x, toy.mask)
        key, w = f"{tag}/{layer}.mlp.down_proj", p["mlp.down_proj.weight"]
        inputs = seen["mlp.down_proj"]
        magnitude = balance.activation_magnitude(jnp.asarray(inputs)).value
        np.testing.assert_allclose(
            magnitude, z[f"actscale/{layer}.mlp.down_proj"], rtol=2e-6
        )
        weights = token_weights(
            masks,
            {"vision": z[f"{key}/ratio"], "language": 1.0},
            average="tokens" if kind == "mae" else "modalities",
        )
        candidates = np.asarray(all_candidates(magnitude))
        losses = jnp.stack(
            [
                loss(
                    inputs @ w.T,
                    inputs @ (ref.asymmetric(w * s, 3, meta["group"]) / s).T,
                    weights,
                ).value
                for s in candidates
            ]
        )
        np.testing.assert_allclose(losses, z[f"{key}/loss"], rtol=1e-4)
        best = int(balance.best_candidate(losses))
        assert best == z[f"{key}/alpha20"]
        np.testing.assert_allclose(candidates[best], z[f"{key}/scale"], rtol=2e-6)


def test_shared_scale_folds_into_grouped_values():
    """One scale per value channel lets o_proj of a grouped-query block be scaled."""
    meta, z = mbq_toy.load("gqa")
    params, batch = mbq_toy.make_params(meta), mbq_toy.make_batch(z)
    layer, size = params["model"]["layers"][0], meta["d"] // meta["heads"]
    channel = np.arange(meta["d"])
    share = channel // size // 2 * size + channel % size
    magnitude = jnp.asarray(z["actscale/model.layers.0.self_attn.q_proj"])
    s = balance.balance_scale(magnitude, 0.95, share=share)
    assert s.max() / s.min() > 5  # or the test would show nothing
    kv = np.asarray([int(np.flatnonzero(share == c)[0]) for c in range(meta["d"] // 2)])
    attention = dict(layer["self_attn"])
    attention["o_proj"] = {"weight": attention["o_proj"]["weight"] * s}
    attention["v_proj"] = {
        "weight": attention["v_proj"]["weight"] / s[kv][:, None],
        "bias": attention["v_proj"]["bias"] / s[kv],
    }
    x = jnp.asarray(Toy(params, batch).x0)
    want = mbq_toy.run_block(layer, x, batch["attention_mask"])
    got = mbq_toy.run_block(
        layer | {"self_attn": attention}, x, batch["attention_mask"]
    )
    np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_shared_scale_is_that_of_the_reduced_magnitude(magnitudes, reduce):
    rng = np.random.default_rng(2)
    share = rng.integers(0, 7, C) * 3  # some classes of [0, C) stay empty
    small = np.unique(share)
    m = magnitudes[:100]

    @jax.jit
    def one(m, share):
        return balance.balance_scale(m, 0.6, share=share, reduce=reduce)

    got = jax.vmap(one, (0, None))(m, share)
    fold = {"max": np.max, "mean": np.mean}[reduce]
    classes = np.stack([fold(m[:, share == c], axis=1) for c in small], axis=1)
    want = jax.vmap(lambda m: balance.balance_scale(m, 0.6))(classes)
    np.testing.assert_allclose(got, want[:, np.searchsorted(small, share)], rtol=2e-6)


def test_sharing_nothing_is_no_sharing(magnitudes):
    got = balance.balance_scale(magnitudes[0], 0.3, share=np.arange(C), reduce="mean")
    np.testing.assert_array_equal(got, balance.balance_scale(magnitudes[0], 0.3))


def test_magnitude_streams_in_any_dtype():
    x = np.random.default_rng(3).normal(size=(4, 10, C))
    got = balance.activation_magnitude(jnp.asarray(x[0], jnp.float32))
    for sample in x[1:]:
        got = got.merge(balance.activation_magnitude(jnp.asarray(sample, jnp.float32)))
    np.testing.assert_allclose(got.value, ref.magnitude(x), rtol=1e-6)
    half = balance.activation_magnitude(jnp.asarray(x, jnp.bfloat16))
    assert half.total.dtype == jnp.float32 and half.count == 40


def test_first_of_equal_losses_wins_and_nan_never():
    losses = jnp.array([[3.0, 1.0, 1.0], [jnp.nan, 2.0, 1.0], [jnp.nan] * 3])
    np.testing.assert_array_equal(balance.best_candidate(losses), [1, 2, 0])


def test_one_trace_for_all_alphas(magnitudes):
    @jax.jit
    @chex.assert_max_traces(1)
    def scale(alpha):
        return balance.balance_scale(magnitudes[0], alpha)

    np.testing.assert_allclose(
        jnp.stack([scale(a) for a in balance.balance_grid()]),
        all_candidates(magnitudes[0]),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: balance.balance_scale(m[None], 0.5), ValueError, r"\(1, 3\)"),
        (
            lambda m: balance.balance_scale(m, m),
            ValueError,
            r"scalar, got shape \(3,\)",
        ),
        (
            lambda m: balance.balance_scale(m, 0.5, share=[0, 1]),
            ValueError,
            r"shape \(3,\), got \(2,\)",
        ),
        (
            lambda m: balance.balance_scale(m, 0.5, share=np.array([0, 1, 3])),
            ValueError,
            "from 0 to 3",
        ),
        (
            lambda m: balance.balance_scale(m, 0.5, share=np.ones(3)),
            TypeError,
            "got float",
        ),
        (
            lambda m: balance.balance_scale(m, 0.5, share=[0, 1, 1], reduce="sum"),
            ValueError,
            "got 'sum'",
        ),
        (lambda m: balance.balance_grid(0), ValueError, "got 0"),
        (lambda m: balance.activation_magnitude(m[0]), ValueError, "got a scalar"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.ones(3))
