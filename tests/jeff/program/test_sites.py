"""Sites: what a reader finds by hand in every model of the zoo, and what they know."""

import collections
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import zoo
from support.toy_stored import store, store_sites

from jeff.program.rewrite import rewrite
from jeff.program.sites import sites


def find(name):
    case = zoo.build(name)
    return sites(case.apply, case.params, *case.inputs, axis_sizes=case.axis_sizes)


@pytest.mark.parametrize("name", zoo.params())
def test_the_zoos_sites_are_found(name):
    # Whole matrices taken out of a stack by a loop's counter or an expert's number are
    # followed to their product: they are no look-up of their own. Kernels laid side by
    # side are one site with a part for each.
    case = zoo.build(name)
    linears, lookups, derived = collections.Counter(), collections.Counter(), []
    for site in find(name):
        if site.derived and not site.parts:
            derived.append(site.leaves)
        for part in site.parts:
            (lookups if site.kind == "lookup" else linears)[part.leaf] += 1
    assert dict(linears) == dict(case.linears)
    assert sorted(map(sorted, derived)) == sorted(map(sorted, case.derived))
    stacks = {"plain_fori_slices", "plain_while_slices", "plain_moe_gather"}
    assert dict(lookups) == ({} if name in stacks else dict(case.lookups))


@pytest.mark.parametrize("name", zoo.params())
def test_stored_weights_have_the_sites_of_their_dense_ones(name):
    case, found = zoo.build(name), find(name)
    stored = store_sites(case.params, found)
    again = sites(case.apply, stored, *case.inputs, axis_sizes=case.axis_sizes)
    assert [s.as_dict() for s in again] == [s.as_dict() for s in found]


@pytest.mark.parametrize("name", zoo.params())
def test_names_are_unique_and_tables_print(name):
    found = find(name)
    names = [s.name for s in found]
    assert len(set(names)) == len(names)
    assert all(found.named(n).name == n for n in names)
    table = str(found).splitlines()
    assert len(table) >= 1 + len(found) and table[0].startswith("site ")
    json.dumps([s.as_dict() for s in found])


def test_a_site_presents_itself_as_k_by_n():
    found = find("plain_weight_left")
    assert [(s.name, s.shape, s.x_shape, s.y_shape) for s in found] == [
        ("kn", (16, 24), (2, 5, 16), (2, 5, 24)),
        ("nk", (24, 8), (2, 5, 24), (2, 5, 8)),
    ]
    assert [s.contract_axes for s in found] == [(0,), (1,)]
    general = {s.name: s for s in find("plain_attention_general")}
    assert general["q"].shape == (16, 16) and general["q"].contract_axes == (0,)
    assert general["out"].contract_axes == (0, 1)  # heads and head size


def test_a_convolution_contracts_all_axes_but_the_output_features():
    for name in ("plain_conv_nhwc", "plain_conv_nchw"):
        case = zoo.build(name)
        for site in find(name):
            leaf = case.params[site.leaf]
            (out,) = set(range(leaf.ndim)) - set(site.contract_axes)
            assert site.shape[-1] == leaf.shape[out]
            assert np.prod(site.shape) == leaf.size


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("plain_attention_general", [("q", "k", "v"), ("out",)]),
        ("plain_mixed_precision", [("q", "k", "v")]),  # each casts x again; one jitted
        ("plain_lora_apart", [("w", "a"), ("b",)]),
        ("plain_qkv_split_before", [("qkv", "qkv@1", "qkv@2"), ("out",)]),
    ],
)
def test_sites_with_equal_inputs_share_them(name, groups):
    assert [tuple(s.name for s in g) for g in find(name).groups()] == groups


def test_casting_again_in_each_linen_layer_does_not_hide_a_shared_input():
    if "linen_transformer" not in zoo.NAMES:
        pytest.skip("flax is absent")
    grouped = find("linen_transformer").groups()
    qkv = [g for g in grouped if len(g) >= 3]
    assert qkv and all(
        s.leaf.split(".")[-2] in "query key value q k v".split() for g in qkv for s in g
    )


