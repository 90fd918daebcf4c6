import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_reference as ref
from support import mbq_reference_run as run
from support import mbq_toy
from support.mbq_toy_numpy import LINEARS, Toy

from jeff.mbq.clip.search import clip_search, clip_weight

# Compiled whole; that the eager search finds the same is a test of its own.
search = jax.jit(
    clip_search,
    static_argnums=2,
    static_argnames=("group_size", "grid", "max_shrink", "tokens"),
)


@functools.cache
def asymmetric(bits):
    """A quantizer of one group ``[size, out]``, exact divisions as in the reference."""

    def exact(a, b):
        return a / jax.lax.optimization_barrier(jnp.broadcast_to(b, a.shape))

    def quantize(w):
        top = jnp.float32(2**bits - 1)
        high, low = w.max(axis=0, keepdims=True), w.min(axis=0, keepdims=True)
        step = exact(jnp.maximum(high - low, 1e-5), top)
        zero = jnp.clip(-jnp.round(exact(low, step)), 0.0, top)
        code = jnp.clip(jnp.round(exact(w, step)) + zero, 0.0, top)
        return (code - zero) * step

    return quantize


@pytest.mark.parametrize(("which", "bits"), [("mha", 3), ("gqa", 4)])
def test_original_limits(which, bits):
    """On weights and inputs scaled in the original's order; gate 98 % equal."""
    meta, z = mbq_toy.load(which)
    toy = Toy(mbq_toy.make_params(meta), mbq_toy.make_batch(z))
    p, group = toy.blocks[0], meta["group"]
    seen = run.capture(p, toy.x0, toy.mask)[1]
    for name, (members, _, _) in run.GROUPS.items():
        if f"awq_w{bits}/{name}/scale" not in z:
            continue
        s = z[f"awq_w{bits}/{name}/scale"]
        p = run.fold(p, {name: s})
        seen |= {member: seen[member] / s for member in members}
    for name in LINEARS[2:]:
        got = search(
            p[f"{name}.weight"].T,
            seen[name],
            asymmetric(bits),
            group_size=group,
            tokens=60,
        )
        want = z[f"awq_w{bits}/{name}/clip_max"].T
        assert got.shape == want.shape
        assert (np.abs(got / want - 1) < 1e-5).mean() >= 0.98, name


@pytest.mark.parametrize("seed", range(5))
def test_against_float64_reference(seed):
    """No limit is worse than the reference's by more than rounding."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(6, 32)) * np.where(rng.uniform(size=(6, 32)) < 0.1, 5, 1)
    x = rng.normal(size=(2, 20, 32)) * 10.0 ** rng.uniform(-1, 1, 32)
    got = search(
        jnp.asarray(w.T, jnp.float32), jnp.asarray(x), asymmetric(3), group_size=16
    )
    want = ref.clip_limits(w, x, 3, 16, samples=40)

    def error(limits):
        clipped = np.clip(w.reshape(6, 2, 16), -limits[..., None], limits[..., None])
        change = ref.asymmetric(clipped, 3, None) - w.reshape(6, 2, 16)
        products = np.einsum("bngi,ogi->bngo", x.reshape(2, 20, 2, 16), change)
        return (products**2).mean(axis=(0, 1)).T  # [out, groups]

    assert (error(np.asarray(got.T, np.float64)) <= error(want) * 1.001).all()


def test_limits_are_of_the_grid():
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(8, 5)), rng.normal(size=(30, 8))
    w, x = jnp.asarray(w, jnp.float32), jnp.asarray(x, jnp.float32)
    got = search(w, x, asymmetric(2), grid=10, max_shrink=0.3)
    fraction = np.asarray(got / jnp.abs(w).max(axis=0))
    assert np.isclose(fraction[..., None], [1.0, 0.9, 0.8]).any(axis=-1).all()
    assert (fraction < 0.99).any()


def test_a_perfect_quantizer_clips_nothing():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(8, 5)), jnp.float32)
    got = clip_search(w, jnp.ones((30, 8)), lambda w: w, group_size=4)
    np.testing.assert_array_equal(got, jnp.abs(w).reshape(2, 4, 5).max(axis=1))
    np.testing.assert_array_equal(clip_weight(w, got), w)


def test_sampling_takes_every_nth_token():
    rng = np.random.default_rng(4)
    w = jnp.asarray(rng.normal(size=(8, 5)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(2, 35, 8)), jnp.float32)
    got = clip_search(w, x, asymmetric(2), tokens=20)
    want = clip_search(w, x.reshape(70, 8)[::3], asymmetric(2))
    np.testing.assert_array_equal(got, want)


def test_jit_vmap_and_no_retrace():
    rng = np.random.default_rng(5)
    w = jnp.asarray(rng.normal(size=(3, 8, 5)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(3, 20, 8)), jnp.float32)

    @chex.assert_max_traces(1)
    def traced(w, x):
        return clip_search(w, x, asymmetric(3), group_size=4)

    fast = jax.jit(traced)
    loop = jnp.stack([fast(a, b) for a, b in zip(w, x, strict=True)])
    eager = clip_search(w[0], x[0], asymmetric(3), group_size=4)
    np.testing.assert_allclose(loop[0], eager, rtol=1e-6)
    mapped = jax.vmap(lambda w, x: clip_search(w, x, asymmetric(3), group_size=4))
    together = jax.jit(mapped)(w, x)
    np.testing.assert_allclose(together, loop, rtol=1e-6)


def test_clipping_keeps_the_dtype():
    w = jnp.array([[1.0], [-3.0]], jnp.bfloat16)
    got = clip_weight(w, jnp.array([[2.0]]))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got.astype(jnp.float32), [[1.0], [-2.0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": jnp.ones(4)}, r"got \(4,\)"),
        ({"x": jnp.ones((2, 5))}, r"4 inputs of w last, got shape \(2, 5\)"),
        ({"group_size": 3}, "4 inputs, got 3"),
        ({"grid": 0}, "grid=0"),
        ({"max_shrink": 1.5}, "max_shrink=1.5"),
        ({"max_shrink": 0.01}, "max_shrink=0.01"),
        ({"tokens": 0}, "got 0"),
    ],
)
def test_bad_input(change, message):
    settings = {"w": jnp.ones((4, 2)), "x": jnp.ones((3, 4))} | change
    w, x = settings.pop("w"), settings.pop("x")
    with pytest.raises(ValueError, match=message):
        clip_search(w, x, lambda w: w, **settings)


def test_bad_limits():
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(1, 3\)"):
        clip_weight(jnp.ones((4, 2)), jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="4 inputs of w do not divide into 3"):
        clip_weight(jnp.ones((4, 2)), jnp.ones((3, 2)))
