"""Rewriting: nothing changes without a rule, and everything composes with one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import zoo
from support.compare import assert_close, assert_same
from support.stored import rounded
from support.toy_stored import Toy, store, store_sites

from jeff import base, program, quantize, tree
from jeff.program.rewrite import Rewritten, rewrite
from jeff.program.sites import sites


def identity(site, op, x, w):
    del site
    return op(x, w)


# Bits are compared between programs compiled alike; compiling takes most of the time.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
decoded = jit(base.decoded)


@functools.cache
def plain(name):
    """The case's program, compiled, with the gradient of its loss."""
    return jit(_with_gradient(zoo.build(name), _has_gradient_test(name)))


def _has_gradient_test(name):
    """All plain cases, and one per framework: compiling gradients takes long."""
    chosen = (
        "nnx_attention_general",
        "linen_scan_axis_1",
        "haiku_lstm",
        "equinox_attention",
    )
    return zoo.build(name).differentiable and name.startswith(("plain", *chosen))


def _with_gradient(case, differentiate=True):
    def run(params):
        out = case.bound()(params, *case.inputs)
        if not differentiate:
            return out, None
        return out, jax.grad(case.loss, allow_int=True)(params)

    return run


def _rewritten(case, *rules):
    return dataclasses.replace(case, apply=rewrite(case.apply, *rules))


def _stored(name):
    case = zoo.build(name)
    found = sites(case.apply, case.params, *case.inputs, axis_sizes=case.axis_sizes)
    return store_sites(case.params, found)


# Without a rule, and with one that changes nothing.


@pytest.mark.parametrize("name", zoo.params(without=("named_axis",)))
def test_without_rules_the_program_is_the_same_equation_by_equation(name):
    # Bit-identity of outputs and gradients without compiling anything: equations are
    # rebound with their own parameters, derivatives included.
    case = zoo.build(name)
    leaves, treedef = jax.tree.flatten((case.params, *case.inputs))

    def text(fn):
        run = lambda *leaves: fn(*jax.tree.unflatten(treedef, leaves))  # noqa: E731
        return str(jax.make_jaxpr(run)(*leaves))

    assert text(rewrite(case.apply)) == text(case.apply)


@pytest.mark.parametrize(
    "name", [n for n in zoo.NAMES if n.startswith("plain") or _has_gradient_test(n)]
)
def test_the_identity_rule_changes_no_bit_of_outputs_or_gradients(name):
    case = zoo.build(name)
    run = _with_gradient(_rewritten(case, identity), _has_gradient_test(name))
    got = jit(run)(case.params)
    assert_same(got, plain(name)(case.params))


@pytest.mark.parametrize("name", ["plain_mlp", "plain_scan_layers"])
@pytest.mark.parametrize("rules", [(), (identity,)], ids=["no rule", "identity"])
def test_eager_runs_agree_to_rounding(name, rules):
    case = zoo.build(name)
    expected, gradient = _with_gradient(case)(case.params)
    got, new_gradient = _with_gradient(_rewritten(case, *rules))(case.params)
    assert_close(got, expected, 1e-6)
    assert_close(new_gradient, gradient, 2e-6)


# Stored weights.


@pytest.mark.parametrize("name", zoo.params())
def test_stored_weights_give_what_their_dense_weights_give(name):
    case, stored = zoo.build(name), _stored(name)
    assert any(base.is_stored(w) for w in tree.flatten(stored)[0].values())
    rules = () if name.startswith("plain") else (identity,)
    apply = rewrite(case.apply, *rules)
    run = jit(lambda params: case.bound(apply)(params, *case.inputs))
    expected, _ = plain(name)(decoded(stored))
    if "derived" in case.marks:  # decoding may be fused into sums, in another order
        assert_close(run(stored), expected, 1e-6)
    else:
        assert_same(run(stored), expected)


def test_the_decode_rule_is_the_default_also_inside_rules():
    case, stored = zoo.build("plain_scan_layers"), _stored("plain_scan_layers")
    seen = []

    def look(site, op, x, w):
        seen.append((site.name, type(w).__name__, w.shape))
        return op(x, w)

    run = jit(lambda params: rewrite(case.apply, look)(params, *case.inputs))
    expected, _ = plain("plain_scan_layers")(decoded(stored))
    assert_same(run(stored), expected)
    assert {kind for _, kind, _ in seen} == {"Toy"}


