import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_reference as ref

from jeff.mbq.calibration.token_weights import token_weights
from jeff.mbq.scales import objective

CASES, B, N, C = 1000, 2, 7, 5


@pytest.fixture(scope="module")
def cases():
    """A thousand random outputs, modality masks and ratios, in float64."""
    rng = np.random.default_rng(0)
    original = rng.normal(size=(CASES, B, N, C)) * 10.0 ** rng.uniform(
        -3, 3, (CASES, 1, 1, 1)
    )
    candidate = original * (1 + 0.1 * rng.normal(size=original.shape))
    kind = rng.integers(0, 3, (CASES, B, N))
    kind[:, 0, :2] = 1, 2  # both modalities have a token
    return original, candidate, kind == 1, kind == 2, rng.uniform(0.01, 2.0, CASES)


@pytest.mark.parametrize("kind", ["mae", "mse"])
@pytest.mark.parametrize("form", ["balanced", "answer", "plain"])
def test_against_float64_reference(cases, kind, form):
    """Relative error of float32: differences near 0.1 of the outputs lose one digit."""
    original, candidate, vision, answer, ratio = cases
    loss = getattr(objective, kind)
    average = "tokens" if kind == "mae" else "modalities"

    def one(original, candidate, vision, answer, ratio):
        masks = {"vision": vision, "language": answer}
        if form == "balanced":
            weights = token_weights(
                masks, {"vision": ratio, "language": 1.0}, average=average
            )
        else:
            weights = None if form == "plain" else answer.astype(jnp.float32)
        return loss(original, candidate, weights).value

    got = jax.jit(jax.vmap(one))(
        *(jnp.asarray(a, jnp.float32) for a in (original, candidate)),
        vision,
        answer,
        jnp.asarray(ratio, jnp.float32),
    )
    want = []
    for y, z, v, a, r in zip(*cases, strict=True):
        masks = {"answer": a, "vision": v, "ratio": r}
        if form == "answer":
            masks = {"answer": a}
        want.append(
            ref.objective(y, z, kind=kind, **({} if form == "plain" else masks))
        )
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_arbitrary_token_weights_by_hand():
    y = jnp.array([[[1.0, 1.0], [2.0, 4.0], [5.0, 5.0]]])
    weights = jnp.array([[0.5, 2.0, 0.0]])
    got = objective.mae(y, jnp.zeros_like(y), weights)
    assert (got.total, got.count) == (0.5 * 2 + 2 * 6, 4)
    got = objective.mse(y, jnp.zeros_like(y), weights)
    assert (got.total, got.count) == (0.5 * 2 + 2 * 20, 4)


@pytest.mark.parametrize("loss", [objective.mae, objective.mse])
def test_plain_mean_includes_padding(loss):
    y = jnp.ones((1, 4, 3)).at[0, 3].set(3.0)
    got = loss(y, jnp.zeros_like(y)).value
    np.testing.assert_allclose(got, 1.5 if loss is objective.mae else 3.0)


@pytest.mark.parametrize("loss", [objective.mae, objective.mse])
@pytest.mark.parametrize("weighted", [False, True])
def test_batches_stream(cases, loss, weighted):
    y, z = (jnp.asarray(a[0], jnp.float32) for a in cases[:2])
    weights = jnp.asarray(cases[2][0], jnp.float32) if weighted else None
    whole = loss(y, z, weights)
    parts = [
        loss(
            y[i : i + 1], z[i : i + 1], None if weights is None else weights[i : i + 1]
        )
        for i in range(B)
    ]
    merged = parts[0].merge(parts[1])
    np.testing.assert_allclose(merged.value, whole.value, rtol=1e-6)
    assert merged.count == whole.count


def test_constant_factors_of_the_weights_do_not_move_the_minimum(cases):
    original, candidate, vision, answer, ratio = (a[:50] for a in cases)
    weights = jnp.asarray(vision[0] * ratio[0] + answer[0], jnp.float32)
    values = {}
    for factor in (1.0, 7.0):
        values[factor] = [
            objective.mae(
                jnp.asarray(original[0], jnp.float32),
                jnp.asarray(c, jnp.float32),
                weights * factor,
            ).value
            for c in candidate
        ]
    assert np.argmin(values[1.0]) == np.argmin(values[7.0])


def test_half_precision_is_compared_in_float32():
    y = jnp.full((1, 4096, 4), 3.0, jnp.bfloat16)
    got = objective.mae(y, jnp.zeros_like(y), jnp.ones((1, 4096), jnp.bfloat16))
    assert got.total.dtype == got.count.dtype == jnp.float32
    assert got.total == 3.0 * y.size  # a bfloat16 sum would stop at 1024


def test_nothing_counted_is_nan_not_zero():
    y = jnp.ones((1, 2, 3))
    assert jnp.isnan(objective.mae(y, y, jnp.zeros((1, 2))).value)


def test_gradient_of_mae_is_the_weighted_sign():
    y = jnp.array([[[1.0, -2.0], [3.0, 4.0]]])
    weights = jnp.array([[2.0, 0.0]])
    grad = jax.grad(lambda z: objective.mae(y, z, weights).value)(jnp.zeros_like(y))
    np.testing.assert_allclose(grad, [[[-1.0, 1.0], [0.0, 0.0]]])


def test_one_trace_for_all_candidates(cases):
    y = jnp.asarray(cases[0][0], jnp.float32)

    @jax.jit
    @chex.assert_max_traces(1)
    def loss(candidate):
        return objective.mse(y, candidate).value

    assert loss(y) == 0
    assert loss(2 * y) > 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda y: objective.mae(y, y[:, 1:]), ValueError, r"\(1, 3, 2\)"),
        (
            lambda y: objective.mse(y, y, jnp.ones((1, 4))),
            ValueError,
            r"tokens \(1, 3\), got \(1, 4\)",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.ones((1, 3, 2)))
