import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_reference as ref
from support import mbq_reference_run as run
from support import mbq_toy
from support.mbq_toy_numpy import Toy

from jeff.mbq.scales.smoothquant import channel_max, smoothquant_scale


@pytest.mark.parametrize("which", ["mha", "gqa"])
def test_original_scales(which):
    meta, z = mbq_toy.load(which)
    toy = Toy(mbq_toy.make_params(meta), mbq_toy.make_batch(z))
    x = toy.x0
    for layer, p in zip(mbq_toy.layer_names(meta), toy.blocks, strict=True):
        x, seen = run.capture(p, x, toy.mask)
        for group in ("self_attn.q_proj", "mlp.gate_proj"):
            names, norm, _ = run.GROUPS[group]
            peak = channel_max(jnp.asarray(seen[group]))
            stored = z[f"smoothquant/{layer}.{group}/absmax"]
            np.testing.assert_allclose(peak, stored, rtol=5e-6)
            weight = jnp.stack([channel_max(p[f"{n}.weight"]) for n in names])
            got = smoothquant_scale(peak, weight.max(axis=0))
            stored = z[f"smoothquant/{layer}.{norm}/scale"]
            np.testing.assert_allclose(got, stored, rtol=2e-6)


def test_against_float64_reference():
    rng = np.random.default_rng(0)
    x, w = 10.0 ** rng.uniform(-4, 3, (2, 200, 12))
    alpha = rng.uniform(size=200)
    got = jax.vmap(smoothquant_scale)(
        *(jnp.asarray(a, jnp.float32) for a in (x, w, alpha))
    )
    want = [
        ref.smoothquant_scale(a, [b[None]], c)
        for a, b, c in zip(x, w, alpha, strict=True)
    ]
    np.testing.assert_allclose(got, want, rtol=5e-6)


def test_half_the_difficulty_each():
    """At alpha 0.5 scaled activations and weights have the same largest value."""
    x, w = jnp.array([16.0, 0.25, 3.0]), jnp.array([1.0, 4.0, 0.1])
    s = smoothquant_scale(x, w)
    np.testing.assert_allclose(x / s, w * s, rtol=1e-6)


def test_dead_channels_stay_finite():
    s = smoothquant_scale(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]))
    assert jnp.isfinite(s).all() and s.min() > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smoothquant_scale(jnp.ones(3), jnp.ones(2)), r"\(3,\) and \(2,\)"),
        (lambda: smoothquant_scale(jnp.ones(3), jnp.ones(3), 1.5), "got 1.5"),
        (lambda: channel_max(jnp.float32(1)), "got a scalar"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