def test_producers_are_sites_leaves_or_primitives():
    def apply(p, x):
        h = (x / jnp.std(x)) * p["scale"]
        return jnp.tanh(h @ p["a"]) @ p["b"] @ p["c"]

    p = {n: jnp.ones((2, 2)) for n in "abc"} | {"scale": jnp.ones(2)}
    found = sites(apply, p, jnp.ones((1, 2)))
    assert [s.producer for s in found] == ["leaf:scale", "tanh", "b"]
    assert found.elementwise == ("scale",)
    assert find("plain_scan_layers").named("head").producer == "scan"


@pytest.mark.parametrize(
    ("name", "stack_axes", "trips"),
    [
        ("plain_scan_layers", (0,), (3,)),
        ("plain_scan_reverse_last_axis", (1,), (3,)),
        ("plain_scan_nested", (0, 1), (2, 3)),
        ("plain_fori_slices", (0,), (3,)),
        ("plain_while_slices", (0,), (None,)),
    ],
)
def test_loops_and_stack_axes(name, stack_axes, trips):
    site = find(name)[0]
    assert site.stack_axes == stack_axes and site.trips == trips
    rows = (
        site.macs // int(np.prod([t or 1 for t in trips])) // int(np.prod(site.shape))
    )
    assert rows == 4


def test_experts_keep_their_axis_as_a_batch_axis():
    (up, *_) = find("plain_moe_batched")
    assert len(up.shape) == 3 and up.contract_axes and 0 not in up.contract_axes


def test_constants_and_unused_leaves_are_reported():
    found = find("plain_closure_and_unused")
    assert found.unused == ("unused",)
    assert found.constants == ("float32[16,16] in dot",)
    assert "constants used as weights: float32[16,16] in dot" in str(found)
    assert "unused leaves: unused" in str(found)


def test_an_unknown_site_names_the_nearest():
    with pytest.raises(ValueError, match=r"no site 'layers.upp'; nearest: layers.up"):
        find("plain_scan_layers").named("layers.upp")


def test_unbound_axes_need_their_size():
    case = zoo.build("plain_psum_open")
    with pytest.raises(ValueError, match=r"named axis .* axis_sizes=\{'i': 4\}"):
        sites(case.apply, case.params, *case.inputs)
    (site,) = sites(case.apply, case.params, *case.inputs, axis_sizes={"i": 4})
    assert site.name == "w"


def test_shapes_are_enough():
    case = zoo.build("plain_mlp")
    shapes = jax.eval_shape(lambda: (case.params, case.inputs))
    found = sites(case.apply, shapes[0], *shapes[1])
    assert [s.name for s in found] == [s.name for s in find("plain_mlp")]


def test_a_site_in_the_condition_of_a_while_loop():
    def apply(p, x):
        above = lambda x: jnp.sum(x @ p["w"]) > 0.1  # noqa: E731
        return jax.lax.while_loop(above, lambda x: 0.5 * x @ p["w"], x)

    p, x = {"w": jnp.eye(3)}, jnp.ones((1, 3))
    assert [s.trips for s in sites(apply, p, x)] == [(None,), (None,)]
    run = rewrite(apply, lambda site, op, x, w: op(x, w))
    np.testing.assert_array_equal(run(p, x), apply(p, x))


def test_equations_with_a_weight_inside_that_are_not_looked_into_are_named():
    def apply(p, x):
        solve = jax.lax.custom_linear_solve(
            lambda v: p["w"] @ v, x, lambda _, b: b, symmetric=True
        )
        return solve @ p["out"]

    found = sites(apply, {"w": jnp.eye(2), "out": jnp.eye(2)}, jnp.ones(2))
    assert [s.name for s in found] == ["out"]
    assert any(line.startswith("custom_linear_solve of w") for line in found.opaque)


# Keys.


def _draws(apply, params, x, key):
    """What a rule draws at every site, in the order and number of the uses."""
    drawn = []

    def rule(site, op, x, w):
        value = jax.random.key_data(site.key(key))
        jax.debug.callback(lambda v: drawn.append(tuple(v.tolist())), value)
        return op(x, w)

    jax.block_until_ready(jax.jit(rewrite(apply, rule))(params, x))
    jax.effects_barrier()
    return sorted(drawn)