@pytest.mark.parametrize(
    "name", ["plain_mlp", "plain_scan_layers", "plain_moe_batched"]
)
def test_vmap_over_inputs_and_over_stored_params(name):
    case, stored = zoo.build(name), _stored(name)
    apply = rewrite(case.apply, identity)
    two = jax.tree.map(lambda a: jnp.stack([a, jnp.flip(a, 0)]), stored)
    inputs = jax.tree.map(
        lambda a: jnp.stack([a, a // 2 if a.dtype == jnp.int32 else 0.5 * a]),
        case.inputs,
    )
    assert_close(
        jit(jax.vmap(apply, (None, *[0] * len(inputs))))(stored, *inputs),
        jit(jax.vmap(case.apply, (None, *[0] * len(inputs))))(decoded(stored), *inputs),
    )
    assert_close(
        jit(jax.vmap(apply, (0, *[None] * len(inputs))))(two, *case.inputs),
        jit(jax.vmap(case.apply, (0, *[None] * len(inputs))))(
            decoded(two), *case.inputs
        ),
    )


# Which stored weights stay packed.

PACKED = (
    "plain_scan_layers", "plain_scan_reverse_last_axis", "plain_scan_nested",
    "plain_recurrent", "plain_fori_slices", "plain_while_slices",
    "plain_switch_in_scan", "plain_remat_in_scan", "plain_attention_general",
    "plain_qkv_split_before", "plain_moe_gather", "plain_moe_vmapped",
    "plain_moe_batched", "plain_tied_embedding", "plain_nested_vmap",
    "plain_conv_nchw", "plain_barriers", "plain_mixed_precision",
    "plain_shard_map_inside", "nnx_transformer_scanned",
    "linen_scan_axis_0", "linen_scan_axis_1", "linen_partitioned",
)  # fmt: skip


@pytest.mark.parametrize("name", PACKED)
def test_codes_stay_packed_up_to_their_site(name):
    if name not in zoo.NAMES:
        pytest.skip("its framework is absent")
    case = zoo.build(name)
    assert rewrite(case.apply).notes(_stored(name), *case.inputs) == ()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("plain_lora", "add"),
        ("plain_masked", "mul"),
        ("plain_weight_norm", "div"),
        ("plain_kernels_concatenated", "concatenate"),
        ("plain_custom_vjp_doubled", "custom_vjp_call"),
        ("plain_custom_jvp_tripled", "custom_jvp_call"),
    ],
)
def test_what_is_decoded_early_is_reported(name, reason):
    case = zoo.build(name)
    notes = rewrite(case.apply).notes(_stored(name), *case.inputs)
    assert any(note.endswith(f"is decoded at {reason}") for note in notes), notes


def test_a_weight_that_offers_no_view_is_decoded_and_reported():
    w = jax.random.normal(jax.random.key(0), (3, 4, 4))
    params = {"w": rounded(w)}

    def apply(p, x):
        return jax.lax.scan(lambda h, w: (h @ w, None), x, p["w"])[0]

    run = rewrite(apply)
    (note,) = run.notes(params, jnp.ones((2, 4)))
    assert note == "a stored weight of 3x4x4 is decoded at a scan along a packed axis"
    assert_close(
        run(params, jnp.ones((2, 4))), apply(base.decoded(params), jnp.ones((2, 4)))
    )


@pytest.mark.parametrize(
    "name", ["plain_mlp", "plain_scan_layers", "linen_scan_axis_1"]
)
@pytest.mark.parametrize("bits", [3, 8])
def test_qtensors_run_packed_and_equal_their_dense_weights(name, bits):
    if name not in zoo.NAMES:
        pytest.skip("its framework is absent")
    case = zoo.build(name)
    config = quantize.QuantConfig(bits=bits, group_size=8)
    axes = {
        part.leaf: part.contract_axes
        for site in sites(case.apply, case.params, *case.inputs)
        if site.kind == "dot"
        for part in site.parts
    }

    def pack(leaf, w):
        if leaf not in axes:
            return w
        return quantize.quantize(w, config, contract_axes=axes[leaf])

    packed = tree.map_with_path(pack, case.params)
    apply = rewrite(case.apply)
    assert apply.notes(packed, *case.inputs) == ()
    expected, _ = plain(name)(decoded(packed))
    got = jit(lambda params: apply(params, *case.inputs))(packed)
    assert_close(got, expected, 1e-6)


def test_a_stored_embedding_decodes_only_its_rows():
    rows, width = 4096, 64
    table = store(jax.random.normal(jax.random.key(0), (rows, width)), (1,))

    def apply(p, ids):
        return p["table"][ids] * 2.0

    compiled = jax.jit(rewrite(apply)).lower({"table": table}, jnp.arange(3)).compile()
    assert f"f32[{rows},{width}]" not in compiled.as_text()
    ids = jnp.array([5, -1, rows + 7, 0])  # from the end, and beyond it
    assert_same(
        jax.jit(rewrite(apply))({"table": table}, ids),
        jax.jit(apply)({"table": table.decode()}, ids),
    )


