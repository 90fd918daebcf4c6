"""Cuts: what lies before, between and after two points adds up to the program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import zoo
from support.compare import assert_close
from support.toy_stored import store_sites

from jeff import base
from jeff.program.cut import Point, after, before, cut
from jeff.program.sites import sites


def block(p, x, mask):
    """Attention with a mask, a residual and a gated MLP."""
    h = x * p["norm"]
    q, k, v = h @ p["q"], h @ p["k"], h @ p["v"]
    x = x + jax.nn.softmax(jnp.where(mask, q @ k.T, -1e9)) @ v @ p["o"]
    return x + (jax.nn.silu(x @ p["gate"]) * (x @ p["up"])) @ p["down"]


def straight(p, x, mask):
    for layer in p["layers"]:
        x = block(layer, x, mask)
    return x @ p["head"]


def scanned(p, x, mask):
    x, means = jax.lax.scan(lambda h, w: (block(w, h, mask), h.mean()), x, p["layers"])
    return x @ p["head"], means


def arguments(stacked):
    keys = iter(jax.random.split(jax.random.key(0), 40))
    make = lambda: {  # noqa: E731
        "norm": jnp.linspace(0.5, 1.5, 8),
        **{n: jax.random.normal(next(keys), (8, 8)) / 3 for n in "qkvo"},
        **{n: jax.random.normal(next(keys), (8, 12)) / 3 for n in ("gate", "up")},
        "down": jax.random.normal(next(keys), (12, 8)) / 3,
    }
    layers = [make() for _ in range(3)]
    if stacked:
        layers = jax.tree.map(lambda *a: jnp.stack(a), *layers)
    params = {"layers": layers, "head": jax.random.normal(next(keys), (8, 4))}
    x = jax.random.normal(next(keys), (5, 8))
    return params, x, jnp.tril(jnp.ones((5, 5), bool))


@pytest.mark.parametrize(
    "point",
    [before("layers.1.q"), after("layers.1.o"), before("head"), "layers.2.down"],
)
def test_prefix_and_cut_give_the_program(point):
    args = arguments(False)
    bound = cut(straight, point, None).at(*args)
    x, side = bound.capture(*args)
    got = bound(bound.weights(args[0]), x, side)
    assert_close(got, straight(*args))


def test_from_the_inputs_to_a_point_and_on_to_the_outputs():
    params, x, mask = arguments(False)
    first = cut(straight, None, after("layers.0.down")).at(params, x, mask)
    start, side = first.capture(params, x, mask)
    reached = first(first.weights(params), start, side)
    second = cut(straight, after("layers.0.down"), None).at(params, x, mask)
    _, side = second.capture(params, x, mask)
    assert_close(
        second(second.weights(params), reached, side), straight(params, x, mask)
    )


def test_the_region_of_one_layer_and_its_side_inputs():
    params, x, mask = arguments(False)
    bound = cut(straight, before("layers.1.q"), after("layers.1.o")).at(params, x, mask)
    assert set(bound.piece.weights) == {f"layers.1.{n}" for n in "qkvo"}
    assert bound.piece.sites() == tuple(f"layers.1.{n}" for n in "qkvo")
    start, side = bound.capture(params, x, mask)
    assert [s.shape for s in side] == [mask.shape]
    h = block(params["layers"][0], x, mask) * params["layers"][1]["norm"]
    np.testing.assert_allclose(start, h, rtol=1e-5)
    p = params["layers"][1]
    q, k, v = h @ p["q"], h @ p["k"], h @ p["v"]
    expected = jax.nn.softmax(jnp.where(mask, q @ k.T, -1e9)) @ v @ p["o"]
    assert_close(bound(bound.weights(params), start, side), expected, 1e-5)


def test_a_residual_stream_that_bypasses_the_cut_is_a_side_input():
    params, x, mask = arguments(False)
    bound = cut(straight, before("layers.2.down"), None).at(params, x, mask)
    start, side = bound.capture(params, x, mask)
    assert [s.shape for s in side] == [(5, 8)]
    zero = bound(bound.weights(params), 0 * start, side)
    assert_close(zero, side[0] @ params["head"])


def test_inside_a_scan_it_is_the_body_of_one_iteration():
    params, x, mask = arguments(True)
    bound = cut(scanned, before("layers.q"), after("layers.down")).at(params, x, mask)
    starts, sides = bound.capture(params, x, mask)
    assert starts.shape == (3, 5, 8) and all(s.shape[0] == 3 for s in sides)
    h = x
    for i in range(3):
        p = jax.tree.map(lambda a, i=i: a[i], params["layers"])
        weights = bound.weights(params, (i,))
        got = bound(weights, starts[i], [s[i] for s in sides])
        after_attention = h + (
            jax.nn.softmax(jnp.where(mask, (s := h * p["norm"]) @ p["q"]
                                     @ (s @ p["k"]).T, -1e9)) @ (s @ p["v"]) @ p["o"]
        )  # fmt: skip
        down = (
            jax.nn.silu(after_attention @ p["gate"]) * (after_attention @ p["up"])
        ) @ p["down"]
        assert_close(got, down, 1e-5)
        h = block(p, h, mask)


def test_a_cut_is_pure_and_takes_stored_weights_and_rules():
    params, x, mask = arguments(True)
    found = sites(scanned, params, x, mask)
    stored = store_sites(params, found)
    bound = cut(scanned, before("layers.q"), after("layers.o")).at(stored, x, mask)
    starts, sides = bound.capture(stored, x, mask)
    dense_starts, _ = bound.capture(base.decoded(stored), x, mask)
    assert_close(starts, dense_starts)
    weights = bound.weights(stored, (1,))
    assert all(base.is_stored(w) for w in weights.values())
    side = [s[1] for s in sides]
    run = jax.jit(bound)
    assert_close(
        run(weights, starts[1], side),
        bound(base.decoded(weights), starts[1], side),
        1e-5,
    )
    two = jax.vmap(bound, (None, 0, None))(weights, jnp.stack([starts[1]] * 2), side)
    assert two.shape == (2, 5, 8)
    assert jax.grad(lambda x: bound(weights, x, side).sum())(starts[1]).shape == (5, 8)
    tripled = bound(weights, starts[1], side, rules=(
        lambda site, op, x, w: 3.0 * op(x, w) if site.leaf == "layers.o" else op(x, w),
    ))  # fmt: skip
    assert_close(tripled, 3 * bound(weights, starts[1], side), 1e-5)


def test_points_before_a_cast_are_the_uncast_value():
    case = zoo.build("plain_mixed_precision")
    bound = cut(case.apply, before("k"), after("k")).at(case.params, *case.inputs)
    x, _ = bound.capture(case.params, *case.inputs)
    assert x.dtype == jnp.float32
    assert bound(bound.weights(case.params), x).dtype == jnp.bfloat16


def test_a_weight_cast_before_a_scan_enters_cast():
    def apply(p, x):
        w = p["w"].astype(jnp.bfloat16)
        body = lambda h, w: (jnp.tanh(h @ w), None)  # noqa: E731
        return jax.lax.scan(body, x.astype(jnp.bfloat16), w)[0]

    p, x = {"w": jnp.ones((3, 4, 4)) / 4}, jnp.ones((2, 4))
    bound = cut(apply, before("w"), after("w")).at(p, x)
    assert bound.weights(p, (1,))["w"].dtype == jnp.bfloat16


def test_a_kernel_sliced_before_a_scan_is_a_side_input():
    def apply(p, x):
        def body(h, w):
            q, k = w
            return jnp.tanh(h @ q) + h @ k, None

        return jax.lax.scan(body, x, jnp.split(p["qk"], 2, axis=-1))[0]

    p = {"qk": jax.random.normal(jax.random.key(0), (3, 4, 8))}
    x = jnp.ones((2, 4))
    bound = cut(apply, before("qk"), after("qk@1")).at(p, x)
    starts, sides = bound.capture(p, x)
    assert bound.weights(p, (0,)) == {} and sides[0].shape == (3, 4, 4)
    assert_close(
        bound({}, starts[2], [sides[0][2]]), starts[2] @ p["qk"][2, :, 4:], 1e-5
    )


# Errors.


def test_an_unknown_site_names_the_nearest():
    args = arguments(False)
    with pytest.raises(ValueError, match=r"no site 'layers.0.qq'; nearest: layers.0.q"):
        cut(straight, "layers.0.qq", None).at(*args)


def test_points_in_different_loops_cannot_be_joined():
    args = arguments(True)
    with pytest.raises(ValueError, match="do not lie in the same loop body"):
        cut(scanned, before("layers.q"), after("head")).at(*args)
    with pytest.raises(ValueError, match="do not lie in the same loop body"):
        cut(scanned, before("layers.q"), None).at(*args)


def test_the_end_must_depend_on_the_start():
    args = arguments(False)
    with pytest.raises(ValueError, match=r"layers.0.q.*does not depend on.*layers.2.q"):
        cut(straight, before("layers.2.q"), after("layers.0.q")).at(*args)


@pytest.mark.parametrize(
    ("name", "site"), [("plain_while_converging", "w"), ("plain_cond_branches", "a")]
)
def test_no_cut_inside_a_while_loop_or_a_branch(name, site):
    case = zoo.build(name)
    bound = None
    with pytest.raises(
        NotImplementedError, match="only whole programs and scan bodies"
    ):
        bound = cut(case.apply, before(site), after(site)).at(case.params, *case.inputs)
    assert bound is None


def test_an_end_is_input_or_output():
    with pytest.raises(ValueError, match="'input' or 'output', got 'middle'"):
        cut(straight, Point("head", "middle"), None)


def test_params_that_do_not_fit_are_named():
    params, x, mask = arguments(False)
    bound = cut(straight, "layers.1.q", None).at(params, x, mask)
    fewer = {**params, "layers": params["layers"][:2]}
    with pytest.raises(ValueError, match=r"params .* has no leaf 'layers.2.down'"):
        bound.capture(fewer, x, mask)
    other = {**params, "head": jnp.ones((8, 3))}
    with pytest.raises(ValueError, match=r"'head' of \(8, 3\), not \(8, 4\)"):
        bound.weights(other)
    with pytest.raises(ValueError, match="too many"):
        bound.weights({**params, "extra": x})
    start, side = bound.capture(params, x, mask)
    weights = bound.weights(params)
    lacking = {n: w for n, w in weights.items() if n != "head"}
    with pytest.raises(ValueError, match="weights lacks head"):
        bound(lacking, start, side)
    with pytest.raises(
        ValueError, match=r"x\[0\] has shape \(4, 8\), expected \(5, 8\)"
    ):
        bound(weights, start[:4], side)
    with pytest.raises(ValueError, match=r"side has 0 entries, not"):
        bound(weights, start)
    with pytest.raises(ValueError, match=r"index has 1 entries for 0 loops"):
        bound.weights(params, (0,))
