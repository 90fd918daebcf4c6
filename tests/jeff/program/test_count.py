"""Counts against numbers worked out by hand, and against convolutions of ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from support import zoo
from support.stored import rounded

from jeff import base
from jeff.program.count import Count, count, equation_count
from jeff.program.sites import sites


def shape(*sizes, dtype=jnp.float32):
    """An abstract array."""
    return jax.ShapeDtypeStruct(sizes, dtype)


def totals(c):
    """Multiplications, additions, multiply-accumulates."""
    return c.multiplications, c.additions, c.macs


def test_dense():
    c = count(lambda w, b, x: x @ w + b, shape(8, 3), shape(3), shape(4, 8))
    # 4 * 3 outputs: 8 products and 7 sums each, then one sum for the bias.
    assert totals(c) == (96, 84 + 12, 96)
    # product: 24 + 32 in, 12 out; bias to [1, 3]: free; sum: 12 + 3 in, 12 out.
    assert c.bytes_read == {"float32": 4 * (24 + 32 + 15)}
    assert c.bytes_written == {"float32": 4 * (12 + 12)}
    assert not c.unknown and not c.notes and c.random_draws == 0


def test_batched_and_empty_products():
    c = count(
        lambda x, w: jnp.einsum("ebk,ekn->ebn", x, w), shape(5, 2, 7), shape(5, 7, 3)
    )
    assert totals(c) == (5 * 2 * 3 * 7, 5 * 2 * 3 * 6, 5 * 2 * 3 * 7)
    assert totals(count(jnp.dot, shape(2, 0), shape(0, 3))) == (0, 0, 0)


def test_ragged_product_counts_every_row_once():
    x, w = shape(10, 4), shape(3, 4, 6)
    sizes = jnp.array([5, 3, 2], jnp.int32)
    forward = count(lambda x, w: lax.ragged_dot(x, w, sizes), x, w)
    assert totals(forward) == (10 * 6 * 4, 10 * 6 * 3, 10 * 6 * 4)
    cotangent = shape(10, 6)
    _, pull = jax.vjp(
        lambda w: lax.ragged_dot(jnp.ones(x.shape), w, sizes), jnp.ones(w.shape)
    )
    assert count(pull, cotangent).macs == 10 * 6 * 4


@pytest.mark.parametrize("heads", [1, 2])
def test_attention(heads):
    t, d = 5, 8

    def attend(q, k, v):
        scores = jnp.einsum("qhd,khd->hqk", q, k) / d**0.5
        return jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores), v)

    c = count(attend, *[shape(t, heads, d)] * 3)
    entries = heads * t * t
    products = 2 * entries * d
    # Sums: two contractions, the shift by the maximum, the sum of the exponentials.
    sums = entries * (d - 1) + heads * t * d * (t - 1) + entries + heads * t * (t - 1)
    assert totals(c) == (products, sums, products)
    assert c.other["exp"] == entries
    assert c.other["div"] == 2 * entries
    assert c.other["reduce_max"] == heads * t * (t - 1)


CONVOLUTIONS = {
    "plain": {},
    "strided": {"window_strides": (2, 1)},
    "dilated": {"rhs_dilation": (2, 3)},
    "grouped": {"feature_group_count": 2},
    "depthwise": {"feature_group_count": 4},
    "batch groups": {"batch_group_count": 2},
    "transposed": {"lhs_dilation": (2, 3)},
    "transposed, strided, dilated": {
        "lhs_dilation": (3, 2),
        "window_strides": (2, 1),
        "rhs_dilation": (1, 2),
    },
}


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_convolution_of_ones_counts_its_own_products(options, layout):
    options = {"window_strides": (1, 1)} | options
    x = (4, 7, 9, 4) if layout == "NHWC" else (4, 4, 7, 9)
    w = (3, 2, 4 // options.get("feature_group_count", 1), 8)
    conv = functools.partial(
        lax.conv_general_dilated,
        padding=((0, 0), (0, 0)),
        dimension_numbers=(layout, "HWIO", layout),
        **options,
    )
    terms = np.asarray(conv(jnp.ones(x), jnp.ones(w)))  # products in each output
    products, outputs = int(terms.sum()), int((terms > 0).sum())
    assert totals(count(conv, shape(*x), shape(*w))) == (
        products,
        products - outputs,
        products,
    )


def test_padding_counts_as_papers_count_it():
    conv = functools.partial(
        lax.conv_general_dilated,
        window_strides=(2, 2),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    c = count(conv, shape(1, 8, 8, 3), shape(3, 3, 3, 16))
    assert c.macs == 4 * 4 * 16 * 27
    assert c.additions == 4 * 4 * 16 * 26


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((3, 1), (0, 4))])
@pytest.mark.parametrize("strides", [(2, 3), (1, 2)])
def test_inserted_zeros_are_no_factors_and_padding_is(kernel, padding, strides):
    # The same products with the zeros written out: ones wherever an entry stands, in
    # the input and, on the same grid, in the padding around it.
    x, w = (2, 4, 3, 5), (kernel, 2, 5, 6)

    def transposed(x, w):
        return lax.conv_transpose(x, w, strides=strides, padding=padding)

    (eqn,) = jax.make_jaxpr(transposed)(jnp.ones(x), jnp.ones(w)).eqns
    assert eqn.params["lhs_dilation"] == strides
    grids = []
    for n, spread, (low, high) in zip(
        x[1:3], strides, eqn.params["padding"], strict=True
    ):
        places = np.arange(-low, (n - 1) * spread + 1 + high)
        grids.append(places % spread == 0)
    spaced = np.outer(*grids)[None, :, :, None] * np.ones((2, 1, 1, 5), np.float32)
    terms = np.asarray(
        lax.conv_general_dilated(
            jnp.asarray(spaced), jnp.ones(w), (1, 1), "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    )  # fmt: skip
    assert terms.shape == eqn.outvars[0].aval.shape
    products, outputs = int(terms.sum()), int((terms > 0).sum())
    c = count(transposed, shape(*x), shape(*w))
    assert totals(c) == (products, products - outputs, products)
    (site,) = sites(lambda p, x: transposed(x, p["w"]), {"w": shape(*w)}, shape(*x))
    assert site.macs == products


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_site_counts_the_products_of_its_equation(options):
    options = {"window_strides": (1, 1), "padding": ((1, 1), (0, 1))} | options
    w = shape(3, 2, 4 // options.get("feature_group_count", 1), 8)

    def apply(params, x):
        return lax.conv_general_dilated(
            x, params["w"], dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
        )

    x = shape(4, 7, 9, 4)
    (site,) = sites(apply, {"w": w}, x)
    assert site.macs == count(apply, {"w": w}, x).macs


def test_transposed_convolution_equals_its_scatter_form():
    transposed = functools.partial(lax.conv_transpose, strides=(2, 2), padding="SAME")
    c = count(transposed, shape(1, 6, 6, 4), shape(2, 2, 4, 5))
    assert c.macs == 6 * 6 * 4 * 2 * 2 * 5  # every input meets every tap once


def test_scan_multiplies_its_body_by_its_length():
    def stack(w, x):
        return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

    c = count(stack, shape(6, 8, 8), shape(3, 8))
    assert totals(c) == (6 * 3 * 64, 6 * 3 * 8 * 7, 6 * 3 * 64)
    assert c.other == {"tanh": 6 * 24}
    # product: 64 + 24 in, 24 out; tanh: 24 in, 24 out.
    assert c.bytes_read == {"float32": 6 * 4 * (64 + 24 + 24)}
    assert c.bytes_written == {"float32": 6 * 4 * (24 + 24)}


def test_nested_scan_and_unrolled_loop_agree():
    def nested(w, x):
        def group(x, w):
            return lax.scan(lambda x, w: (x @ w, None), x, w)[0], None

        return lax.scan(group, x, w)[0]

    def unrolled(w, x):
        for i in range(2):
            for j in range(3):
                x = x @ w[i, j]
        return x

    w, x = shape(2, 3, 4, 4), shape(5, 4)
    assert totals(count(nested, w, x)) == totals(count(unrolled, w, x))


@pytest.mark.parametrize(
    ("start", "test", "step", "trips"),
    [
        (0, lambda i: i < 10, lambda i: i + 1, 10),
        (0, lambda i: i <= 10, lambda i: i + 3, 4),
        (0, lambda i: i < 10, lambda i: i + 1 + 2, 4),
        (9, lambda i: i > 0, lambda i: i - 2, 5),
        (9, lambda i: i >= 1, lambda i: i - 2, 5),
        (0, lambda i: 10 > i, lambda i: 1 + i, 10),
        (0, lambda i: i + 4 < 10, lambda i: i + 1, 6),
        (0, lambda i: i != 6, lambda i: i + 2, 3),
        (5, lambda i: i < 5, lambda i: i + 1, 0),
    ],
)
def test_while_with_a_static_bound(start, test, step, trips):
    def loop(w, x):
        return lax.while_loop(
            lambda c: test(c[0]),
            lambda c: (step(c[0]), c[1] @ w),
            (jnp.int32(start), x),
        )[1]

    ran, i = 0, start
    while test(i):
        ran, i = ran + 1, step(i)
    assert ran == trips  # the table above is right
    c = count(loop, shape(4, 4), shape(2, 4))
    assert c.macs == trips * 2 * 4 * 4
    assert not c.notes
    comparisons = sum(c.other.get(n, 0) for n in ("lt", "le", "gt", "ge", "ne"))
    assert comparisons == trips + 1  # the test runs once more than the body


def test_while_exactly_to_the_last_sum():
    def loop(x):
        return lax.while_loop(
            lambda c: c[0] < 7, lambda c: (c[0] + 1, 2.0 * c[1]), (jnp.int32(0), x)
        )

    c = count(loop, shape(5))
    assert totals(c) == (7 * 5, 7, 0)
    assert c.other == {"lt": 8}
    assert c.bytes_read == {"float32": 7 * 20, "int32": 7 * 4 + 8 * 4}
    assert c.bytes_written == {"float32": 7 * 20, "int32": 7 * 4, "bool": 8}


def test_loop_whose_bound_is_carried_or_comes_from_outside():
    limit = np.int32(4)

    def outside(x):
        n = lax.convert_element_type(limit, jnp.int32) + 2
        body = lambda c: (c[0] + 1, c[1], 2.0 * c[2])  # noqa: E731
        return lax.while_loop(lambda c: c[0] < c[1], body, (0, n, x))[2]

    assert count(outside, shape(3)).multiplications == 6 * 3
    assert count(jax.jit(outside), shape(3)).multiplications == 6 * 3


def test_loop_that_depends_on_data_is_flagged():
    def loop(x, n):
        return lax.fori_loop(0, n, lambda i, x: 2.0 * x, x)

    c = count(loop, shape(3), shape(dtype=jnp.int32))
    assert c.multiplications == 3
    assert c.notes == ("while: number of iterations depends on data; counted as one",)

    def either(x):
        test = lambda c: (c[0] < 5) & (jnp.sum(c[1]) < 1e3)  # noqa: E731
        return lax.while_loop(test, lambda c: (c[0] + 1, 2.0 * c[1]), (0, x))

    c = count(either, shape(3))
    assert c.multiplications == 5 * 3
    assert c.notes == ("while: at most 5 iterations; counted as 5",)


def test_endless_loop_is_not_given_a_number():
    c = count(lambda x: lax.while_loop(lambda i: i >= 0, lambda i: i + 1, 0), shape(1))
    assert c.notes == ("while: number of iterations depends on data; counted as one",)


def test_branches_count_as_the_largest():
    def branch(flag, w, x):
        return lax.cond(flag, lambda: x @ w, lambda: jnp.tanh(x) + 1.0)

    c = count(branch, shape(dtype=jnp.bool_), shape(4, 4), shape(2, 4))
    assert totals(c) == (32, 24, 32)
    assert c.other["tanh"] == 8
    assert c.notes == ("cond: the larger of 2 branches, total by total",)


def test_elementwise_reductions_and_powers():
    def f(x):
        return (
            jnp.sum(x),
            lax.cumsum(x, axis=1),
            jnp.prod(x, axis=0),
            lax.integer_pow(x, 5),
            x - x,
            jnp.square(x),
        )

    c = count(f, shape(3, 4))
    assert c.additions == 11 + 3 * 3 + 12
    assert c.multiplications == 4 * 2 + 3 * 12 + 12  # x^5 = ((x^2)^2) x


def test_complex_numbers_cost_real_operations():
    z = shape(3, dtype=jnp.complex64)
    assert totals(count(lambda a, b: a * b, z, z)) == (12, 6, 0)
    assert totals(count(lambda a, b: a + b, z, z)) == (0, 6, 0)
    assert totals(count(jnp.dot, z, z)) == (12, 2 * 3 + 2 * 2, 12)


def test_random_draws():
    key = jax.eval_shape(lambda: jax.random.key(0))
    assert count(lambda k: jax.random.normal(k, (3, 5)), key).random_draws == 15
    c = count(jax.vmap(lambda k: jax.random.bits(k, (4,))), shape_of_keys(6))
    assert c.random_draws == 24
    split = count(lambda k: jax.random.split(k, 7), key)
    assert split.random_draws == 0 and split.other == {"random_split": 7}


def shape_of_keys(n):
    """Abstract keys."""
    return jax.eval_shape(lambda: jax.random.split(jax.random.key(0), n))


def test_look_ups_read_what_they_look_up():
    table, ids = shape(1000, 8, dtype=jnp.bfloat16), shape(5, dtype=jnp.int32)
    c = count(lambda t, i: t.at[i].get(mode="promise_in_bounds"), table, ids)
    assert c.bytes_read["bfloat16"] == 5 * 8 * 2
    c = count(
        lambda t, i: lax.dynamic_slice(t, (i, 0), (2, 8)), table, shape(dtype=jnp.int32)
    )
    assert c.bytes_read["bfloat16"] == 2 * 8 * 2
    u = shape(5, 8, dtype=jnp.bfloat16)
    c = count(lambda t, u: t.at[jnp.arange(5)].add(u), table, u)
    assert c.additions >= 40
    assert c.bytes_written["bfloat16"] == 5 * 8 * 2
    assert c.bytes_read["bfloat16"] == 2 * 5 * 8 * 2


def test_narrow_integers_take_the_bytes_they_take():
    c = count(lambda x: x.astype(jnp.int8), shape(10, dtype=jnp.int4))
    assert c.bytes_read == {"int4": 5} and c.bytes_written == {"int8": 10}


def test_views_are_free():
    c = count(
        lambda x: lax.stop_gradient(lax.expand_dims(x.reshape(4, 3), (0,))), shape(3, 4)
    )
    assert c == Count()


def test_vmapped_calls_and_derivatives_inside():
    @jax.custom_jvp
    def own(x, w):
        return x @ w

    own.defjvp(lambda p, t: (own(*p), t[0]))
    f = jax.jit(jax.vmap(jax.checkpoint(own), in_axes=(0, None)))
    assert count(f, shape(6, 2, 4), shape(4, 3)).macs == 6 * 2 * 4 * 3


def test_pallas_kernel_counts_its_grid():
    case = zoo.build("plain_pallas_inside")  # squares [4, 16] in two blocks
    c = count(case.apply, case.params, *case.inputs)
    assert c.multiplications == 2 * 4 * 16 * 16 + 4 * 16
    # Two products of [4, 16] and [16, 16]; the kernel loads each element twice.
    assert c.bytes_read == {"float32": 4 * (2 * (64 + 256) + 2 * 64)}
    assert c.bytes_written == {"float32": 4 * (2 * 64 + 64)}


def test_unknown_primitives_are_listed_with_their_bytes():
    c = count(lambda x: jnp.fft.fft(x) * 2.0, shape(8, dtype=jnp.complex64))
    assert c.unknown == {"fft": 1}
    assert c.bytes_read["complex64"] == 2 * 64
    looped = count(
        lambda x: lax.fori_loop(0, 3, lambda i, x: jnp.fft.fft(x), x),
        shape(8, dtype=jnp.complex64),
    )
    assert looped.unknown == {"fft": 3}


def test_named_axes():
    case = zoo.build("plain_psum_open")
    with pytest.raises(ValueError, match="axis_sizes={'i': 4}"):
        count(case.apply, case.params, *case.inputs)
    c = count(case.apply, case.params, *case.inputs, axis_sizes={"i": 4})
    assert c.macs == 4 * 16 * 16
    assert sum(n for name, n in c.other.items() if "psum" in name) >= 64
    with pytest.raises(ValueError, match="axis 'i' needs a positive integer, got 0"):
        count(case.apply, case.params, *case.inputs, axis_sizes={"i": 0})


def test_shard_map_counts_all_devices():
    case = zoo.build("plain_shard_map_inside")
    assert count(case.apply, case.params, *case.inputs).macs == 2 * 4 * 16 * 16


def test_stored_weights_are_ordinary_arguments():
    w = rounded(jnp.ones((8, 3)))
    c = count(lambda p, x: x @ base.decoded(p)["w"], {"w": w}, shape(2, 8))
    assert c.macs == 2 * 8 * 3
    assert c.multiplications == 2 * 8 * 3 + 8 * 3  # the codes times their scales
    assert c.bytes_read["int8"] == 24


def test_works_inside_a_trace():
    seen = []

    @jax.jit
    def outer(x):
        seen.append(count(lambda y: y * x, x).multiplications)
        return x

    outer(jnp.ones(3))
    assert seen == [3]


@pytest.mark.parametrize("name", zoo.params())
def test_every_model_is_known(name):
    case = zoo.build(name)
    c = count(case.apply, case.params, *case.inputs, axis_sizes=case.axis_sizes)
    assert c.unknown == {}
    assert c.macs > 0
    assert c.multiplications >= c.macs
    if case.differentiable:
        gradient = count(jax.grad(case.loss, allow_int=True), case.params)
        assert gradient.unknown == {}
        assert gradient.macs > c.macs or name == "plain_closure_and_unused"


def test_counts_add_multiply_and_print():
    a = Count(multiplications=2, macs=1, other={"exp": 3}, notes=("n",))
    b = Count(multiplications=1, other={"exp": 1, "div": 2}, notes=("n",))
    assert a + b == Count(
        multiplications=3, macs=1, other={"exp": 4, "div": 2}, notes=("n",)
    )
    assert 3 * a == Count(multiplications=6, macs=3, other={"exp": 9}, notes=("n",))
    lines = str(a + b).splitlines()
    assert lines[0].split() == ["multiplications", "3"]
    assert lines[-2].split()[:2] == ["other", "6"] and lines[-1].split() == [
        "note",
        "n",
    ]


def test_equation_count_looks_inside():
    jaxpr = jax.make_jaxpr(lambda w, x: lax.scan(lambda x, w: (x @ w, None), x, w)[0])(
        jnp.ones((3, 4, 4)), jnp.ones((2, 4))
    )
    (eqn,) = jaxpr.eqns
    assert equation_count(eqn).macs == 3 * 2 * 4 * 4