def test_a_tied_table_is_looked_up_by_rows_and_multiplied_whole():
    rows, width = 512, 16
    table = store(jax.random.normal(jax.random.key(0), (rows, width)), (1,))
    seen = []

    def look(site, op, x, w):
        seen.append((site.name, site.kind, type(w)))
        return op(x, w)

    def apply(p, ids):
        return p["e"][ids] @ p["e"].T

    ids = jnp.array([[1, 2]])
    got = jax.jit(rewrite(apply, look))({"e": table}, ids)
    assert_same(got, jax.jit(apply)({"e": table.decode()}, ids))
    assert seen == [("e", "lookup", Toy), ("e@1", "dot", Toy)]


# Rules.


def test_the_first_rule_is_outermost_and_rewriting_again_goes_inside():
    def scale(site, op, x, w):
        return 3.0 * op(x, w)

    def shift(site, op, x, w):
        return op(x, w) + 1.0

    params, x = {"w": jnp.eye(2)}, jnp.ones((1, 2))
    apply = lambda p, x: x @ p["w"]  # noqa: E731
    np.testing.assert_array_equal(rewrite(apply, scale, shift)(params, x), [[6, 6]])
    np.testing.assert_array_equal(rewrite(apply, shift, scale)(params, x), [[4, 4]])
    again = rewrite(rewrite(apply, scale), shift)
    assert isinstance(again, Rewritten) and again.apply is apply
    np.testing.assert_array_equal(again(params, x), [[6, 6]])


def test_a_rewritten_program_inside_another_program_is_rewritten_too():
    double = lambda site, op, x, w: 2.0 * op(x, w)  # noqa: E731
    inner = rewrite(lambda p, x: x @ p["w"], double)
    outer = rewrite(lambda p, x: jnp.tanh(inner(p, x)) @ p["w"], double)
    params, x = {"w": jnp.eye(2) * 0.1}, jnp.ones((1, 2))
    expected = 2.0 * jnp.tanh(4.0 * x @ params["w"]) @ params["w"]
    assert_close(outer(params, x), expected)


def test_rules_see_the_weight_as_k_by_n_and_the_input_with_k_last():
    case, shapes = zoo.build("plain_attention_general"), {}

    def look(site, op, x, w):
        shapes[site.name] = (x.shape, w.shape)
        y = op(x, w)
        assert y.shape == site.y_shape and x.shape == site.x_shape
        np.testing.assert_allclose(y, x @ w, rtol=1e-5, atol=1e-6)
        return y

    with jax.disable_jit():
        rewrite(case.apply, look)(case.params, *case.inputs)
    assert shapes["q"] == ((2, 5, 16), (16, 16))
    assert shapes["out"] == ((2, 5, 16), (16, 16))


def test_a_rule_must_be_callable():
    with pytest.raises(TypeError, match="a rule must be a function, got 'quantize'"):
        rewrite(lambda p, x: x, "quantize")


def test_a_rule_returning_a_wider_dtype_keeps_the_programs():
    wide = lambda site, op, x, w: op(x, w).astype(jnp.float32)  # noqa: E731
    case = zoo.build("plain_mixed_precision")
    got = jax.eval_shape(rewrite(case.apply, wide), case.params, *case.inputs)
    assert got == jax.eval_shape(case.apply, case.params, *case.inputs)


# What a traced function keeps.


def test_output_structure_dtypes_and_weak_types_are_the_programs():
    def apply(p, batch, *, scale=1.0):
        y = batch["x"] @ p["w"]
        return {"y": y, "weak": batch["n"] * 2, "scale": scale * 2, "none": None}

    params = {"w": jnp.ones((2, 2), jnp.bfloat16)}
    batch = {"x": jnp.ones((1, 2), jnp.bfloat16), "n": 3.0}
    for run in (lambda f: f, jax.jit):
        got = run(rewrite(apply, identity))(params, batch, scale=2.0)
        assert_same(
            got, jax.tree.map(jnp.asarray, run(apply)(params, batch, scale=2.0))
        )


def test_precision_and_accumulator_are_kept():
    case = zoo.build("plain_precision")
    text = str(jax.make_jaxpr(rewrite(case.apply, identity))(case.params, *case.inputs))
    assert "HIGHEST" in text and "preferred_element_type=float32" in text


def test_prints_and_ordered_effects_happen_once(capfd):
    def apply(p, x):
        jax.debug.print("sum {}", x.sum(), ordered=True)
        y, _ = jax.lax.scan(lambda h, w: (_shown(h) @ w, None), x, p["w"])
        return y

    def _shown(h):
        jax.debug.print("layer")
        return h

    params, x = {"w": jnp.ones((3, 2, 2))}, jnp.ones((1, 2))
    jax.block_until_ready(jax.jit(rewrite(apply, identity))(params, x))
    jax.effects_barrier()
    assert capfd.readouterr().out.split().count("layer") == 3
    jax.block_until_ready(rewrite(apply)(params, x))
    jax.effects_barrier()
    assert capfd.readouterr().out.count("sum 2.0") == 1


