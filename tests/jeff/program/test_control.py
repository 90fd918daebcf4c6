"""Rewriting through custom derivatives, kernels, loops, shards and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from support import zoo
from support.compare import assert_close, assert_same
from support.toy_stored import store, store_sites

from jeff import base
from jeff.program.rewrite import rewrite
from jeff.program.shard import stored_specs
from jeff.program.sites import sites
from jeff.program.tap import tap

CUSTOM = ["plain_custom_vjp_doubled", "plain_custom_jvp_tripled"]


def identity(site, op, x, w):
    del site
    return op(x, w)


def gradients(apply, params, *inputs):
    def loss(params, *inputs):
        return jnp.sum(jnp.sin(apply(params, *inputs) + 0.3))

    return jax.jit(jax.grad(loss, (0, 1)))(params, *inputs)


# Functions with a derivative of their own.


@pytest.mark.parametrize("name", CUSTOM)
def test_a_derivative_of_its_own_survives_a_rule_and_a_tap(name):
    case = zoo.build(name)
    expected = gradients(case.apply, case.params, *case.inputs)
    ruled = rewrite(case.apply, identity)
    assert_close(gradients(ruled, case.params, *case.inputs), expected, 1e-6)
    tapped = tap(case.apply, lambda x, y: jnp.abs(y).max())
    got = gradients(lambda p, x: tapped(p, x)[0], case.params, *case.inputs)
    assert_close(got, expected, 1e-6)
    _, taps = tapped(case.params, *case.inputs)
    x, w = case.inputs[0], case.params["inside"]
    np.testing.assert_allclose(taps["inside"], jnp.abs(x @ w).max(), rtol=1e-5)


@pytest.mark.parametrize("name", CUSTOM)
def test_a_derivative_of_its_own_reaches_the_scales_of_stored_weights(name):
    case = zoo.build(name)
    stored = store_sites(case.params, sites(case.apply, case.params, *case.inputs))

    def through(apply):
        def run(scale, x):
            w = {n: store_like(q, scale[n]) for n, q in stored.items()}
            return apply(w, x)

        return run

    def store_like(q, scale):
        return type(q)(q.integers, scale, q.dense_dtype)

    scales = {n: q.scale for n, q in stored.items()}
    dense = lambda p, x: case.apply(base.decoded(p), x)  # noqa: E731
    expected = gradients(through(dense), scales, *case.inputs)
    for rules in ((), (identity,)):
        got = gradients(through(rewrite(case.apply, *rules)), scales, *case.inputs)
        assert_close(got, expected, 1e-6)


def test_a_rule_acts_on_the_value_and_the_derivative_stays():
    case = zoo.build(CUSTOM[0])
    halved = rewrite(
        case.apply,
        lambda site, op, x, w: op(x, w) * (0.5 if site.custom else 1.0),
    )
    p, (x,) = case.params, case.inputs
    expected = jnp.tanh(0.5 * (x @ p["inside"])) @ p["after"]
    assert_close(halved(p, x), expected)
    notes = halved.notes(p, x)
    assert notes == ("rules inside a custom_vjp_call keep the original's derivative",)
    # d/dx: the original function's, doubled as it says, whatever the rule.
    got = jax.vjp(lambda x: halved(p, x), x)[1](jnp.ones_like(expected))
    original = jax.vjp(lambda x: case.apply(p, x), x)[1](jnp.ones_like(expected))
    assert_close(got, original)


def test_what_a_rule_brings_along_gets_its_gradient_inside_too():
    case = zoo.build(CUSTOM[0])
    p, (x,) = case.params, case.inputs

    def loss(gain):
        return rewrite(case.apply, lambda s, op, x, w: gain * op(x, w))(p, x).sum()

    def by_hand(gain):
        return (gain * (jnp.tanh(gain * (x @ p["inside"])) @ p["after"])).sum()

    np.testing.assert_allclose(jax.grad(loss)(1.5), jax.grad(by_hand)(1.5), rtol=1e-5)


def test_a_custom_derivative_inside_a_scan_with_the_loops_index():
    case = zoo.build(CUSTOM[0])
    params = jax.tree.map(lambda a: jnp.stack([a, 0.5 * a]), case.params)

    def apply(p, x):
        return jax.lax.scan(lambda x, p: (case.apply(p, x), None), x, p)[0]

    def rule(site, op, x, w):
        (i,) = site.index
        return op(x, w) + 0.0 * i.astype(x.dtype)

    got = gradients(rewrite(apply, rule), params, *case.inputs)
    assert_close(got, gradients(apply, params, *case.inputs), 1e-6)
    with pytest.raises(TypeError, match="forward-mode|jvp"):
        jax.jvp(lambda x: apply(params, x), case.inputs, case.inputs)


def test_a_custom_derivative_with_side_effects_is_left_alone_and_reported():
    @jax.custom_jvp
    def shown(x, w):
        jax.debug.print("shown")
        return x @ w

    shown.defjvp(lambda primals, tangents: (shown(*primals), tangents[0] @ primals[1]))
    run = rewrite(lambda p, x: shown(x, p["w"]), lambda s, op, x, w: 2.0 * op(x, w))
    args = ({"w": jnp.eye(2)}, jnp.ones((1, 2)))
    assert run.notes(*args) == (
        "a custom_jvp_call with side effects is left alone",
    )  # fmt: skip
    np.testing.assert_array_equal(run(*args), [[1.0, 1.0]])


def test_equations_without_a_site_keep_kernel_and_derivative():
    case = zoo.build("plain_pallas_inside")
    text = str(jax.make_jaxpr(rewrite(case.apply, identity))(case.params, *case.inputs))
    plain = str(jax.make_jaxpr(case.apply)(case.params, *case.inputs))
    for name in ("custom_vjp_call", "pallas_call"):
        assert text.count(name) == plain.count(name) > 0
    assert_close(
        gradients(rewrite(case.apply, identity), case.params, *case.inputs),
        gradients(case.apply, case.params, *case.inputs),
        1e-6,
    )

    def norms(p, x):
        h = jax.nn.relu(x @ p["w"])
        return jax.nn.logsumexp(h, axis=-1) + jax.nn.relu(h).sum(-1)

    args = ({"w": jnp.eye(3)}, jnp.array([[0.0, -1.0, 2.0]]))
    got = str(jax.make_jaxpr(rewrite(norms, identity))(*args))
    assert got.count("custom_jvp_call") == 2  # relu's zero gradient at zero
    assert_same(gradients(rewrite(norms, identity), *args), gradients(norms, *args))


# Loops and checkpoints.


def test_checkpoints_keep_their_policy():
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable

    def apply(p, x):
        block = jax.checkpoint(lambda w, x: jnp.tanh(x @ w), policy=policy)
        return block(p["b"], block(p["a"], x))

    args = ({"a": jnp.eye(2), "b": jnp.eye(2)}, jnp.ones((1, 2)))
    jaxpr = jax.make_jaxpr(rewrite(apply, identity))(*args)
    kept = [e.params["policy"] for e in jaxpr.eqns if "policy" in e.params]
    assert kept == [policy, policy]


def test_a_scans_unroll_and_direction_are_kept():
    case = zoo.build("plain_scan_reverse_last_axis")
    jaxpr = jax.make_jaxpr(rewrite(case.apply, identity))(case.params, *case.inputs)
    (scan,) = [e for e in jaxpr.eqns if e.primitive.name == "scan"]
    assert scan.params["reverse"] is True and scan.params["unroll"] == 2


def test_one_trace_of_a_scanned_rule_serves_all_layers():
    case, calls = zoo.build("plain_scan_layers"), []

    def rule(site, op, x, w):
        calls.append((site.name, len(site.index)))
        return op(x, w)

    jax.jit(rewrite(case.apply, rule))(case.params, *case.inputs)
    assert set(calls) == {("layers.up", 1), ("layers.down", 1), ("head", 0)}
    assert len(calls) <= 2 * 3  # the body may be traced again to settle its types


def test_the_index_is_the_entry_of_the_stack():
    case = zoo.build("plain_scan_nested")

    def rule(site, op, x, w):
        group, layer = site.index
        return op(x, w) + (10 * group + layer).astype(x.dtype)

    out = jax.jit(tap(rewrite(case.apply, rule), lambda x, y: y.mean()))
    plain = jax.jit(tap(case.apply, lambda x, y: y.mean()))
    got = out(case.params, *case.inputs)[1]["w"]
    assert got.shape == (2, 3)
    np.testing.assert_allclose(
        got[0, 0], plain(case.params, *case.inputs)[1]["w"][0, 0], rtol=1e-4
    )
    assert 11.0 < got[1, 2] < 13.0


def test_a_stored_carry_that_changes_is_decoded_and_reported():
    def apply(p, x):
        def body(carry, _):
            w, x = carry
            return (w * 0.5, jnp.tanh(x @ w) @ p["v"]), None

        return jax.lax.scan(body, (p["w"], x), length=2)[0][1]

    params = {n: store(jax.random.normal(jax.random.key(0), (4, 4))) for n in "wv"}
    run = rewrite(apply)
    assert run.notes(params, jnp.ones((2, 4))) == (
        "a stored weight of 4x4 is decoded at a scan's carry",
        "not followed: w is carried through a scan that changes it, so its uses there "
        "are no sites",
    )
    assert_close(
        run(params, jnp.ones((2, 4))), apply(base.decoded(params), jnp.ones((2, 4)))
    )


@pytest.mark.parametrize("loop", ["scan", "while loop"])
def test_weights_swapped_by_a_loop_are_reported_each(loop):
    def body(carry):
        i, a, b, x = carry
        return i + 1, b, a, jnp.tanh(x @ a)

    def apply(p, x):
        start = (jnp.int32(0), p["a"], p["b"], x)
        if loop == "scan":
            end, _ = jax.lax.scan(lambda c, _: (body(c), None), start, length=4)
        else:
            end = jax.lax.while_loop(lambda c: c[0] < 4, body, start)
        return end[3] @ p["head"]

    params = {n: jax.random.normal(jax.random.key(0), (4, 4)) for n in "ab"}
    params["head"], x = params["a"][:, :2], jnp.ones((2, 4))
    found = sites(apply, params, x)
    assert [s.name for s in found] == ["head"] and found.unused == ()
    assert found.opaque == tuple(
        f"{name} is carried through a {loop} that changes it, so its uses there are no "
        "sites"
        for name in "ab"
    )
    assert f"not followed: {found.opaque[0]}, {found.opaque[1]}" in str(found)
    stored = {**params, "a": store(params["a"])}
    run = rewrite(apply)
    assert_close(run(stored, x), apply(base.decoded(stored), x))
    assert f"not followed: {found.opaque[1]}" in run.notes(stored, x)


def test_a_loop_without_a_site_decodes_what_enters_it():
    def apply(p, x):
        total = jax.lax.scan(lambda c, row: (c + row.sum(), None), 0.0, p["w"])[0]
        return x @ p["w"] + total

    params = {"w": store(jnp.arange(8.0).reshape(4, 2))}
    run, x = rewrite(apply), jnp.ones((1, 4))
    assert run.notes(params, x) == ("a stored weight of 4x2 is decoded at scan",)
    assert_close(run(params, x), apply(base.decoded(params), x))


# shard_map.


def mesh(n=1):
    return jax.make_mesh((n,), ("i",), axis_types=(AxisType.Auto,))


def test_rules_and_keys_act_inside_a_shard_map(key):
    case = zoo.build("plain_shard_map_inside")

    def noisy(key):
        def rule(site, op, x, w):
            return op(x, w) + jax.random.normal(site.key(key), ())

        return rewrite(case.apply, rule)(case.params, *case.inputs)

    p, (x,) = case.params, case.inputs
    got = jax.jit(noisy)(key)
    draws = {s.name: jax.random.normal(s.key(key), ()) for s in sites(case.apply, p, x)}
    expected = jnp.tanh(x @ p["w"] + draws["w"]) @ p["after"] + draws["after"]
    assert_close(got, expected, 1e-5)


def test_taps_inside_a_shard_map_are_reported():
    case = zoo.build("plain_shard_map_inside")
    _, taps = tap(case.apply, lambda x, y: y.max())(case.params, *case.inputs)
    assert list(taps) == ["after"]


def test_a_shard_map_in_a_scan_knows_the_iteration():
    def layer(w, x):
        local = lambda x, w: jax.lax.psum(x @ w, "i")  # noqa: E731
        spec = PartitionSpec
        return jax.shard_map(
            local, mesh=mesh(), in_specs=(spec(None, "i"), spec("i")), out_specs=spec()
        )(x, w)

    def apply(p, x):
        return jax.lax.scan(lambda x, w: (layer(w, x), None), x, p["w"])[0]

    params, x = {"w": jnp.stack([jnp.eye(2)] * 3)}, jnp.ones((1, 2))
    add = lambda site, op, x, w: op(x, w) + site.index[0].astype(x.dtype)  # noqa: E731
    got = jax.jit(rewrite(apply, add))(params, x)
    np.testing.assert_array_equal(got, [[4.0, 4.0]])


def test_stored_specs_follow_groups_and_words():
    w = store(jnp.ones((8, 4)), (0,))  # one scale per output
    rows = stored_specs(w, PartitionSpec("i"), {"i": 4})
    assert tuple(rows.integers) == ("i", None) and tuple(rows.scale) == (None, None)
    columns = stored_specs(w, PartitionSpec(None, ("i", "j")), {"i": 2, "j": 2})
    assert tuple(columns.scale) == (None, ("i", "j"))
    assert stored_specs(w, PartitionSpec("i"), {"i": 3}) is None


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jeff import base, quantize
from jeff.program.rewrite import rewrite
from support.toy_stored import store

mesh = jax.make_mesh((4,), ("i",), axis_types=(AxisType.Auto,))
keys = jax.random.split(jax.random.key(0), 3)
dense = {"a": jax.random.normal(keys[0], (256, 64)) / 16,
         "b": jax.random.normal(keys[1], (64, 8)) / 8}
x = jax.random.normal(keys[2], (4, 256))
config = quantize.QuantConfig(bits=4, group_size=64)
packed = {"a": quantize.quantize(dense["a"], config, stride=1),
          "b": quantize.quantize(dense["b"], config)}
toy = {n: store(w, (0,)) for n, w in dense.items()}

def apply(p, x):
    return jnp.tanh(x @ p["a"]) @ p["b"]

run = jax.jit(rewrite(apply, lambda site, op, x, w: op(x, w)))
for params in (dense, packed, toy):
    expected = run(params, x)
    for spec in (P("i"), P(None, "i")):
        put = lambda a: jax.device_put(a, NamedSharding(
            mesh, spec if a.shape[list(spec).index("i")] % 4 == 0 else P()))
        sharded = {**params, "a": jax.tree.map(put, params["a"])}
        got = run(sharded, x)
        assert len(jax.tree.leaves(sharded["a"])[0].sharding.device_set) == 4
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)

def inside(p, x):
    local = lambda x, w: jax.lax.psum(x @ w, "i")
    h = jax.shard_map(local, mesh=mesh, in_specs=(P(None, "i"), P("i")),
                      out_specs=P())(x, p["a"])
    return jnp.tanh(h) @ p["b"]

seen = []
def look(site, op, x, w):
    seen.append((site.name, type(w).__name__, w.shape))
    return op(x, w)

for params, kept in ((packed, "QTensor"), (toy, "Toy")):
    seen.clear()
    got = jax.jit(rewrite(inside, look))(params, x)
    np.testing.assert_allclose(got, run(params, x), rtol=1e-4, atol=1e-5)
    assert ("a", kept, (64, 64)) in seen, seen
    assert rewrite(inside).notes(params, x) == ()
coarse = {**packed, "a": quantize.quantize(
    dense["a"], quantize.QuantConfig(bits=4, group_size=128))}
(note,) = rewrite(inside).notes(coarse, x)
assert note.startswith("a stored weight of 256x64") and "shard_map" in note, note
np.testing.assert_allclose(
    jax.jit(rewrite(inside))(coarse, x), run(coarse, x), rtol=1e-4, atol=1e-5)
print("equal")
"""


def test_four_devices_give_what_one_gives(python, tmp_path):
    import pathlib

    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    done = python(
        script,
        path=[pathlib.Path(__file__).parents[2]],
        env={"XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
    )
    assert done.stdout.strip() == "equal", done.stderr[-2000:]
