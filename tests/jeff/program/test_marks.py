"""Marks: an identity that is listed as a site, and what rules and taps see of it."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.marked import (
    STACK,
    X,
    marked,
    noisy,
    normal,
    plain,
    scanned,
    written_out,
)
from support.toy_stored import store

import jeff


def doubled(site, op, x, w):
    return 2 * op(x, w)


def shown(fn, *args):
    """The program that XLA gets."""
    return jax.jit(fn).lower(*args).as_text(debug_info=False)


# The primitive.


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: f,
        jax.jit,
        jax.vmap,
        jax.grad,
        lambda f: jax.grad(jax.checkpoint(f)),
        lambda f: jax.vmap(jax.grad(f)),
        lambda f: lambda x: jax.lax.map(f, x),
        lambda f: lambda x: jax.jvp(f, (x,), (x,)),
        lambda f: lambda x: jax.linearize(f, x)[1](x),
    ],
)
def test_a_mark_compiles_to_nothing_under_every_transform(transform):
    names = lambda text: text.replace("marked", "plain")  # noqa: E731
    assert names(shown(transform(marked), X)) == names(shown(transform(plain), X))
    expected, got = transform(plain)(X), transform(marked)(X)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_a_mark_can_be_transposed_and_keeps_dtypes():
    (back,) = jax.linear_transpose(lambda x: jeff.mark("a", 3.0 * x), X)(X)
    np.testing.assert_allclose(back, 3 * X)
    for value in (jnp.arange(3), X.astype(jnp.bfloat16), jax.random.key(1), True, 1.5):
        out = jeff.mark("a", value)
        assert out.dtype == jnp.asarray(value).dtype
        assert out.aval == jax.jit(lambda v: jeff.mark("a", v))(value).aval


def test_derivatives_are_not_marked():
    jaxpr = str(jax.make_jaxpr(jax.grad(marked))(X))
    assert jaxpr.count("jeff_mark") == 1


def test_a_mapped_axis_comes_first_wherever_it_was():
    def apply(p, x):  # x [4, batch]
        return jax.vmap(lambda row: jeff.mark("row", row), 1, 1)(x) @ p

    site = jeff.sites(apply, normal(7, 2), normal(4, 7)).named("row")
    assert site.y_shape == (7, 4)


@pytest.mark.parametrize(
    ("name", "macs", "error", "message"),
    [
        ("", None, ValueError, "name must be a word without '@', got ''"),
        ("a@1", None, ValueError, "name must be a word without '@', got 'a@1'"),
        (3, None, TypeError, "name must be a string, got 3"),
        ("a", 0, ValueError, "macs must be a positive integer, got 0"),
        ("a", 1.5, ValueError, "macs must be a positive integer, got 1.5"),
        ("a", True, ValueError, "macs must be a positive integer, got True"),
    ],
)
def test_bad_arguments_are_named(name, macs, error, message):
    with pytest.raises(error, match=message):
        jeff.mark(name, X, macs=macs)
    with pytest.raises(TypeError):
        jeff.mark("a", "text")


# As sites.


def test_marks_are_listed_with_what_they_know():
    found = jeff.sites(scanned, STACK, X)
    assert [s.name for s in found] == ["up", "hidden", "down"]
    site = found.named("hidden")
    assert (site.kind, site.leaf, site.leaves, site.parts) == ("mark", "hidden", (), ())
    assert (site.macs, site.nbytes, site.shape) == (0, 0, ())
    assert (site.x_shape, site.y_shape, site.trips) == ((5, 6), (5, 6), (3,))
    assert (site.marked_macs, site.producer, site.dtype) == (4, "tanh", jnp.float32)
    assert site.input_id == found.named("down").input_id
    data = json.loads(json.dumps([s.as_dict() for s in found]))[1]
    assert data["marked_macs"] == 4 and data["weight_dtype"] is None
    assert [[s.name for s in group] for group in found.groups()] == [["up"], ["down"]]
    table = str(jeff.sites(written_out, STACK, X)).splitlines()
    assert [line.split()[0] for line in table if " mark " in line] == [
        "hidden", "hidden@1", "hidden@2",
    ]  # fmt: skip


def test_a_mark_is_no_leaf():
    with pytest.raises(ValueError, match="mark 'up' has the name of a leaf of params"):
        jeff.sites(lambda p, x: jeff.mark("up", x) @ p["up"][0], STACK, X)


def test_a_leaf_of_the_same_words_has_another_key(key):
    _, leaf, mark = jeff.sites(
        lambda p, x: jeff.mark("layers.0.w", x @ p["first"] @ p["layers"]["w"]),
        {"first": normal(4, 4), "layers": {"w": normal(4, 4)}}, X,
    )  # fmt: skip
    one = jax.random.key_data(leaf.at(()).key(key))
    assert (leaf.leaf, mark.leaf) == ("layers.w", "layers.0.w")
    stacked = leaf.__class__(**{**vars(leaf), "index": (0,)})
    for other in (one, jax.random.key_data(stacked.key(key))):
        assert (jax.random.key_data(mark.key(key)) != other).any()


def test_a_marked_weight_is_followed_and_stays_packed():
    def apply(p, x):
        return x @ jeff.mark("kernel", p["w"])

    params = {"w": normal(4, 6)}
    found = jeff.sites(apply, params, X)
    assert [s.name for s in found] == ["w"]
    assert found.lost_marks == ("kernel (of w)",)
    assert "marks that are no sites: kernel (of w)" in str(found)
    stored = {"w": store(params["w"], (0,))}
    assert jeff.rewrite(apply).notes(stored, X) == ("no site: the mark kernel (of w)",)
    expected = jeff.rewrite(lambda p, x: x @ p["w"])(stored, X)
    np.testing.assert_array_equal(jeff.rewrite(apply, noisy)(stored, X), expected)


# Rules and taps.


def test_a_rule_acts_at_marks_only_if_it_says_so():
    clean = jax.jit(scanned)(STACK, X)

    def spy(site, op, x, w):
        assert site.kind != "mark"
        return op(x, w)

    seen = jax.jit(jeff.rewrite(scanned, spy))(STACK, X)
    np.testing.assert_array_equal(seen, clean)
    noise = jax.jit(jeff.rewrite(scanned, noisy))(STACK, X)
    both = jax.jit(jeff.rewrite(scanned, spy, noisy))(STACK, X)
    np.testing.assert_array_equal(noise, both)
    partial = jax.jit(jeff.rewrite(scanned, functools.partial(noisy)))(STACK, X)
    np.testing.assert_array_equal(noise, partial)
    assert (np.abs(noise - clean) > 1e-2).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_draws_are_the_same_scanned_written_out_or_recomputed(reverse):
    rewritten = jeff.rewrite(functools.partial(scanned, reverse=reverse), noisy)
    again = jeff.rewrite(
        jax.checkpoint(functools.partial(scanned, reverse=reverse)), noisy
    )
    order = (2, 1, 0) if reverse else (0, 1, 2)
    by_hand = jeff.rewrite(functools.partial(written_out, order=order), noisy)
    loss = lambda f: jax.jit(jax.value_and_grad(lambda p: f(p, X).sum()))  # noqa: E731
    expected = loss(by_hand)(STACK)
    for f in (rewritten, again):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
            loss(f)(STACK), expected,
        )  # fmt: skip


def test_marks_survive_a_rewriting_and_are_found_again():
    once = jeff.rewrite(scanned, doubled)
    assert "hidden" in [s.name for s in jeff.sites(once, STACK, X)]
    inner = jax.jit(lambda p, x: jeff.rewrite(scanned, doubled)(p, x))
    twice = jax.jit(jeff.rewrite(inner, noisy))(STACK, X)
    straight = jax.jit(jeff.rewrite(scanned, noisy, doubled))(STACK, X)
    np.testing.assert_allclose(twice, straight, rtol=1e-5)


def test_taps_see_marks_where_they_are_asked_to():
    _, taps = jax.jit(jeff.tap(scanned, lambda x, y: (x.max(), y.max())))(STACK, X)
    assert set(taps) == {"up", "down"}
    where = lambda site: site.kind == "mark"  # noqa: E731
    tapped = jeff.tap(scanned, lambda x, y: (x.max(), y.max()), where=where)
    out, taps = jax.jit(tapped)(STACK, X)
    np.testing.assert_array_equal(out, jax.jit(scanned)(STACK, X))
    assert set(taps) == {"hidden"} and taps["hidden"][0].shape == (3,)
    np.testing.assert_array_equal(*taps["hidden"])
    noise = jeff.tap(jeff.rewrite(scanned, noisy), lambda x, y: y - x, where=where)
    assert (jnp.abs(jax.jit(noise)(STACK, X)[1]["hidden"]) > 0).all()


def test_cotangents_of_marks_are_those_of_the_value():
    def loss(p, x):
        return (scanned(p, x) ** 2).sum()

    def added(extra):  # the gradient to what is added there
        def layer(h, layers):
            q, e = layers
            return h + (jnp.tanh(h @ q["up"]) + e) @ q["down"], None

        return (jax.lax.scan(layer, X, (STACK, extra))[0] ** 2).sum()

    where = lambda site: site.name == "hidden"  # noqa: E731
    run = jax.jit(jeff.program.tap_cotangents(loss, lambda g: g, where=where))
    _, taps = run(STACK, X)
    expected = jax.jit(jax.grad(added))(jnp.zeros((3, 5, 6)))
    np.testing.assert_allclose(taps["hidden"], expected, rtol=1e-4, atol=1e-4)
    every = jax.eval_shape(jeff.program.tap_cotangents(loss, jnp.sum), STACK, X)
    assert set(every[1]) == {"up", "down"}
