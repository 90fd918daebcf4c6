"""Marks inside loops, branches, kernels, and what reads programs through them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.marked import STACK, X, block, marked, noisy, normal, plain, scanned

import jeff
from jeff.program import channels, trace
from jeff.program.sites import find
from jeff.program.stages import stages

# Wherever they stand: nothing but activations goes through these.


@jax.custom_vjp
def halved(x):  # its derivative is deliberately wrong
    return jeff.mark("inside", x / 2)


halved.defvjp(lambda x: (halved(x), None), lambda _, g: (7 * g,))


@jax.custom_jvp
def cubed(x):
    return jeff.mark("inside", x**3)


cubed.defjvp(lambda x, t: (cubed(*x), 7 * t[0]))


@pytest.mark.parametrize(
    "through",
    [
        lambda x: jax.lax.map(lambda row: jeff.mark("inside", row), x),
        lambda x: jax.lax.cond(
            x[0, 0] > 9, lambda x: x, lambda x: jeff.mark("inside", x), x
        ),
        lambda x: jax.lax.while_loop(
            lambda s: s[0] < 2, lambda s: (s[0] + 1, jeff.mark("inside", s[1])), (0, x)
        )[1],
        jax.checkpoint(lambda x: jeff.mark("inside", x)),
        jax.jit(lambda x: jax.vmap(lambda row: jeff.mark("inside", row))(x)),
        halved,
        cubed,
    ],
    ids=["map", "cond", "while", "remat", "jit", "custom_vjp", "custom_jvp"],
)
def test_marks_are_found_in_any_sub_program(through):
    def apply(p, x):
        return through(x) @ p

    def zeroed(site, op, x, w):
        return jnp.zeros_like(x) if site.kind == "mark" else op(x, w)

    w, called = normal(4, 2), []
    found = jeff.sites(apply, w, X)
    assert "inside" in [s.name for s in found]

    def spy(site, op, x, w):
        called.append(site.kind)
        return op(x, w)

    # With no rule for marks, not even what they stand in is taken apart.
    rewritten = jeff.rewrite(apply, spy)
    np.testing.assert_array_equal(jax.jit(rewritten)(w, X), jax.jit(apply)(w, X))
    assert set(called) == {"dot"} and not rewritten.notes(w, X)
    zeroed.marks = True
    np.testing.assert_array_equal(
        jax.jit(jeff.rewrite(apply, zeroed))(w, X), np.zeros((5, 2))
    )
    if through in (halved, cubed):
        loss = lambda f: jax.jit(jax.grad(lambda x: f(w, x).sum()))  # noqa: E731
        keeps = loss(jeff.rewrite(apply, zeroed))(X)
        np.testing.assert_allclose(keeps, 7 * jnp.broadcast_to(w.sum(1), X.shape))


def test_marks_act_inside_a_shard_map():
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    spec = jax.sharding.PartitionSpec("data")
    part = jax.shard_map(
        lambda x: jeff.mark("inside", x), mesh=mesh, in_specs=spec, out_specs=spec
    )

    def apply(p, x):
        return part(x) @ p

    w = normal(4, 2)
    np.testing.assert_array_equal(jax.jit(apply)(w, X), jax.jit(jnp.dot)(X, w))
    assert jeff.sites(apply, w, X).named("inside").y_shape == (5, 4)
    noise = jax.jit(jeff.rewrite(apply, noisy))(w, X)
    straight = jeff.rewrite(lambda p, x: jeff.mark("inside", x) @ p, noisy)
    np.testing.assert_allclose(noise, jax.jit(straight)(w, X), rtol=1e-5, atol=1e-6)


def test_marks_inside_a_kernel_are_reported():
    @jax.custom_batching.custom_vmap
    def own(x):
        return jeff.mark("inside", x)

    own.def_vmap(lambda size, batched, x: (x, True))
    found = jeff.sites(lambda p, x: own(x) @ p, normal(4, 2), X)
    assert found.lost_marks == ("inside (inside a custom_vmap_call)",)


# What reads programs reads through them.


def test_counts_and_trip_counts_do_not_see_marks():
    def loop(n, x):
        return jax.lax.fori_loop(0, jeff.mark("n", n), lambda i, x: x @ x, x)

    square = normal(4, 4)
    counted = jeff.count(lambda x: loop(jnp.int32(3), x), square)
    assert counted.macs == 3 * 64 and not counted.unknown
    assert jeff.count(scanned, STACK, X).unknown == {}
    assert jeff.count(marked, X) == jeff.count(plain, X)


def test_channel_sources_are_found_behind_a_mark():
    def normed(p, x):
        return jeff.mark("normed", x * p["scale"]) @ p["w"]

    params = {"scale": jnp.ones(4), "w": normal(4, 2)}
    traced = trace.tracer_of(normed).trace(params, (X,), {})
    sources, _ = channels.find_sources(find(traced).steps["w"], (1,))
    assert list(sources) == ["scale"]
    assert jeff.sites(normed, params, X).named("w").producer == "leaf:scale"


@pytest.mark.parametrize("name", [lambda i: "hidden", lambda i: f"layers.{i}.hidden"])
def test_blocks_are_equal_whatever_their_marks_are_called(name):
    params = [jax.tree.map(lambda a, i=i: a[i], STACK) for i in range(3)]

    def apply(p, x):
        for i, q in enumerate(p):
            x = block(x, q, name(i))
        return x

    (stack,) = jeff.blocks(apply, params, X)
    assert stack.count == 3 and stack.sites == ("0.up", "0.down")
    state, sides = stack.enter(params, X)
    for i in range(3):
        state = stack.run(stack.weights(params, i), state, stack.side(sides, i))
    np.testing.assert_allclose(state[0], apply(params, X), rtol=1e-5)


def test_cuts_may_begin_and_end_at_marks():
    def apply(p, x):
        return jeff.mark("hidden", jnp.tanh(x @ p["up"])) @ p["down"] + x

    params = jax.tree.map(lambda a: a[0], STACK)
    end = jeff.cut(apply, jeff.before("hidden"), None).at(params, X)
    assert end.piece.marks() == ("hidden",) and end.piece.sites() == ("down",)
    x, side = end.capture(params, X)
    np.testing.assert_allclose(x, jnp.tanh(X @ params["up"]), rtol=1e-5)
    weights = end.weights(params)
    np.testing.assert_allclose(end(weights, 0 * x, side), X)
    got = end(weights, 0 * x, side, rules=[noisy])
    assert (np.abs(got - X) > 1e-4).any()
    begin = jeff.cut(apply, None, jeff.after("hidden")).at(params, X)
    np.testing.assert_allclose(begin(begin.weights(params), (X,)), x, rtol=1e-5)
    behind = stages(apply, ["hidden"], params, X)
    live = behind.run(0, params, [X])
    np.testing.assert_allclose(live[0], x, rtol=1e-5)
    (out,) = behind.run(1, params, (2 * live[0], *live[1:]))
    np.testing.assert_allclose(out, 2 * x @ params["down"] + X, rtol=1e-5)


def test_marks_of_one_value_are_two_sites_in_pieces_too():
    """Each has draws of its own, in the whole program and behind a cut."""

    def apply(p, x):
        h = jnp.tanh(x @ p["up"])
        first, second = (jeff.mark("h", h, macs=3) for _ in range(2))
        return first @ p["down"] + 2 * second @ p["down"]

    params = jax.tree.map(lambda a: a[0], STACK)
    assert [s.name for s in jeff.sites(apply, params, X) if s.kind == "mark"] == [
        "h", "h@1"
    ]  # fmt: skip
    end = jeff.cut(apply, jeff.before("h"), None).at(params, X)
    assert end.piece.marks() == ("h", "h@1")
    inner, side = end.capture(params, X)
    got = end(end.weights(params), inner, side, rules=[noisy])
    wanted = jeff.rewrite(apply, noisy)(params, X)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
