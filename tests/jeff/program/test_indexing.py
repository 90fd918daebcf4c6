"""Entries taken out of stored stacks and tables, however JAX writes the indexing."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from support.compare import assert_close
from support.toy_stored import store

from jeff import base, merge, trainable
from jeff.program import indexing
from jeff.program.origin import leaf
from jeff.program.rewrite import rewrite
from jeff.program.sites import sites
from jeff.quantize import QuantConfig, quantize

E, K, N = 5, 8, 3  # experts, input and output features
ONE = jnp.int32(2)
TWO = jnp.array([1, 4])
FOUR = jnp.array([[0, 4], [2, 2]])


def normal(*shape):
    return jax.random.normal(jax.random.key(len(shape)), shape)


def of_expert(w, x, i):
    return x @ w[i]


def of_slice(w, x, i):
    return x @ lax.dynamic_slice_in_dim(w, i, 1)[0]


def of_window(w, x, i):
    return jnp.einsum("k,ekn->en", x, lax.dynamic_slice_in_dim(w, i, 2))


def of_two(w, x, i):  # layer and expert at once
    return x @ w[i % 2, i]


def of_taken(w, x, i):
    return x @ jnp.take(w, i, axis=0, mode="clip")


def mapped(fn, *axes):
    return jax.vmap(fn, in_axes=axes)


# name: program, shape of the stack, contracted axis, indices, x
STACKS = {
    "one expert": (of_expert, (E, K, N), 1, ONE, (K,)),
    "experts gathered": (
        lambda w, x, i: jnp.einsum("bk,bkn->bn", x, w[i]), (E, K, N), 1, TWO, (2, K)),
    "mapped index": (mapped(of_expert, None, None, 0), (E, K, N), 1, TWO, (4, K)),
    "mapped x": (mapped(of_expert, None, 0, None), (E, K, N), 1, ONE, (2, K)),
    "both mapped": (mapped(of_expert, None, 0, 0), (E, K, N), 1, TWO, (2, K)),
    "mapped slice": (mapped(of_slice, None, 0, 0), (E, K, N), 1, TWO, (2, K)),
    "mapped window": (mapped(of_window, None, 0, 0), (E, K, N), 1, TWO, (2, K)),
    "mapped take": (mapped(of_taken, None, 0, 0), (E, K, N), 1, TWO, (2, K)),
    "mapped twice": (
        mapped(mapped(of_expert, None, None, 0), None, 0, 0), (E, K, N), 1, FOUR,
        (2, K)),
    "mapped twice, crossed": (
        mapped(mapped(of_expert, None, 0, 0), None, 0, 1), (E, K, N), 1, FOUR,
        (2, 2, K)),
    "mapped stack too": (mapped(of_expert, 0, 0, 0), (2, E, K, N), 2, TWO, (2, K)),
    "mapped stack, last": (mapped(of_expert, 3, 0, 0), (E, K, N, 2), 1, TWO, (2, K)),
    "mapped stack, one index": (
        mapped(of_expert, 0, 0, None), (2, E, K, N), 2, ONE, (2, K)),
    "stack mapped twice": (
        mapped(mapped(of_expert, 0, 0, 0), 1, 0, 1), (2, 2, E, K, N), 3, FOUR,
        (2, 2, K)),
    "layer and expert": (of_two, (2, E, K, N), 2, ONE, (K,)),
    "layer and expert, mapped": (
        mapped(of_two, None, 0, 0), (2, E, K, N), 2, TWO, (2, K)),
    "layer first, expert last": (
        mapped(lambda w, x, i: x @ w[i % 2, :, :, i], None, 0, 0), (2, K, N, E), 1,
        TWO, (2, K)),
    "stack axis in the middle": (
        mapped(lambda w, x, i: x @ w[:, i], None, 0, 0), (K, E, N), 0, TWO, (2, K)),
}  # fmt: skip


def stored_stack(name):
    fn, shape, contract, index, x_shape = STACKS[name]
    config = QuantConfig(bits=4, group_size=4)
    q = quantize(normal(*shape), config, contract_axes=(contract,))
    return (lambda p, x, i: fn(p["w"], x, i)), q, normal(*x_shape), index


def floats_made(jaxpr):
    """Shapes of all floating values that a program computes, nested ones included."""
    shapes, queue = set(), [jaxpr]
    while queue:
        for eqn in queue.pop().eqns:
            shapes |= {
                tuple(v.aval.shape)
                for v in eqn.outvars
                if jnp.issubdtype(v.aval.dtype, jnp.floating)
            }
            for param in eqn.params.values():
                inner = getattr(param, "jaxpr", param)
                queue += [inner] if hasattr(inner, "eqns") else []
    return shapes


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_is_a_site_with_a_slice(name):
    apply, q, x, i = stored_stack(name)
    (site,) = sites(apply, {"w": q}, x, i)
    _, shape, contract, _, _ = STACKS[name]
    assert site.kind == "dot" and not site.derived and site.macs > 0
    assert site.contract_axes == (contract,)
    mapped_over = [a for a in range(len(shape)) if shape[a] == 2]
    assert set(site.stack_axes) | set(mapped_over) == (
        {a for a in range(len(shape)) if a != contract and shape[a] != N}
    )


@pytest.mark.parametrize("name", STACKS)
def test_only_the_entries_taken_are_decoded(name):
    apply, q, x, i = stored_stack(name)
    run = rewrite(apply)
    assert_close(jax.jit(run)({"w": q}, x, i), apply({"w": q.decode()}, x, i), 1e-6)
    assert run.notes({"w": q}, x, i) == ()

    def makes_the_stack(fn):  # however its axes are ordered
        made = floats_made(jax.make_jaxpr(fn)({"w": q}, x, i).jaxpr)
        return sorted(q.shape) in [sorted(shape) for shape in made]

    assert not makes_the_stack(run)
    assert makes_the_stack(lambda p, x, i: apply({"w": p["w"].decode()}, x, i))


@pytest.mark.parametrize("name", STACKS)
def test_gradients_reach_x_and_the_scales_of_the_entries(name):
    apply, q, x, i = stored_stack(name)
    run = rewrite(apply)
    floats, rest = trainable({"w": q})

    def loss(fn, floats, x):
        return jnp.sum(jnp.sin(fn(merge(floats, rest), x, i)))

    def dense(params, x, i):
        return apply({"w": params["w"].decode()}, x, i)

    got = jax.jit(jax.grad(functools.partial(loss, run), (0, 1)))(floats, x)
    expected = jax.grad(functools.partial(loss, dense), (0, 1))(floats, x)
    assert_close(got, expected, 1e-5)
    assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(got[0]))


@pytest.mark.parametrize("fill", [None, 0.0, 7.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_entries_out_of_bounds_are_filled_and_this_is_reported(fill, axis):
    shape = (E, K, N) if axis == 0 else (K, E, N)
    q = quantize(normal(*shape), QuantConfig(bits=8), contract_axes=(1 - axis,))
    x, i = normal(3, K), jnp.array([1, E, -E - 1])

    def apply(p, x, i):
        w = jnp.take(p["w"], i, axis=axis, fill_value=fill)
        return jnp.einsum("bk,bkn->bn" if axis == 0 else "bk,kbn->bn", x, w)

    run = rewrite(apply)
    got = run({"w": q}, x, i)
    assert_close(got, apply({"w": q.decode()}, x, i), 1e-6)
    assert bool(jnp.isnan(got[1]).all()) == (fill is None)
    assert q.shape not in floats_made(jax.make_jaxpr(run)({"w": q}, x, i).jaxpr)
    (note,) = run.notes({"w": q}, x, i)
    taken = "3x8x3" if axis == 0 else "8x3x3"
    assert note.startswith(f"entries of a stored weight, {taken}, are decoded")


def test_an_index_out_of_bounds_is_clipped_where_the_program_clips():
    apply, q, x, _ = stored_stack("mapped slice")
    i = jnp.array([-9, 99])
    got = rewrite(apply)({"w": q}, x, i)
    dense = q.decode()
    assert_close(got, jnp.stack([x[0] @ dense[0], x[1] @ dense[E - 1]]), 1e-6)


def test_narrow_indices_reach_every_entry():
    w = store(normal(300, K, N), (1,))

    def apply(p, x, i):
        return jax.vmap(lambda i: x @ lax.dynamic_index_in_dim(p["w"], i, 0, False))(i)

    i, x = jnp.array([3, 200], jnp.uint8), normal(K)
    assert_close(rewrite(apply)({"w": w}, x, i), apply({"w": w.decode()}, x, i))


def test_a_stack_along_a_packed_axis_is_decoded_and_reported():
    q = quantize(normal(K, E, N), QuantConfig(bits=4, group_size=4), contract_axes=(0,))
    apply = mapped(lambda w, x, i: w[i] @ x, None, 0, 0)
    run = rewrite(lambda p, x, i: apply(p["w"], x, i))
    x, i = normal(2, N), TWO
    assert_close(run({"w": q}, x, i), apply(q.decode(), x, i), 1e-6)
    assert run.notes({"w": q}, x, i) == (
        "a stored weight of 8x5x3 is decoded at gather",
    )


# Look-ups: the rows are the site.

ROWS = {
    "mapped": lambda t, i: jax.vmap(lambda i: t[i])(i),
    "mapped slice": lambda t, i: jax.vmap(lambda i: lax.dynamic_slice_in_dim(t, i, 1))(
        i
    ),
    "mapped windows": lambda t, i: jax.vmap(
        lambda i: lax.dynamic_slice_in_dim(t, i, 3)
    )(i),
    "mapped take": lambda t, i: jax.vmap(lambda i: jnp.take(t, i, 0))(i),
    "filled with zero": lambda t, i: jnp.take(t, i, 0, fill_value=0),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_look_up_decodes_only_its_rows(name):
    table = store(normal(7, 4), (1,))
    run, i = rewrite(lambda p, i: ROWS[name](p["t"], i)), jnp.array([6, 2, 9, 0])
    (site,) = sites(run.apply, {"t": table}, i)
    assert site.kind == "lookup" and site.shape == (7, 4)
    np.testing.assert_array_equal(run({"t": table}, i), ROWS[name](table.decode(), i))
    made = floats_made(jax.make_jaxpr(run)({"t": table}, i).jaxpr)
    assert (7, 4) not in made and run.notes({"t": table}, i) == ()


def test_a_rule_may_change_the_indices_of_stored_rows():
    table, i = store(normal(7, 4), (1,)), jnp.array([0, 3])
    back = rewrite(lambda p, i: p["t"][i], lambda s, op, x, w: op(x * 0 + 5, w))
    np.testing.assert_array_equal(
        back({"t": table}, i), table.decode()[jnp.array([5, 5])]
    )


@pytest.mark.parametrize("axis", [0, 1])
def test_the_index_of_a_slice_is_the_input_of_its_site(axis):
    def apply(p, i):
        return lax.dynamic_slice_in_dim(p["t"], i, 1, axis)

    table, i = normal(7, 4), jnp.int32(1)
    (site,) = sites(apply, {"t": table}, i)
    assert site.producer != "input" and site.x_shape == ()
    moved = rewrite(apply, lambda s, op, x, w: op(x + 1, w))
    for t in (table, store(table, (1 - axis,))):
        dense = t if t is table else t.decode()
        np.testing.assert_array_equal(moved({"t": t}, i), apply({"t": dense}, i + 1))


# Any gather at all.


def random_gather(rng):
    """``(operand, function of operand and indices, indices)``, or ``None``."""
    rank = rng.integers(1, 5)
    shape = tuple(int(n) for n in rng.integers(1, 5, rank))
    axes = [int(a) for a in rng.permutation(rank)]
    count = min(rng.integers(0, 3), rank - 1) if rng.random() < 0.4 else 0
    shared, free = sorted(axes[:count]), axes[count:]
    sizes = [1 if a in shared else int(rng.choice([1, n])) for a, n in enumerate(shape)]
    if rng.random() < 0.3:  # several entries
        sizes[free[0]] = int(rng.integers(1, shape[free[0]] + 1))
    collapsed = sorted(a for a in free if sizes[a] == 1 and rng.random() < 0.5)
    mapped = [a for a in free if sizes[a] != shape[a] or rng.random() < 0.3]
    if not mapped:
        return None
    batch = [int(n) for n in rng.integers(1, 4, rng.integers(0, 3) + count)]
    places = [int(i) for i in rng.permutation(len(batch))[:count]]
    for axis, place in zip(shared, places, strict=True):
        batch[place] = shape[axis]
    offsets = rank - len(collapsed) - count
    numbers = lax.GatherDimensionNumbers(
        offset_dims=tuple(
            sorted(int(i) for i in rng.permutation(offsets + len(batch))[:offsets])
        ),
        collapsed_slice_dims=tuple(collapsed),
        start_index_map=tuple(int(a) for a in rng.permutation(mapped)),
        operand_batching_dims=tuple(shared),
        start_indices_batching_dims=tuple(places),
    )
    mode = "clip" if rng.random() < 0.5 else "fill"
    indices = rng.integers(-2, 6, (*batch, len(mapped)), np.int32)
    operand = rng.standard_normal(shape).astype(np.float32)

    def gather(w, i):
        return lax.gather(w, i, numbers, tuple(sizes), mode=mode)

    return jnp.asarray(operand), gather, jnp.asarray(indices)


def test_any_gather_of_a_stored_weight_is_that_of_the_dense_one():
    rng, taken = np.random.default_rng(0), 0
    cases = (random_gather(rng) for _ in range(30))
    for w, gather, indices in filter(None, cases):
        eqn = jax.make_jaxpr(gather)(w, indices).eqns[-1]
        origin = indexing.follow(leaf("w", w.shape), eqn)
        sizes = [math.prod(atom.size for atom in axis) for axis in origin.axes]
        assert tuple(sizes) == eqn.outvars[0].aval.shape

        @jax.jit
        def both(stored, indices, eqn=eqn, gather=gather):
            got = indexing.take(eqn, stored, [indices])
            return base.decoded(got), gather(stored.decode(), indices)

        stored = store(w, ())  # a scale for every entry: any axis may be indexed
        got, expected = both(stored, indices)
        if got is not None:
            np.testing.assert_array_equal(got, expected, err_msg=str(eqn))
            taken += 1
    assert taken >= 10  # None only for windows along several axes, and for no index
