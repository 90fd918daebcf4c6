"""Presentations: every site's operands in the view, moved there and back exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from support.toy_stored import Toy, store

from jeff import base
from jeff.program import operation
from jeff.program.rewrite import rewrite
from jeff.program.sites import sites


def normal(*shape):
    return jax.random.normal(jax.random.key(len(shape)), shape)


def equation(fn, *args):
    names = ("dot_general", "ragged_dot", "ragged_dot_general",
             "conv_general_dilated", "gather", "dynamic_slice")  # fmt: skip
    eqns, queue = [], [jax.make_jaxpr(fn)(*args).jaxpr]
    while queue:
        for eqn in queue.pop().eqns:
            eqns.append(eqn)
            queue += [v.jaxpr for v in eqn.params.values() if hasattr(v, "jaxpr")]
    return next(e for e in eqns if e.primitive.name in names)


PRODUCTS = {
    "plain": ("bk,kn->bn", (3, 4), (4, 5)),
    "transposed": ("bk,nk->bn", (3, 4), (5, 4)),
    "heads out": ("btk,khe->bthe", (2, 3, 4), (4, 2, 3)),
    "heads in": ("bthe,hen->btn", (2, 3, 2, 3), (2, 3, 4)),
    "heads in, other order": ("bthe,ehn->btn", (2, 3, 2, 3), (3, 2, 4)),
    "experts": ("ebk,ekn->ebn", (2, 3, 4), (2, 4, 5)),
    "vector": ("k,kn->n", (4,), (4, 5)),
    "all batch": ("bhk,hk->bh", (3, 2, 4), (2, 4)),
}


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_x_times_k_by_n(name, left):
    text, x_shape, w_shape = PRODUCTS[name]
    x, w = normal(*x_shape), normal(*w_shape)
    a, b_out = text.split("->")[0].split(","), text.split("->")[1]

    def fn(x, w):
        if left:
            return jnp.einsum(f"{a[1]},{a[0]}->{b_out}", w, x)
        return jnp.einsum(text, x, w)

    eqn = equation(fn, x, w)
    shapes = [v.aval.shape for v in eqn.invars]
    side = shapes.index(w.shape) if shapes.count(w.shape) == 1 else (0 if left else 1)
    view = operation.present(eqn, side, "dot")
    operands = [None, None]
    operands[side], operands[1 - side] = w, x.reshape(shapes[1 - side])
    xv, wv = view.x_view(operands[1 - side]), view.w_view(w)
    assert xv.shape == view.x_shape and wv.shape == view.w_shape
    batch = len(view.batch)
    spread = wv.reshape(
        *wv.shape[:batch], *[1] * (xv.ndim - 1 - batch), *wv.shape[batch:]
    )
    y = view.run(operands, xv, wv)
    assert y.shape == view.y_shape
    np.testing.assert_allclose(
        y, (xv[..., None, :] @ spread)[..., 0, :], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(view.x_restore(xv), operands[1 - side])
    np.testing.assert_array_equal(view.w_restore(wv), w)
    np.testing.assert_array_equal(view.y_view(view.y_restore(y)), y)
    assert view.macs == y.size * view.k


def test_a_stored_weight_moves_into_the_view_or_is_decoded():
    w = normal(5, 4)
    eqn = equation(lambda x, w: jnp.einsum("bk,nk->bn", x, w), normal(3, 4), w)
    view = operation.present(eqn, 1, "dot")
    toy = view.w_view(store(w, (1,)))
    assert isinstance(toy, Toy) and toy.shape == (4, 5)
    heads = normal(2, 3, 4)
    eqn = equation(lambda x, w: jnp.einsum("bhe,hen->bn", x, w), normal(3, 2, 3), heads)
    view = operation.present(eqn, 1, "dot")
    assert isinstance(view.w_view(store(heads, (0, 1))), Toy)
    assert isinstance(view.w_view(store(heads, (1,))), jax.Array)  # scales per head


def test_a_ragged_product():
    x, w, sizes = normal(6, 4), normal(2, 4, 3), jnp.array([2, 4], jnp.int32)
    eqn = equation(lax.ragged_dot, x, w, sizes)
    view = operation.present(eqn, 1, "ragged_dot")
    assert view.w_shape == (2, 4, 3) and view.macs == 6 * 4 * 3
    y = view.run([x, w, sizes], x, w)
    np.testing.assert_allclose(y[:2], x[:2] @ w[0], rtol=1e-5)
    np.testing.assert_allclose(y[2:], x[2:] @ w[1], rtol=1e-5)


def test_a_ragged_contraction_is_not_presented_but_named():
    numbers = lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=(((0,), (0,)), ((), ())),
        lhs_ragged_dimensions=[0], rhs_group_dimensions=[],
    )  # fmt: skip

    def apply(p, x, sizes):
        return lax.ragged_dot_general(x, p["w"], sizes, numbers)

    args = ({"w": normal(6, 3)}, normal(6, 4), jnp.array([2, 4], jnp.int32))
    found = sites(apply, *args)
    assert len(found) == 0 and found.opaque and found.opaque[0].endswith("of w")
    run = rewrite(apply)
    stored = ({"w": store(args[0]["w"], (0,))}, *args[1:])
    decoded, lost = run.notes(*stored)
    assert "decoded at ragged_dot" in decoded and lost.endswith("of w")
    dense = ({"w": stored[0]["w"].decode()}, *args[1:])
    np.testing.assert_allclose(run(*stored), apply(*dense), rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution(groups):
    x, w = normal(1, 5, 5, 4), normal(3, 3, 4 // groups, 6)

    def fn(x, w):
        return lax.conv_general_dilated(
            x, w, (1, 1), "SAME", rhs_dilation=(2, 1), feature_group_count=groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    view = operation.present(equation(fn, x, w), 1, "conv")
    assert view.w_shape == (9 * 4 // groups, 6) and view.macs == 25 * 6 * 36 // groups
    np.testing.assert_array_equal(view.run([x, w], x, view.w_view(w)), fn(x, w))
    stored = view.w_view(store(w, (0, 1, 2)))
    assert isinstance(stored, Toy)
    np.testing.assert_array_equal(
        view.run([x, None], x, stored), fn(x, store(w, (0, 1, 2)).decode())
    )


def convolve(x, w, **options):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


def upsample(x, w, **options):
    return lax.conv_transpose(x, w, (2, 2), "SAME", **options)


IMAGE, IMAGES = (2, 5, 5, 4), (3, 2, 5, 5, 4)
GROUPED, PAIRED = {"feature_group_count": 2}, {"batch_group_count": 2}
# name: program, shape of the kernel, its contracted axes, shape of the image.
# vmap over kernels makes one convolution of them all, with feature or batch groups.
KERNELS = {
    "mapped image": (
        jax.vmap(convolve, (0, None)), (3, 3, 4, 6), (0, 1, 2), IMAGES),
    "mapped": (jax.vmap(convolve, (None, 0)), (3, 3, 3, 4, 6), (1, 2, 3), IMAGE),
    "mapped, last": (
        jax.vmap(convolve, (None, -1)), (3, 3, 4, 6, 3), (0, 1, 2), IMAGE),
    "both mapped": (jax.vmap(convolve), (3, 3, 3, 4, 6), (1, 2, 3), IMAGES),
    "mapped twice": (
        jax.vmap(jax.vmap(convolve, (None, 0)), (None, 1)), (2, 3, 3, 3, 4, 6),
        (2, 3, 4), IMAGE),
    "mapped, grouped": (
        jax.vmap(lambda x, w: convolve(x, w, **GROUPED), (None, 0)),
        (3, 3, 3, 2, 6), (1, 2, 3), IMAGE),
    "both mapped, grouped": (
        jax.vmap(lambda x, w: convolve(x, w, **GROUPED)), (3, 3, 3, 2, 6),
        (1, 2, 3), IMAGES),
    "both mapped, batch groups": (
        jax.vmap(lambda x, w: convolve(x, w, **PAIRED)), (3, 3, 3, 4, 6),
        (1, 2, 3), IMAGES),
    "transposed": (upsample, (3, 3, 4, 6), (0, 1, 2), IMAGE),
    "transposed, both mapped": (
        jax.vmap(upsample), (3, 3, 3, 4, 6), (1, 2, 3), IMAGES),
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_followed_through_vmap(name):
    fn, shape, contract, image = KERNELS[name]
    apply, x, w = (lambda p, x: fn(x, p["w"])), normal(*image), normal(*shape)
    (site,) = sites(apply, {"w": w}, x)
    assert site.kind == "conv" and not site.derived
    assert site.contract_axes == contract and site.stack_axes == ()
    stored = {"w": store(w, contract)}
    dense = {"w": stored["w"].decode()}
    run = rewrite(apply)
    np.testing.assert_array_equal(run(stored, x), apply(dense, x))
    assert run.notes(stored, x) == ()
    double = rewrite(apply, lambda s, op, x, w: op(x, 2 * w.decode()))
    np.testing.assert_array_equal(double(stored, x), 2 * apply(dense, x))


def test_a_kernel_that_is_reversed_is_derived_and_says_so():
    def apply(p, x):
        return upsample(x, p["w"], transpose_kernel=True)

    x, w = normal(*IMAGE), normal(3, 3, 6, 4)
    (site,) = sites(apply, {"w": w}, x)
    assert site.derived and site.leaf == "w"
    stored = {"w": store(w, (0, 1, 3))}
    run = rewrite(apply)
    np.testing.assert_array_equal(run(stored, x), apply(base.decoded(stored), x))
    assert run.notes(stored, x) == ("a stored weight of 3x3x6x4 is decoded at rev",)


@pytest.mark.parametrize("shared", [(0,), (1,), (2,), (0, 2)])
def test_a_reshape_that_also_transposes_is_followed(shared):
    # What vmap makes of a kernel: axes read in another order.
    def apply(p, x):
        w = lax.reshape(p["w"], (6, 20), dimensions=(2, 0, 1))
        return jnp.tanh(x @ w) @ jnp.ones((20, 2))

    w, x = normal(4, 5, 6), normal(3, 6)
    (site,) = sites(apply, {"w": w}, x)
    assert not site.derived and site.contract_axes == (2,)
    stored = store(w, shared)
    expected = apply({"w": stored.decode()}, x)
    np.testing.assert_array_equal(rewrite(apply)({"w": stored}, x), expected)


def test_an_input_read_in_another_order_is_another_input():
    def apply(p, x):
        same = lax.reshape(x, (4, 4)) @ p["a"]
        other = lax.reshape(x, (4, 4), dimensions=(1, 0)) @ p["b"]
        return x @ p["c"] + same + other

    w = normal(4, 4)
    found = sites(apply, {"a": w, "b": w, "c": w}, normal(4, 4))
    ids = {s.leaf: s.input_id for s in found}
    assert ids["a"] == ids["c"] != ids["b"]


TABLE = normal(7, 4)
LOOKUPS = {
    "rows": (lambda t, i: t[i], jnp.array([[1, 6], [0, -1]])),
    "out of bounds fills": (lambda t, i: jnp.take(t, i, 0), jnp.array([1, 9])),
    "clipped": (lambda t, i: jnp.take(t, i, 0, mode="clip"), jnp.array([1, 9])),
    "one row": (lambda t, i: lax.dynamic_index_in_dim(t, i, 0), jnp.array(5)),
    "some rows": (lambda t, i: lax.dynamic_slice_in_dim(t, i, 3, 0), jnp.array(6)),
    "columns": (lambda t, i: jnp.take(t, i, 1), jnp.array([3, 0])),
    "elements": (lambda t, i: t[i, i], jnp.array([3, 0])),
}


@pytest.mark.parametrize("name", LOOKUPS)
@pytest.mark.parametrize("shared", [0, 1])
def test_a_look_up_of_stored_rows_is_that_of_the_dense_table(name, shared):
    fn, ids = LOOKUPS[name]
    toy = store(TABLE, (shared,))
    run = jax.jit(rewrite(lambda p, i: fn(p["t"], i), lambda s, op, x, w: op(x, w)))
    np.testing.assert_array_equal(run({"t": toy}, ids), fn(toy.decode(), ids))
    np.testing.assert_array_equal(run({"t": TABLE}, ids), fn(TABLE, ids))


def test_a_rule_may_change_the_indices():
    fn, ids = LOOKUPS["rows"]
    shifted = rewrite(
        lambda p, i: fn(p["t"], i), lambda s, op, x, w: op((x + 1) % 3, w)
    )
    got = shifted({"t": TABLE}, jnp.array([0, 1, 2]))
    np.testing.assert_array_equal(got, TABLE[jnp.array([1, 2, 0])])
