"""Blocks: repeated units are found, run like the program, and cost one block."""

import jax
import jax.numpy as jnp
import pytest
from support import zoo
from support.compare import assert_close
from support.toy_stored import store_sites

from jeff import base
from jeff.program.blocks import LeafRef, blocks, whole
from jeff.program.sites import sites


def layer(p, x, mask):
    h = x * p["norm"]
    q, k, v = h @ p["q"], h @ p["k"], h @ p["v"]
    x = x + jax.nn.softmax(jnp.where(mask, q @ k.T, -1e9)) @ v @ p["o"]
    return x + jax.nn.gelu(x @ p["up"]) @ p["down"]


def arguments(count=4, width=8):
    keys = iter(jax.random.split(jax.random.key(0), 6 * count + 3))
    make = lambda *s: jax.random.normal(next(keys), s) / 3  # noqa: E731
    layers = [
        {
            "norm": jnp.full(width, 1.0 + i),
            **{n: make(width, width) for n in "qkvo"},
            "up": make(width, 12),
            "down": make(12, width),
        }
        for i in range(count)
    ]
    params = {"embed": make(5, width), "layers": layers, "head": make(width, 3)}
    return params, make(6, 5), jnp.tril(jnp.ones((6, 6), bool))


def unrolled(p, x, mask):
    x = x @ p["embed"]
    for one in p["layers"]:
        x = layer(one, x, mask)
    return x @ p["head"]


def scanned(p, x, mask, reverse=False):
    h, _ = jax.lax.scan(
        lambda h, w: (layer(w, h, mask), None),
        x @ p["embed"], p["layers"], reverse=reverse,
    )  # fmt: skip
    return h @ p["head"]


def stacked(params):
    layers = jax.tree.map(lambda *a: jnp.stack(a), *params["layers"])
    return {**params, "layers": layers}


def run_all(stack, params, *inputs):
    """All blocks one after another: the state after the last."""
    state, sides = stack.enter(params, *inputs)
    run = jax.jit(stack.run)
    for b in range(stack.count):
        state = run(stack.weights(params, b), state, stack.side(sides, b))
    return state


def after_layers(params, x, mask, order):
    h = x @ params["embed"]
    for i in order:
        h = layer(params["layers"][i], h, mask)
    return h


