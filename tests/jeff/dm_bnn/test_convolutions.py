"""Convolutions: a voter has one kernel for all positions, drawn whole and counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from support.draws import light

from jeff import dm_bnn

KEY = jax.random.key(7)
LAYOUTS = {  # of images, kernels and outputs; axes of a kernel's [Co, Ci, kh, kw]
    "channels first": (("NCHW", "OIHW", "NCHW"), (0, 1, 2, 3)),
    "channels last": (("NHWC", "HWIO", "NHWC"), (3, 2, 0, 1)),
}


def net(layout):
    """Two convolutions, so that the second meets images that voters made."""
    dimensions, _ = LAYOUTS[layout]

    def apply(p, x):
        x = lax.conv_general_dilated(
            x, p["first"], (1, 1), "VALID", dimension_numbers=dimensions
        )
        return lax.conv_general_dilated(
            jnp.tanh(x), p["second"], (2, 2), "VALID", dimension_numbers=dimensions
        )

    return apply


def posterior(layout, *shapes):
    """Kernels given as ``[Co, Ci, kh, kw]``."""
    _, axes = LAYOUTS[layout]
    back = np.argsort(axes)  # OIHW to the layout
    rng = np.random.default_rng(1)
    params = {
        name: jnp.asarray(rng.normal(size=shape).transpose(back), jnp.float32)
        for name, shape in zip(("first", "second"), shapes, strict=True)
    }
    return dm_bnn.posterior(params, 0.4)


def drawn(layout, name, w, path):
    """A voter's kernel by hand: a key per output channel, in the layout's order."""
    _, axes = LAYOUTS[layout]
    key = dm_bnn.leaf_key(KEY, name)
    for branch in path:
        key = jax.random.fold_in(key, branch)
    channels = w.shape[axes[0]]
    shape = np.delete(w.shape, axes[0])
    noise = [
        light(jax.random.fold_in(key, n), int(np.prod(shape))).reshape(shape)
        for n in range(channels)
    ]
    return w.mean + w.std * jnp.stack(noise, axes[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_exact_mode_gives_kernels_drawn_by_hand(layout):
    random = posterior(layout, (3, 2, 3, 2), (4, 3, 2, 2))
    shape = (2, 2, 6, 5) if layout == "channels first" else (2, 6, 5, 2)
    x = jnp.asarray(np.random.default_rng(2).normal(size=shape), jnp.float32)
    apply, tree = net(layout), (2, 3)

    @jax.jit
    def run(x):
        settings = {"voters": tree, "draw": light}
        modes = ("naive", "hybrid", "dm")
        return [
            dm_bnn.predict(apply, random, x, KEY, mode=m, **settings) for m in modes
        ]

    @jax.jit
    def plain(x):
        outs = []
        for i, j in np.ndindex(*tree):
            paths = {"first": (i,), "second": (i, j)}
            kernels = {n: drawn(layout, n, w, paths[n]) for n, w in random.items()}
            outs.append(apply(kernels, x))
        return jnp.stack(outs)

    wanted = plain(x)
    for found in run(x):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(np.diff(wanted, axis=0)).max(axis=(1, 2, 3, 4)).min() > 1e-2


@pytest.mark.parametrize("seed", range(2))
def test_counts_are_those_of_one_kernel_for_all_positions(seed):
    """``T Co K (1 + P)`` products of a layer, K of a patch, P positions of all images.

    Decomposition would take ``P (T + 2) Co K`` and is not done, in no mode.
    """
    rng = np.random.default_rng(seed)
    b, t, ci, c1, c2 = rng.integers(1, 6, 5).tolist()
    (h1, w1), (h2, w2) = rng.integers(1, 4, (2, 2)).tolist()
    height, width = rng.integers(8, 12, 2).tolist()
    shapes = (c1, ci, h1, w1), (c2, c1, h2, w2)
    random = posterior("channels first", *shapes)
    first = height - h1 + 1, width - w1 + 1
    second = (first[0] - h2) // 2 + 1, (first[1] - w2) // 2 + 1
    products = sums = draws = 0
    for shape, positions in zip(shapes, (first, second), strict=True):
        channels, patch = shape[0], int(np.prod(shape[1:]))
        p = b * int(np.prod(positions))
        products += t * channels * patch * (1 + p)
        sums += t * channels * (patch + p * (patch - 1))
        draws += t * channels * patch
    for mode in ("naive", "hybrid", "dm", "best"):
        found = dm_bnn.voter_count(
            net("channels first"), random, jnp.ones((b, ci, height, width)),
            voters=t, mode=mode,
        )  # fmt: skip
        assert found.multiplications == products, mode
        assert found.additions == sums, mode
        assert found.random_draws == draws, mode
        assert not found.unknown


def test_local_reparameterisation_of_a_kernel_is_refused():
    random = posterior("channels first", (2, 1, 3, 3), (2, 2, 1, 1))
    with pytest.raises(ValueError, match="'first': a convolution uses one kernel"):
        dm_bnn.predict(
            net("channels first"), random, jnp.ones((2, 1, 5, 5)), KEY, voters=3,
            mode="lrt",
        )  # fmt: skip
