"""Prefix reuse: a suffix fed with cached activations is the whole program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import fault_nets, zoo

from jeff import after, rewrite, sites, tree
from jeff.faults import bit_flip, on_weights
from jeff.quantize import QuantConfig, quantize
from jeff.sweep import examples, prefix, weight_faults
from jeff.sweep.campaigns.suffix import rewritten

BATCH = fault_nets.BATCH


def close(got, expected):
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(got, expected, atol=1e-5 * scale, rtol=0)


def whole(net, params):
    return np.asarray(jax.jit(net.apply)(params, net.data.inputs))


@pytest.mark.parametrize(
    ("point", "late", "kept"),
    [
        # The residual stream passes by; a fault in "first" cannot be injected behind.
        ("second", {"second", "down", "short", "head"}, 2),
        (after("second"), {"down", "short", "head"}, 2),
        ("down", {"down", "short", "head"}, 1),  # "short" multiplies the same input
        (after("down"), {"head"}, 2),  # "short" has been multiplied
    ],
)
def test_it_is_the_program_also_with_faults_behind_the_point(point, late, kept):
    net = fault_nets.residual()
    made = prefix(net.apply, net.params, point, net.data, batch=BATCH)
    assert set(made.params) == late and len(made.data.inputs) == kept
    assert set(made.before) == set(net.params) - late
    assert made.nbytes == sum(a.nbytes for a in made.data.inputs)
    np.testing.assert_array_equal(made.data.golden, net.data.golden)
    run = jax.jit(made.apply)
    close(run(made.params, *made.data.inputs), net.data.golden)
    faulty = {**made.params, "head": -2 * made.params["head"]}
    close(run(faulty, *made.data.inputs), whole(net, {**net.params, **faulty}))


def test_rules_act_at_the_sites_behind_under_their_own_names():
    net, seen = fault_nets.residual(), []

    def biased(site, op, x, w):
        seen.append((site.name, site.leaf, site.use))
        return op(x, w) + 0.1 * len(site.name)

    def behind(site, op, x, w):
        late = site.name in ("down", "short", "head")
        return biased(site, op, x, w) if late else op(x, w)

    made = prefix(net.apply, net.params, "down", net.data, batch=BATCH)
    got = jax.jit(rewritten(made.apply, biased))(made.params, *made.data.inputs)
    inside = list(seen)
    seen.clear()
    close(got, jax.jit(rewrite(net.apply, behind))(net.params, net.data.inputs))
    assert seen == inside and len(seen) == 3


def test_a_leaf_used_on_both_sides_is_not_offered():
    def apply(p, x):
        return jnp.tanh(x @ p["w"]) @ p["w"] @ p["head"]

    params = {"w": jnp.eye(3), "head": jnp.eye(3)}
    x = np.eye(3, dtype=np.float32)
    made = prefix(apply, params, "w@1", examples(apply, params, x), batch=3)
    assert set(made.params) == {"head"} and made.before == ("w",)
    close(made.apply({"head": 2 * jnp.eye(3)}, *made.data.inputs), 2 * np.tanh(x))
    with pytest.raises(ValueError, match="params of a suffix .* 'w' is one too many"):
        made.apply(params, *made.data.inputs)
    with pytest.raises(ValueError, match="'head' is one too few"):
        made.apply({}, *made.data.inputs)
    with pytest.raises(ValueError, match="expected 1 inputs, got 2"):
        made.apply(made.params, x, x)


def test_stored_weights_and_values_that_do_not_depend_on_the_inputs():
    def apply(p, x):  # the table of positions crosses the cut and is not kept
        table = jnp.cos(jnp.arange(8.0) * p["speed"])
        return (jnp.tanh(x @ p["up"]) + table) @ p["down"] + table

    w = jax.random.normal(jax.random.key(0), (8, 8))
    params = {
        "up": w, "speed": jnp.float32(0.5),
        "down": quantize(w, QuantConfig(bits=4, group_size=8)),
    }  # fmt: skip
    data = examples(apply, params, np.eye(8, dtype=np.float32), batch=8)
    made = prefix(apply, params, "down", data, batch=8)
    assert set(made.params) == {"down"} and len(made.data.inputs) == 1
    close(jax.jit(made.apply)(made.params, *made.data.inputs), data.golden)


def test_the_axis_of_examples_need_not_be_the_first():
    def apply(p, x):  # [batch, 4, 3]: time goes first inside
        h = jnp.swapaxes(x, 0, 1) @ p["up"]
        return (jnp.tanh(h) @ p["down"]).sum(0)

    params = {"up": jnp.eye(3), "down": 2 * jnp.eye(3)}
    x = np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float32)
    data = examples(apply, params, x, batch=2)
    made = prefix(apply, params, "down", data, batch=2)
    assert made.data.inputs[0].shape == (5, 4, 3)
    close(made.apply(made.params, *made.data.inputs), data.golden)


def test_leaves_keep_their_names_so_that_faults_are_the_same_draws():
    def apply(p, x):
        for layer in p["layers"]:
            x = jnp.tanh(x @ layer["w"])
        return x

    params = {"layers": [{"w": jnp.eye(3)}, {"w": 2 * jnp.eye(3)}]}
    data = examples(apply, params, np.eye(3, dtype=np.float32))
    made = prefix(apply, params, "layers.1.w", data)
    assert list(tree.flatten(made.params)[0]) == ["layers.1.w"]
    close(made.apply(made.params, *made.data.inputs), data.golden)

    def faulty(apply, params):
        trial = weight_faults(apply, params, lambda r: on_weights(bit_flip(r)))
        drawn = jax.jit(trial.draw, static_argnums=2)(jax.random.key(3), 0.1, None)
        return np.asarray(tree.flatten(drawn["params"])[0]["layers.1.w"])

    whole, suffix = faulty(apply, params), faulty(made.apply, made.params)
    assert whole.tobytes() == suffix.tobytes()
    assert (whole != np.asarray(params["layers"][1]["w"])).any()


def test_on_a_model_of_the_zoo():
    case = zoo.build("plain_conv_nhwc")
    data = examples(case.apply, case.params, case.inputs[0], batch=2)
    made = prefix(case.apply, case.params, "point", data, batch=2)
    assert set(made.params) == {"point", "head"}
    close(jax.jit(made.apply)(made.params, *made.data.inputs), data.golden)
    assert made.macs[0] < made.macs[1]
    leaves, _ = tree.flatten(case.params)
    assert all(made.params[n] is leaves[n] for n in made.params)


def test_explained_and_bounded():
    net = fault_nets.residual()
    made = prefix(net.apply, net.params, "head", net.data, batch=BATCH)
    macs = {s.name: s.macs for s in sites(net.apply, net.params, net.data.inputs[:1])}
    assert made.macs == (macs["head"], sum(macs.values()))
    assert made.explain() == (
        "from the input of head: 1 activation of 10 examples are kept, 240 bytes; "
        f"30 of {sum(macs.values()):,} multiplications of an example are left to do; "
        "1 leaves can be faulty"
    )
    with pytest.raises(
        ValueError, match=r"'head' of 10 examples take 240 .* max_bytes=99: cut later"
    ):
        prefix(net.apply, net.params, "head", net.data, batch=BATCH, max_bytes=99)


def test_errors():
    net = fault_nets.mlp()
    with pytest.raises(ValueError, match="no site 'dwn'; nearest: down"):
        prefix(net.apply, net.params, "dwn", net.data)

    def scanned(p, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])[0]

    params, x = {"w": jnp.ones((2, 3, 3)) / 3}, np.eye(3, dtype=np.float32)
    data = examples(scanned, params, x)
    with pytest.raises(ValueError, match="site 'w' lies in a scan, whose iterations"):
        prefix(scanned, params, "w", data)

    def mixed(p, x):
        return (x @ p["up"]) @ p["down"] + x.mean(0)

    params = {"up": jnp.eye(3), "down": jnp.eye(3)}
    with pytest.raises(ValueError, match="no axis of 2 examples: the program mixes"):
        prefix(mixed, params, "down", examples(mixed, params, x), batch=2)