def test_unrolled_layers_are_found_without_their_names():
    params, x, mask = arguments()
    (stack,) = blocks(unrolled, params, x, mask)
    assert stack.count == 4 and len(stack.sites) == 6
    assert [refs["layers.0.q"] for refs in stack.leaves] == [
        LeafRef(f"layers.{i}.q", None, None) for i in range(4)
    ]
    assert stack.names[2]["layers.0.down"] == "layers.2.down"
    assert stack.per_block_side == (False,)  # the mask, shared by all
    (state,) = run_all(stack, params, x, mask)
    assert_close(state, after_layers(params, x, mask, range(4)), 1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_over_layers_is_one_stack(reverse):
    params, x, mask = arguments()

    def apply(p, x, mask):
        return scanned(p, x, mask, reverse)

    (stack,) = blocks(apply, stacked(params), x, mask)
    order = list(range(4))[::-1] if reverse else list(range(4))
    assert stack.count == 4 and list(stack.iterations) == order
    assert [refs["layers.q"] for refs in stack.leaves] == [
        LeafRef("layers.q", i, 0) for i in order
    ]
    (state,) = run_all(stack, stacked(params), x, mask)
    assert_close(state, after_layers(params, x, mask, order), 1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_sides_that_differ_from_layer_to_layer(reverse):
    params, x, mask = arguments(3)

    def apply(p, x, mask):
        def body(h, inputs):
            w, gain = inputs
            return layer(w, h * gain, mask), None

        gains = jnp.arange(1.0, 4.0) * x[0, 0]
        first = x @ p["embed"]
        return jax.lax.scan(body, first, (p["layers"], gains), reverse=reverse)[0]

    (stack,) = blocks(apply, stacked(params), x, mask)
    assert sorted(stack.per_block_side) == [False, True]
    (state,) = run_all(stack, stacked(params), x, mask)
    assert_close(state, apply(stacked(params), x, mask), 1e-5)


@pytest.mark.parametrize("inside", [False, True])
def test_sides_of_written_out_layers_that_differ_from_layer_to_layer(inside):
    params, x, mask = arguments(3)
    gains = (0.5 * x[0, 0], x[0, 1], x[0, 2])

    def apply(p, x, mask, gains):
        h = x @ p["embed"]
        made = [jnp.tanh(g) if inside else g for g in gains]
        for w, gain in zip(p["layers"], made, strict=True):
            h = layer(w, h * gain, mask)
        return h

    (stack,) = blocks(apply, params, x, mask, gains)
    assert stack.count == 3 and sorted(stack.per_block_side) == [False, True]
    (state,) = run_all(stack, params, x, mask, gains)
    assert_close(state, apply(params, x, mask, gains), 1e-5)


def test_stored_weights_stay_stored_in_a_block():
    params, x, mask = arguments()
    params = stacked(params)
    stored = store_sites(params, sites(scanned, params, x, mask))
    (stack,) = blocks(scanned, stored, x, mask)
    weights = stack.weights(stored, 1)
    assert all(base.is_stored(weights[n]) for n in stack.sites)
    (got,) = run_all(stack, stored, x, mask)
    (expected,) = run_all(stack, base.decoded(stored), x, mask)
    assert_close(got, expected, 1e-5)


def test_weights_cast_before_the_scan_enter_cast():
    params = {"w": jax.random.normal(jax.random.key(0), (3, 4, 4))}

    def apply(p, x):
        body = lambda h, w: (jnp.tanh(h @ w), None)  # noqa: E731
        return jax.lax.scan(body, x, p["w"].astype(jnp.bfloat16))[0]

    x = jnp.ones((2, 4), jnp.bfloat16)
    (stack,) = blocks(apply, params, x)
    assert stack.weights(params, 0)["w"].dtype == jnp.bfloat16
    (state,) = run_all(stack, params, x)
    assert_close(state, apply(params, x), 1e-2)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("plain_scan_layers", 3),
        ("plain_scan_reverse_last_axis", 3),
        ("plain_scan_nested", 2),
        ("plain_remat_in_scan", 3),
        ("plain_remat_block", 2),
        ("nnx_transformer", 2),
        ("nnx_transformer_scanned", 3),
        ("linen_transformer", 2),
        ("linen_scan_axis_0", 3),
        ("linen_scan_axis_1", 3),
    ],
)
def test_the_zoos_repeated_units(name, count):
    if name not in zoo.NAMES:
        pytest.skip("its framework is absent")
    case = zoo.build(name)
    found = blocks(case.apply, case.params, *case.inputs)
    assert [s.count for s in found] == [count]
    (stack,) = found
    state = run_all(stack, case.params, *case.inputs)
    assert all(bool(jnp.isfinite(v).all()) for v in state)
    listed = [site for names in stack.names for site in names.values()]
    scan = stack.iterations[0] is not None
    assert len(set(listed)) == len(stack.sites) * (1 if scan else count)


def test_no_repetition_is_no_block_and_whole_is_one():
    params = {"a": jnp.ones((4, 8)), "b": jnp.ones((8, 2))}

    def apply(p, x):
        return {"y": jnp.tanh(x @ p["a"]) @ p["b"]}

    x = jnp.ones((3, 4))
    assert blocks(apply, params, x) == ()
    stack = whole(apply, params, x)
    assert stack.count == 1 and stack.sites == ("a", "b")
    (y,) = run_all(stack, params, x)
    assert_close(y, apply(params, x)["y"])
    with pytest.raises(ValueError, match=r"block must be in \[0, 1\), got 1"):
        stack.weights(params, 1)


def test_a_recurrence_over_time_is_no_stack():
    case = zoo.build("plain_recurrent")
    assert blocks(case.apply, case.params, *case.inputs) == ()


# Named boundaries.


def test_boundaries_by_name():
    params, x, mask = arguments()
    names = [f"layers.{i}.q" for i in range(1, 4)]
    (stack,) = blocks(unrolled, params, x, mask, boundaries=names)
    assert stack.count == 3 and list(stack.leaves[0])[0].startswith("layers.1.")
    (state,) = run_all(stack, params, x, mask)
    assert_close(state, after_layers(params, x, mask, range(4)), 1e-5)


