"""Taps of activations and of cotangents: structure, values, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import zoo
from support.compare import assert_close, assert_same
from support.toy_stored import store_sites

from jeff.program.rewrite import rewrite
from jeff.program.sites import sites
from jeff.program.tap import tap, tap_cotangents


def peak(x, y):
    return {"x": jnp.abs(x).max(), "rows": jnp.float32(y.size)}


def largest(x, y):
    del y
    return jnp.abs(x).max()


def test_values_by_hand_and_the_output_unchanged():
    case = zoo.build("plain_mlp")
    (x,), first = case.inputs, case.params["layers"][0]
    out, taps = tap(case.apply, lambda x, y: (x.sum(), y.max()))(case.params, x)
    assert_close(out, case.apply(case.params, x))
    hidden = jax.nn.relu(x @ first["kernel"] + first["bias"])
    assert list(taps) == ["layers.0.kernel", "layers.1.kernel"]
    np.testing.assert_allclose(taps["layers.0.kernel"][0], x.sum(), rtol=1e-5)
    np.testing.assert_allclose(
        taps["layers.0.kernel"][1], (x @ first["kernel"]).max(), rtol=1e-5
    )
    np.testing.assert_allclose(taps["layers.1.kernel"][0], hidden.sum(), rtol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_stacks_its_iterations_in_the_order_of_the_stack(reverse):
    w = jnp.array([1.0, 2.0, 4.0]).reshape(3, 1, 1)

    def apply(p, x):
        body = lambda h, w: (h @ w, None)  # noqa: E731
        return jax.lax.scan(body, x, p["w"], reverse=reverse)[0]

    _, taps = tap(apply, largest)({"w": w}, jnp.ones((1, 1)))
    expected = [8.0, 4.0, 1.0] if reverse else [1.0, 1.0, 2.0]
    np.testing.assert_array_equal(taps["w"], expected)


def test_nested_scans_stack_twice():
    case = zoo.build("plain_scan_nested")
    _, taps = tap(case.apply, peak)(case.params, *case.inputs)
    assert jax.tree.map(jnp.shape, taps) == {"w": {"rows": (2, 3), "x": (2, 3)}}


def test_a_while_loop_adds_its_iterations():
    case = zoo.build("plain_while_converging")
    (count, out), taps = tap(case.apply, lambda x, y: jnp.float32(1))(
        case.params, *case.inputs
    )
    assert int(taps["w"]) == int(count) > 1
    assert_close((count, out), case.apply(case.params, *case.inputs))


@pytest.mark.parametrize("flag", [True, False])
def test_branches_not_taken_give_zeros(flag):
    case = zoo.build("plain_cond_branches")
    x, _ = case.inputs
    tapped = jax.jit(tap(case.apply, lambda x, y: jnp.float32(1) + 0 * x.sum()))
    _, taps = tapped(case.params, x, jnp.array(flag))
    assert set(taps) == {"a", "a@1", "b"}
    assert {n for n, v in taps.items() if v == 1} == ({"a@1"} if flag else {"a", "b"})


def test_a_switch_in_a_scan_stacks_zeros_and_values():
    case = zoo.build("plain_switch_in_scan")
    _, taps = tap(case.apply, lambda x, y: jnp.float32(1))(case.params, *case.inputs)
    stacked = np.stack([taps[n] for n in sorted(taps)])
    assert stacked.shape == (4, 3)
    np.testing.assert_array_equal(stacked.sum(0), [1, 1, 2])


def test_where_chooses_the_sites_and_rules_run_beneath_the_tap():
    case = zoo.build("plain_scan_layers")
    double = rewrite(case.apply, lambda site, op, x, w: 2.0 * op(x, w))
    only = tap(double, lambda x, y: y.sum(), where=lambda site: site.leaf == "head")
    out, taps = only(case.params, *case.inputs)
    assert list(taps) == ["head"]
    np.testing.assert_allclose(taps["head"], out[0].sum(), rtol=1e-5)


def test_taps_of_stored_weights_under_jit_and_vmap():
    case = zoo.build("plain_scan_layers")
    stored = store_sites(case.params, sites(case.apply, case.params, *case.inputs))
    tapped = tap(case.apply, largest)
    (x,) = case.inputs
    _, one = jax.jit(tapped)(stored, x)
    _, two = jax.vmap(tapped, (None, 0))(stored, jnp.stack([x, x]))
    assert_close(jax.tree.map(lambda a: a[1], two), one)


def test_the_same_program_is_returned_where_nothing_is_tapped():
    case = zoo.build("plain_attention_general")
    out, taps = jax.jit(tap(case.apply, largest, where=lambda s: False))(
        case.params, *case.inputs
    )
    assert taps == {}
    assert_same(out, jax.jit(case.apply)(case.params, *case.inputs))


@pytest.mark.parametrize("make", [tap, tap_cotangents])
def test_reduce_must_be_callable(make):
    with pytest.raises(TypeError, match="reduce must be a function of .*, got 'mean'"):
        make(lambda p, x: x, "mean")


@pytest.mark.parametrize(
    ("value", "text"),
    [("mean", "a str"), (None, "None"), ({"a": 1.0, "b": None}, "None"),
     ([jnp.ones(2), "b"], "a str")],
)  # fmt: skip
@pytest.mark.parametrize("scanned", [False, True])
def test_reduce_must_return_arrays(value, text, scanned):
    def layers(p, x):
        return jax.lax.scan(lambda h, w: (h @ w, None), x, p["w"])[0]

    apply = layers if scanned else lambda p, x: x @ p["w"][0]
    tapped = tap(apply, lambda x, y: value)
    with pytest.raises(TypeError, match=f"^reduce returned {text} at site 'w'"):
        tapped({"w": jnp.ones((3, 2, 2))}, jnp.ones((1, 2)))


def test_reduce_may_return_numbers_and_nothing_at_all():
    tapped = tap(lambda p, x: x @ p["w"], lambda x, y: {"n": y.size, "none": ()})
    assert tapped({"w": jnp.ones((2, 3))}, jnp.ones((1, 2)))[1] == {
        "w": {"n": 3, "none": ()}
    }


@pytest.mark.parametrize("value", ["mean", None, (), 1.0])
def test_a_cotangents_reduction_must_return_one_array(value):
    tapped = tap_cotangents(lambda p, x: (x @ p["w"]).sum(), lambda g: value)
    with pytest.raises(TypeError, match="^reduce returned a .* at site 'w': it must"):
        tapped({"w": jnp.ones((2, 3))}, jnp.ones((1, 2)))


def test_unbound_axes_need_their_size_and_are_bound_with_it():
    case = zoo.build("plain_psum_open")
    with pytest.raises(ValueError, match="axis_sizes"):
        tap(case.apply, largest)(case.params, *case.inputs)
    out, taps = tap(case.apply, largest, axis_sizes={"i": 2})(case.params, *case.inputs)
    np.testing.assert_allclose(taps["w"], jnp.abs(case.inputs[0]).max())
    assert_close(out, case.bound()(case.params, *case.inputs)[0])

    def loss(p, x):
        return jax.lax.pmean((x @ p["w"]).sum(), "i")

    tapped = tap_cotangents(loss, lambda g: g.mean(-1), axis_sizes={"i": 4})
    value, taps = tapped({"w": jnp.ones((2, 3))}, jnp.ones((5, 2)))
    assert value == 30.0 and taps["w"].shape == (5,)


# Cotangents.


def _squares(apply):
    def loss(params, *inputs):
        leaves = jax.tree.leaves(apply(params, *inputs))
        return sum(jnp.sum(jnp.square(y).astype(jnp.float32)) for y in leaves)

    return loss


def test_cotangents_equal_gradients_of_added_zeros():
    case = zoo.build("plain_scan_layers")
    (x,), p = case.inputs, case.params

    def explicit(zeros):
        def layer(h, inputs):
            p, (a, b) = inputs
            up = h @ p["up"] + a
            h = h + jax.nn.relu(up) @ p["down"] + b
            return h, jnp.mean(h, axis=-1)

        h, means = jax.lax.scan(layer, x, (p["layers"], (zeros["up"], zeros["down"])))
        out = h @ p["head"] + zeros["head"]
        return jnp.sum(out**2) + jnp.sum(means**2)

    zeros = {
        "up": jnp.zeros((3, 4, 24)), "down": jnp.zeros((3, 4, 16)),
        "head": jnp.zeros((4, 8)),
    }  # fmt: skip
    expected = jax.grad(explicit)(zeros)
    value, taps = tap_cotangents(_squares(case.apply), lambda g: jnp.abs(g).mean(-1))(
        p, x
    )
    np.testing.assert_allclose(value, explicit(zeros), rtol=1e-5)
    for name, g in expected.items():
        leaf = name if name == "head" else f"layers.{name}"
        np.testing.assert_allclose(
            taps[leaf], jnp.abs(g).mean(-1), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "name", ["plain_weight_left", "plain_remat_block", "plain_remat_in_scan",
             "plain_cond_branches", "plain_scan_reverse_last_axis", "plain_conv_nhwc"],
)  # fmt: skip
def test_cotangents_have_one_axis_per_scan(name):
    case = zoo.build(name)
    tapped = tap_cotangents(_squares(case.apply), lambda g: jnp.abs(g).max())
    value, taps = jax.jit(tapped)(case.params, *case.inputs)
    np.testing.assert_allclose(
        value, _squares(case.apply)(case.params, *case.inputs), rtol=1e-5
    )
    for site in sites(case.apply, case.params, *case.inputs):
        assert taps[site.name].shape == site.trips
        if name != "plain_cond_branches":
            assert (taps[site.name] > 0).all()


def test_no_array_of_all_cotangents_exists():
    layers, rows, width = 7, 5, 11
    params = {"w": jnp.ones((layers, width, width)) / width}

    def loss(p, x):
        body = lambda h, w: (jnp.tanh(h @ w), None)  # noqa: E731
        return jax.lax.scan(jax.checkpoint(body), x, p["w"])[0].sum()

    tapped = tap_cotangents(loss, lambda g: jnp.abs(g).mean(-1))
    text = str(jax.make_jaxpr(tapped)(params, jnp.ones((rows, width))))
    full = f"f32[{layers},{rows},{width}]"
    # Only the carries saved for the backward pass have that shape, once each way.
    plain = str(jax.make_jaxpr(jax.grad(loss, 1))(params, jnp.ones((rows, width))))
    assert text.count(full) <= plain.count(full)
    assert f"f32[{layers},{rows}]" in text


def test_sites_without_a_cotangent_are_left_out():
    case = zoo.build("plain_custom_vjp_doubled")
    _, taps = tap_cotangents(_squares(case.apply), lambda g: jnp.abs(g).max())(
        case.params, *case.inputs
    )
    assert list(taps) == ["after"]


def test_the_loss_must_be_one_scalar():
    with pytest.raises(ValueError, match=r"one scalar loss, got f32\[3\]|float32\[3\]"):
        tap_cotangents(lambda p, x: x @ p["w"], jnp.sum)(
            {"w": jnp.ones((2, 3))}, jnp.ones(2)
        )


def test_integers_are_no_cotangent_reduction():
    with pytest.raises(ValueError, match="reduce must return floats, got int32"):
        tap_cotangents(lambda p, x: (x @ p["w"]).sum(), jnp.argmax)(
            {"w": jnp.ones((2, 3))}, jnp.ones((1, 2))
        )