def test_a_draw_is_the_same_scanned_or_written_out(key):
    w = jax.random.normal(key, (3, 4, 4)) / 2
    x = jnp.ones((2, 4))

    def scanned(p, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["layers"]["w"])[
            0
        ]

    def written_out(p, x):
        for layer in p["layers"]:
            x = jnp.tanh(x @ layer["w"])
        return x

    stacked = _draws(scanned, {"layers": {"w": w}}, x, key)
    listed = _draws(written_out, {"layers": [{"w": w[i]} for i in range(3)]}, x, key)
    assert stacked == listed and len(set(stacked)) == 3


@pytest.mark.parametrize("reverse", [False, True])
def test_uses_of_one_weight_are_numbered_as_if_written_out(key, reverse):
    p = {"h": jnp.eye(2) * 0.5}
    xs, start = jnp.arange(6.0).reshape(3, 1, 2), jnp.ones((1, 2))

    def step(h, x, p):
        return jnp.tanh(x + (h @ p["h"]) @ p["h"])

    def scanned(p, h, xs):
        body = lambda h, x: (step(h, x, p), None)  # noqa: E731
        h, _ = jax.lax.scan(body, h, xs, reverse=reverse)
        return h @ p["h"]

    def written_out(p, h, xs):
        for x in xs[::-1] if reverse else xs:
            h = step(h, x, p)
        return h @ p["h"]

    values = {}
    for name, apply in (("scanned", scanned), ("written out", written_out)):
        noisy = rewrite(
            apply,
            lambda site, op, x, w: op(x, w) + jax.random.normal(site.key(key), ()),
        )
        values[name] = jax.jit(noisy)(p, start, xs)
    np.testing.assert_allclose(values["scanned"], values["written out"], rtol=1e-6)


def test_a_draw_depends_on_nothing_else(key):
    def small(p, x):
        return x @ p["w"]

    def large(p, x):
        return jnp.tanh(x @ p["before"]) @ p["w"] @ p["after"]

    x, eye = jnp.ones((1, 2)), jnp.eye(2)
    few = sites(small, {"w": eye}, x)
    many = sites(large, {"w": eye, "before": eye, "after": eye}, x)
    data = lambda s: jax.random.key_data(s.key(key)).tolist()  # noqa: E731
    assert data(few.named("w")) == data(many.named("w"))
    assert data(many.named("after")) != data(many.named("w"))


def test_stored_and_dense_parameters_may_be_mixed():
    case = zoo.build("plain_mlp")
    params = {
        "layers": [
            {
                **case.params["layers"][0],
                "kernel": store(case.params["layers"][0]["kernel"]),
            },
            case.params["layers"][1],
        ]
    }
    found = sites(case.apply, params, *case.inputs)
    assert [s.name for s in found] == ["layers.0.kernel", "layers.1.kernel"]


def test_weights_that_a_loop_swaps_are_reported_not_called_unused():
    def swap(params, x):
        def body(carry, _):
            h, w, v = carry
            return (jnp.tanh(h @ w), v, w), None

        return jax.lax.scan(body, (x, params["w"], params["v"]), None, length=3)[0][0]

    params = {"w": jnp.eye(4), "v": jnp.eye(4)}
    x = jnp.ones((2, 4))
    found = sites(swap, params, x)
    assert found.unused == ()
    assert any(line.startswith("w is carried") for line in found.opaque)
    assert any("not followed: v" in line for line in rewrite(swap).notes(params, x))


def test_a_weight_chosen_by_a_branch_is_a_derived_site():
    def pick(params, i, x):
        branches = [lambda p: p["w"], lambda p: p["v"]]
        return x @ jax.lax.switch(i, branches, params)

    params = {"w": jnp.eye(4), "v": 2 * jnp.eye(4)}
    (site,) = sites(pick, params, jnp.int32(0), jnp.ones((2, 4)))
    assert site.derived and set(site.leaves) == {"w", "v"}
    doubled = rewrite(pick, lambda site, op, x, w: 2 * op(x, w))
    assert doubled(params, jnp.int32(1), jnp.ones((2, 4)))[0, 0] == 4