def test_boundaries_that_make_no_equal_blocks_are_refused():
    params, x, mask = arguments()
    with pytest.raises(ValueError, match="no site 'layers.9.q'; nearest"):
        blocks(unrolled, params, x, mask, boundaries=["layers.0.q", "layers.9.q"])
    with pytest.raises(ValueError, match="starting at layers.0.q, layers.1.up are not"):
        blocks(unrolled, params, x, mask, boundaries=["layers.0.q", "layers.1.up"])
    with pytest.raises(ValueError, match="boundaries must be sites outside of loops"):
        blocks(scanned, stacked(params), x, mask, boundaries=["layers.q", "layers.k"])
    with pytest.raises(ValueError, match="boundaries needs two sites or more, got 1"):
        blocks(unrolled, params, x, mask, boundaries=["layers.0.q"])


def test_layers_that_differ_in_a_constant_are_not_equal():
    def apply(p, x):
        for i, w in enumerate(p):
            x = jnp.tanh(x @ w) * (1.0 + i)
        return x

    assert blocks(apply, [jnp.eye(3)] * 3, jnp.ones((2, 3))) == ()


# Memory and repeated calls.


@pytest.mark.parametrize("make", [unrolled, scanned])
def test_a_block_takes_the_memory_of_one_block(make):
    peaks = []
    for count in (2, 8):
        params, x, mask = arguments(count, width=16)
        params = params if make is unrolled else stacked(params)
        (stack,) = blocks(make, params, x, mask)
        state, sides = jax.eval_shape(stack.enter, params, x, mask)
        weights = jax.eval_shape(lambda p, s=stack: s.weights(p, 1), params)
        side = stack.side(sides, 1) if not any(stack.per_block_side) else sides
        memory = jax.jit(stack.run).lower(weights, state, side).compile()
        memory = memory.memory_analysis()
        peaks.append(
            memory.temp_size_in_bytes + memory.argument_size_in_bytes
            + memory.output_size_in_bytes
        )  # fmt: skip
    assert peaks[0] == peaks[1]


def test_the_same_program_gives_the_same_stacks():
    params, x, mask = arguments(2)
    first = blocks(unrolled, params, x, mask)
    assert blocks(unrolled, params, x, mask) is first
    assert whole(unrolled, params, x, mask) is whole(unrolled, params, x, mask)


def test_one_compiled_block_serves_all():
    params, x, mask = arguments()
    (stack,) = blocks(unrolled, params, x, mask)
    state, sides = stack.enter(params, x, mask)
    run = jax.jit(stack.run)
    for b in range(stack.count):
        state = run(stack.weights(params, b), state, stack.side(sides, b))
    assert run._cache_size() == 1


def test_params_that_do_not_fit_are_named():
    params, x, mask = arguments()
    (stack,) = blocks(unrolled, params, x, mask)
    fewer = {**params, "layers": params["layers"][:3]}
    with pytest.raises(ValueError, match="has no leaf 'layers.3.down'"):
        stack.weights(fewer, 0)
    with pytest.raises(ValueError, match="has no leaf 'layers.3.down'"):
        stack.enter(fewer, x, mask)


def test_every_run_of_equal_layers_is_a_stack():
    def towers(params, x):
        for w in params["wide"]:
            x = jnp.tanh(x @ w)
        x = x @ params["narrow"]
        for w in params["thin"]:
            x = jnp.tanh(x @ w)
        return x

    params = {
        "wide": [jnp.eye(6) * i for i in (1, 2, 3)],
        "narrow": jnp.ones((6, 4)),
        "thin": [jnp.eye(4) * i for i in (1, 2)],
    }
    stacks = blocks(towers, params, jnp.ones((2, 6)))
    assert [s.count for s in stacks] == [3, 2]
    assert [s.sites for s in stacks] == [("wide.0",), ("thin.0",)]
    for stack in stacks:
        state, sides = stack.enter(params, jnp.ones((2, 6)))
        assert all(jnp.isfinite(a).all() for a in state)
