"""Voters with the noise of bayesian-torch are bayesian-torch's voters.

The stored noise is handed out by `draw`, which knows the key of every row: what comes
out is right only if every weight meets the number that the other program gave it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jeff import dm_bnn
from jeff.dm_bnn import keys
from jeff.dm_bnn.flipout import flipped

LAYERS = {"conv": "kernel", "fc1": "weight", "fc2": "weight"}
KEY = jax.random.key(0)


@pytest.fixture
def arrays(golden):
    with np.load(golden("bayesian_torch.npz")) as file:
        return dict(file)


def convolution(x, kernel):
    layout = ("NCHW", "OIHW", "NCHW")
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=layout
    )


def apply(params, x):
    conv, fc1, fc2 = (params[layer] for layer in LAYERS)
    x = convolution(x, conv["kernel"]) + conv["bias"][:, None, None]
    x = jax.nn.relu(x).mean((2, 3))
    x = jax.nn.relu(x @ fc1["weight"].T + fc1["bias"])
    return x @ fc2["weight"].T + fc2["bias"]


def posterior(arrays):
    return {
        layer: {
            part: dm_bnn.MeanField(
                jnp.asarray(arrays[f"{layer}_mu_{part}"]),
                jnp.asarray(arrays[f"{layer}_sigma_{part}"]),
            )
            for part in (matrix, "bias")
        }
        for layer, matrix in LAYERS.items()
    }


def stored_noise(arrays, voters):
    """``draw(key, count)``: the stored row that belongs to the key.

    A row is what one output takes: all of a channel's kernel, a row of a matrix, a
    bias. Level l has a branch for each voter if l = 1, and one otherwise.
    """
    patterns, rows = {}, {}
    for layer, matrix in LAYERS.items():
        for part in (matrix, "bias"):
            noise = arrays[f"{layer}_eps_{part}"]
            noise = noise[:, None] if part == "bias" else noise
            noise = noise.reshape(*noise.shape[:2], -1)  # voters, rows, numbers
            of_leaf = keys.leaf_key(KEY, f"{layer}.{part}")

            def of_row(voter, row, of_leaf=of_leaf):
                of_voter = keys.voter_key(of_leaf, (voter,), 1, shared=False)
                return jax.random.key_data(jax.random.fold_in(of_voter, row))

            each = jax.vmap(jax.vmap(of_row, (None, 0)), (0, None))
            found = each(jnp.arange(voters), jnp.arange(noise.shape[1]))
            width = noise.shape[2]
            patterns.setdefault(width, []).append(np.asarray(found).reshape(-1, 2))
            rows.setdefault(width, []).append(noise.reshape(-1, width))
    patterns = {width: jnp.concatenate(p) for width, p in patterns.items()}
    rows = {width: np.concatenate(r) for width, r in rows.items()}

    def draw(key, count):
        same = (patterns[count] == jax.random.key_data(key)).all(-1)
        # A key that belongs to no row is an error that must not pass for noise.
        row = jnp.where(same.any(), same.argmax(), len(same))
        return jnp.asarray(rows[count]).at[row].get(mode="fill", fill_value=jnp.nan)

    return draw


@pytest.mark.parametrize("mode", ["naive", "dm"])
def test_logits_of_all_voters(arrays, mode):
    voters = int(arrays["T"])
    draw = stored_noise(arrays, voters)

    @jax.jit
    def run(posterior, x):
        return dm_bnn.predict(
            apply, posterior, x, KEY, voters=voters, mode=mode, draw=draw
        )

    found = run(posterior(arrays), arrays["x"])
    assert found.shape == arrays["logits"].shape == (16, 4, 10)
    np.testing.assert_allclose(found, arrays["logits"], atol=1e-5)
    assert arrays["logits"].std(0).min() > 1e-3  # the voters do differ


@pytest.mark.parametrize("layer", ["conv", "fc"])
def test_flipout(arrays, layer):
    of = {"conv": "conv", "fc": "fc1"}[layer]
    w, bias = (posterior(arrays)[of][part] for part in (LAYERS[of], "bias"))
    stored = {
        name: jnp.asarray(arrays[f"flip_{layer}_{name}"])
        for name in (f"eps_{LAYERS[of]}", "eps_bias", "sign_in", "sign_out", "out")
    }
    signs = [stored[name].astype(jnp.float32) for name in ("sign_in", "sign_out")]
    noise = stored[f"eps_{LAYERS[of]}"]
    if layer == "conv":
        op, x, wide = convolution, arrays["x"], bias.mean[:, None, None].shape
    else:
        op, x, wide = (lambda x, w: x @ w.T), arrays["flip_fc_x"], bias.shape
    # That program's bias is random too, and is flipped with its layer.
    changed = (bias.std * stored["eps_bias"]).reshape(wide) * signs[1]
    found = flipped(op, x, w, noise, *signs) + bias.mean.reshape(wide) + changed
    np.testing.assert_allclose(found, stored["out"], atol=1e-5)
    without = flipped(op, x, w, noise, *[jnp.ones_like(s) for s in signs])
    assert np.abs(without + bias.mean.reshape(wide) - stored["out"]).max() > 1e-2