def test_mutable_references_are_written_through():
    def apply(p, ref, x):
        y = x @ p["w"]
        ref[...] = y[0]
        return y

    ref = jax.new_ref(jnp.zeros(2))
    rewrite(apply, identity)({"w": jnp.eye(2)}, ref, jnp.array([[1.0, 2.0]]))
    np.testing.assert_array_equal(ref[...], [1.0, 2.0])


def test_donation_belongs_to_the_outer_jit():
    run = jax.jit(rewrite(lambda p, x: x @ p["w"] + x, identity), donate_argnums=1)
    x = jnp.ones((8, 8))
    run({"w": jnp.eye(8)}, x)
    assert x.is_deleted()


def test_named_axes_come_from_whoever_maps_the_rewritten_program():
    case = zoo.build("plain_psum_open")
    with pytest.raises(ValueError, match=r"pass its size, for example axis_sizes"):
        rewrite(case.apply)(case.params, *case.inputs)


def test_values_of_an_outer_trace_may_be_captured():
    def loss(k, x):
        apply = rewrite(lambda p, x: (x @ p["w"]) * k, identity)
        return apply({"w": jnp.eye(2)}, x).sum()

    x = jnp.array([[1.0, 2.0]])
    assert jax.grad(loss)(2.0, x) == 3.0
    assert jax.jit(jax.grad(loss))(2.0, x) == 3.0
    with jax.checking_leaks():
        assert jax.jit(jax.grad(loss))(2.0, x) == 3.0


def test_gradients_reach_scales_and_what_rules_bring_along():
    case = zoo.build("plain_scan_layers")
    stored = _stored("plain_scan_layers")
    floats, rest = program.trainable(stored)

    def loss(floats, gain):
        apply = rewrite(case.apply, lambda site, op, x, w: gain * op(x, w))
        return apply(program.merge(floats, rest), *case.inputs)[0].sum()

    scales, gain = jax.grad(loss, (0, 1))(floats, jnp.float32(1.5))
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(scales))
    step = 1e-2
    up, down = (loss(floats, jnp.float32(1.5 + s)) for s in (step, -step))
    np.testing.assert_allclose(gain, (up - down) / (2 * step), rtol=1e-2)


# Tracing.


def _deep(layers, width=8):
    names = [{n: width for n in "qkvo"} | {"up": width, "down": width}] * layers
    params = [
        {n: jnp.full((w, w), 0.01 * (i + 1)) for n, w in layer.items()}
        for i, layer in enumerate(names)
    ]

    def apply(params, x):
        for p in params:
            h = x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)
            q, k, v = h @ p["q"], h @ p["k"], h @ p["v"]
            x = x + jax.nn.softmax(q @ k.T) @ v @ p["o"]
            x = x + jax.nn.silu(x @ p["up"]) @ p["down"]
        return x

    return apply, params


def test_rewriting_traces_the_program_once():
    apply, params = _deep(2)
    traces = []

    def counted(params, x):
        traces.append(x.shape)
        return apply(params, x)

    run, x = rewrite(counted, identity), jnp.ones((4, 8))
    run(params, x)
    run(params, x + 1)
    jax.jit(run)(params, x)
    sites(counted, params, x)
    run.notes(params, x)
    assert traces == [(4, 8)]
    run(params, jnp.ones((5, 8)))
    assert traces == [(4, 8), (5, 8)]


def test_a_jitted_rewritten_program_compiles_once():
    apply, params = _deep(1)
    calls = []

    def rule(site, op, x, w):
        calls.append(site.name)
        return op(x, w)

    run = jax.jit(rewrite(apply, rule))
    for i in range(3):
        run(params, jnp.full((4, 8), float(i)))
    assert len(calls) == len(set(calls)) == 6 and run._cache_size() == 1


def test_tracing_a_rewritten_program_is_no_more_than_twice_the_work():
    # Counted in equations bound, not in seconds: each is bound once more.
    apply, params = _deep(12)
    x = jnp.ones((4, 8))
    plain_size = len(jax.make_jaxpr(apply)(params, x).eqns)
    jaxpr = jax.make_jaxpr(rewrite(apply, identity))(params, x)
    assert len(jaxpr.eqns) <= 2 * plain_size


def test_rewriting_outlives_an_equal_method_that_is_gone():
    class Model:
        def apply(self, params, x):
            return x @ params["w"]

    model, args = Model(), ({"w": jnp.eye(2)}, jnp.ones((1, 2)))
    first = rewrite(model.apply)
    first(*args)
    second = rewrite(model.apply)
    del first
    np.testing.assert_array_equal(second(*args), [[1.0, 1.0]])
