"""Channel sources: what can be scaled in front of a linear, exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import tree
from jeff.program import channels, trace
from jeff.program.sites import find

D, F, HEADS, KV, HD = 8, 12, 4, 2, 4


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape) / shape[0] ** 0.5


def look(apply, params, x, site):
    """``(sources, share, targets)`` of a site, or ``None``."""
    found = find(trace.tracer_of(apply).trace(params, (x,), {}))
    step = found.steps[site]
    contract, _ = step.eqn.params["dimension_numbers"]
    w, other = contract[step.weight], contract[1 - step.weight]
    order = sorted(range(len(w)), key=lambda i: w[i])
    sources = channels.find_sources(step, [other[i] for i in order])
    targets = channels.weight_channels(step, [w[i] for i in order])
    if sources is None or targets is None:
        return None
    share = np.maximum(sources[1], targets[1])
    for _ in range(share.size):  # the finest classes that respect both
        for a in (sources[1], targets[1]):
            for c in np.unique(a):
                share[a == c] = share[a == c].min()
    return sources[0], share, targets[0]


def fold(params, sources, share, targets, seed=7):
    """`params` with random scales, one per class, folded in."""
    draws = np.exp(np.random.default_rng(seed).normal(size=share.size)).astype("f4")
    scale = jnp.append(jnp.asarray(draws[share]), 1.0)
    leaves, treedef = tree.flatten(params)
    for name, found in sources.items():
        w = leaves[name] + found.offset
        leaves[name] = w / scale[found.index] - found.offset
    for name, found in targets.items():
        leaves[name] = leaves[name] * scale[found.index]
    return treedef.unflatten(list(leaves.values()))


def check(apply, params, x, site, expected, classes=None, rtol=1e-4):
    """The sources are the expected leaves, and folding changes nothing."""
    sources, share, targets = look(apply, params, x, site)
    assert set(sources) == set(expected)
    assert set(targets) == {site}
    if classes is not None:
        assert len(np.unique(share)) == classes
    y, z = apply(params, x), apply(fold(params, sources, share, targets), x)
    size = float(jnp.abs(y).max())
    np.testing.assert_allclose(z, y, rtol=0, atol=rtol * size)
    assert float(jnp.abs(y - apply({**params}, 2 * x)).max()) > 0  # not constant


def layer_norm(x, scale, bias):
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale + bias


def rms_norm(x, scale):
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale


X = normal(0, 3, D)


def test_a_norms_scale_and_bias():
    def apply(p, x):
        h = layer_norm(x, p["scale"], p["bias"])
        return jnp.tanh(h @ p["q"]) + jnp.sin(h @ p["k"])

    p = {"scale": 1 + normal(1, D), "bias": normal(2, D),
         "q": normal(3, D, D), "k": normal(4, D, D)}  # fmt: skip
    sources, share, targets = look(apply, p, X, "q")
    assert set(sources) == {"scale", "bias"} and len(np.unique(share)) == D
    # Both linears share the input, so both take the scale.
    _, _, more = look(apply, p, X, "k")
    folded = fold(p, sources, share, {**targets, **more})
    np.testing.assert_allclose(apply(folded, X), apply(p, X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("swap", [False, True])
def test_a_scale_stored_around_zero(swap):
    def apply(p, x):
        scale = p["scale"] + 1.0 if swap else 1.0 + p["scale"]
        return rms_norm(x, scale) @ p["w"]

    p = {"scale": normal(1, D), "w": normal(2, D, D)}
    check(apply, p, X, "w", {"scale"}, D)
    assert look(apply, p, X, "w")[0]["scale"].offset == 1.0


def test_a_norm_in_another_dtype():
    def apply(p, x):
        h = rms_norm(x.astype(jnp.float32), 1.0).astype(x.dtype)
        return (h * p["scale"].astype(h.dtype)) @ p["w"]

    p = {"scale": 1 + normal(1, D), "w": normal(2, D, D)}
    check(apply, p, X, "w", {"scale"}, D)


def test_two_linears_in_sequence_with_a_bias():
    def apply(p, x):
        return (x @ p["a"] + p["b"]) @ p["c"]

    p = {"a": normal(1, D, F), "b": normal(2, F), "c": normal(3, F, D)}
    check(apply, p, X, "c", {"a", "b"}, F)


@pytest.mark.parametrize(
    "relu", [jax.nn.relu, lambda h: jnp.maximum(h, 0.0)], ids=["relu", "maximum"]
)
def test_a_relu_lets_positive_scales_through(relu):
    def apply(p, x):
        return relu(x @ p["up"] + p["b"]) @ p["down"]

    p = {"up": normal(1, D, F), "b": normal(2, F), "down": normal(3, F, D)}
    check(apply, p, X, "down", {"up", "b"}, F)


@pytest.mark.parametrize("act", [jax.nn.silu, jax.nn.gelu, jax.nn.relu, jax.nn.sigmoid])
def test_a_gated_mlp_scales_up_and_not_the_gate(act):
    def apply(p, x):
        return (act(x @ p["gate"]) * (x @ p["up"])) @ p["down"]

    p = {"gate": normal(1, D, F), "up": normal(2, D, F), "down": normal(3, F, D)}
    sources, share, targets = look(apply, p, X, "down")
    y, z = apply(p, X), apply(fold(p, sources, share, targets), X)
    np.testing.assert_allclose(z, y, rtol=1e-4, atol=1e-5)
    if act is not jax.nn.relu:  # either factor would do
        assert set(sources) == {"up"}


@pytest.mark.parametrize("act", [jax.nn.silu, jax.nn.sigmoid, jnp.tanh, jax.nn.softmax])
def test_a_nonlinearity_is_refused_or_its_fold_is_seen_to_be_wrong(act):
    # x * sigmoid(x) looks like a product; the numerical check of a fold decides.
    def apply(p, x):
        return act(x @ p["up"]) @ p["down"]

    p = {"up": normal(1, D, F), "down": normal(3, F, D)}
    got = look(apply, p, X, "down")
    if got is None:
        return
    y, z = apply(p, X), apply(fold(p, *got), X)
    assert float(jnp.abs(y - z).max()) > 0.05 * float(jnp.abs(y).max())


def test_the_exact_gelu_and_its_approximation_are_caught():
    for approximate in (False, True):

        def apply(p, x, approximate=approximate):
            return jax.nn.gelu(x @ p["up"], approximate) @ p["down"]

        p = {"up": normal(1, D, F), "down": normal(3, F, D)}
        got = look(apply, p, X, "down")
        if got is not None:
            y, z = apply(p, X), apply(fold(p, *got), X)
            assert float(jnp.abs(y - z).max()) > 0.05 * float(jnp.abs(y).max())


def attention(p, x, fused=False):
    t = x.shape[0]
    if fused:
        cut = (HEADS * HD, (HEADS + KV) * HD)
        q, k, v = jnp.split(x @ p["qkv"] + p["qkv_bias"], cut, axis=-1)
    else:
        q, k, v = x @ p["q"], x @ p["k"], x @ p["v"] + p["v_bias"]
    q = q.reshape(t, KV, HEADS // KV, HD)
    k, v = k.reshape(t, KV, HD), v.reshape(t, KV, HD)
    scores = jnp.einsum("qkgh,tkh->kgqt", q, k) / HD**0.5
    mixed = jnp.einsum("kgqt,tkh->qkgh", jax.nn.softmax(scores), v)
    return mixed.reshape(t, HEADS * HD) @ p["o"]


def test_grouped_query_attention_shares_a_scale_among_the_queries_of_a_head():
    p = {"q": normal(1, D, HEADS * HD), "k": normal(2, D, KV * HD),
         "v": normal(3, D, KV * HD), "v_bias": normal(4, KV * HD),
         "o": normal(5, HEADS * HD, D)}  # fmt: skip
    check(attention, p, X, "o", {"v", "v_bias"}, KV * HD)
    _, share, _ = look(attention, p, X, "o")
    share = share.reshape(KV, HEADS // KV, HD)
    assert (share == share[:, :1]).all()


def test_repeated_keys_and_values_share_too():
    def apply(p, x):
        t = x.shape[0]
        q = (x @ p["q"]).reshape(t, HEADS, HD)
        k, v = ((x @ p[n]).reshape(t, KV, HD) for n in "kv")
        k, v = (
            jnp.broadcast_to(a[:, :, None], (t, KV, HEADS // KV, HD)).reshape(
                t, HEADS, HD
            )
            for a in (k, v)
        )
        mixed = jnp.einsum(
            "hqt,thd->qhd", jax.nn.softmax(jnp.einsum("qhd,thd->hqt", q, k)), v
        )
        return jnp.einsum("qhd,hdn->qn", mixed, p["o"])

    p = {"q": normal(1, D, HEADS * HD), "k": normal(2, D, KV * HD),
         "v": normal(3, D, KV * HD), "o": normal(5, HEADS, HD, D)}  # fmt: skip
    check(apply, p, X, "o", {"v"}, KV * HD)


def test_a_fused_qkv_is_scaled_in_its_value_columns_only():
    wide = (HEADS + 2 * KV) * HD
    p = {"qkv": normal(1, D, wide), "qkv_bias": normal(2, wide),
         "o": normal(3, HEADS * HD, D)}  # fmt: skip

    def apply(p, x):
        return attention(p, x, fused=True)

    check(apply, p, X, "o", {"qkv", "qkv_bias"}, KV * HD)
    index = look(apply, p, X, "o")[0]["qkv"].index
    columns = np.broadcast_to(index, (1, wide))[0] if index.shape[0] == 1 else index[0]
    assert (columns[: (HEADS + KV) * HD] == -1).all()
    assert (columns[(HEADS + KV) * HD :] >= 0).all()


def test_kernels_laid_side_by_side_are_scaled_each():
    def apply(p, x):
        w = jnp.concatenate([p["q"], p["k"]], axis=1)
        return jnp.tanh(rms_norm(x, p["scale"]) @ w)

    p = {"scale": 1 + normal(1, D), "q": normal(2, D, 4), "k": normal(3, D, 6)}
    sources, share, targets = look(apply, p, X, "q")
    assert set(sources) == {"scale"} and set(targets) == {"q", "k"}
    folded = fold(p, sources, share, targets)
    np.testing.assert_allclose(apply(folded, X), apply(p, X), rtol=1e-4, atol=1e-6)


def test_channels_are_followed_through_a_reshape_that_also_transposes():
    # ``[batch, heads, width]`` read as ``[batch, width * heads]``, as vmap does.
    params = {
        "scale": 1 + normal(0, HEADS, HD),
        "w": normal(1, HEADS * HD, F),
    }

    def apply(p, x):
        x = x * p["scale"]
        return jax.lax.reshape(x, (3, HEADS * HD), dimensions=(0, 2, 1)) @ p["w"]

    check(apply, params, normal(2, 3, HEADS, HD), "w", {"scale"})


@pytest.mark.parametrize(
    "shift",
    [lambda x: x + 1.0, lambda x: 1.0 - x, lambda x: jnp.where(x > 0, x, 1.0)],
    ids=["plus one", "one minus", "one or x"],
)
def test_a_constant_that_does_not_scale_has_no_source(shift):
    def apply(p, x):
        return shift(x * p["scale"]) @ p["w"]

    params = {"scale": 1 + normal(0, D), "w": normal(1, D, F)}
    assert look(apply, params, normal(2, 3, D), "w") is None


def test_adding_zero_scales():
    def apply(p, x):
        return (x * p["scale"] + 0.0) @ p["w"]

    params = {"scale": 1 + normal(0, D), "w": normal(1, D, F)}
    check(apply, params, normal(2, 3, D), "w", {"scale"}, classes=D)


def test_a_scalar_parameter_ties_all_channels():
    def apply(p, x):
        return (x * p["scale"] + p["shift"]) @ p["w"]

    params = {"scale": 1 + normal(0, D), "shift": jnp.float32(2), "w": normal(1, D, F)}
    check(apply, params, normal(2, 3, D), "w", {"scale", "shift"}, classes=1)


def test_an_input_or_a_residual_has_no_source():
    p = {"a": normal(1, D, D), "b": normal(2, D, D)}
    assert look(lambda p, x: x @ p["a"], p, X, "a") is None
    assert look(lambda p, x: (x + x @ p["a"]) @ p["b"], p, X, "b") is None


def test_only_allowed_leaves_are_used():
    def apply(p, x):
        return (x @ p["a"]) @ p["c"]

    p = {"a": normal(1, D, F), "c": normal(3, F, D)}
    found = find(trace.tracer_of(apply).trace(p, (X,), {}))
    assert channels.find_sources(found.steps["c"], [1], ("a",)) is not None
    assert channels.find_sources(found.steps["c"], [1], ("other",)) is None


def test_a_derived_weight_that_mixes_its_inputs_has_no_channels():
    def apply(p, x):
        return x @ (p["a"] @ p["b"])

    p = {"a": normal(1, D, D), "b": normal(2, D, D)}
    found = find(trace.tracer_of(apply).trace(p, (X,), {}))
    (site,) = found.sites
    got = channels.weight_channels(found.steps[site.name], [0])
    if got is not None:  # scaling the rows of the first factor is exact
        assert set(got[0]) == {"a"}


def test_inside_a_scan_the_entries_of_the_stack_are_found():
    def apply(p, x):
        def layer(x, p):
            return x + jnp.tanh(rms_norm(x, p["scale"]) @ p["w"]), None

        return jax.lax.scan(layer, x, p)[0]

    p = {"scale": 1 + normal(1, 3, D), "w": normal(2, 3, D, D)}
    sources, share, targets = look(apply, p, X, "w")
    assert set(sources) == {"scale"} and set(targets) == {"w"}
    assert np.broadcast_to(sources["scale"].index, (D,)).tolist() == list(range(D))
    assert len(np.unique(share)) == D
