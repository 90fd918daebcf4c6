"""Site-wise campaigns against a loop that injects one fault at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import fault_nets

from jeff import rewrite, sites
from jeff.sweep import (
    Batch,
    each_injection,
    each_outcome,
    plan_sites,
    run,
    site_table,
    site_wise,
)
from jeff.sweep.single_flips.one_flip import flip_code, flip_word

KEY = jax.random.key(5)


def batch_of(data, first, size):
    rows = np.minimum(np.arange(first, first + size), len(data.labels) - 1)
    return Batch(
        jax.tree.map(lambda a: a[rows], data),
        jnp.arange(first, first + size),
        jnp.arange(first, first + size) < len(data.labels),
    )


def all_injections(inject, key, data, size):
    """Over all examples in batches of one size, on the host."""
    total = len(data.labels)
    parts = [
        jax.tree.map(
            lambda a, n=total - first: np.asarray(a)[:n],
            inject(key, batch_of(data, first, size)),
        )
        for first in range(0, total, size)
    ]
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


def one_at_a_time(net, plan, got, flip):
    """Outcomes of the same faults by the whole network, image by image."""

    def hit_at(site_number, position, bit):
        def rule(site, op, x, w):
            y = op(x, w)
            flipped = flip(y, position, bit)
            number = plan.sites.index(site.name) if site.name in plan.sites else -1
            return jnp.where(number == site_number, flipped, y)

        return rule

    @jax.jit
    def faulty(x, *fault):
        return rewrite(net.apply, hit_at(*fault))(net.params, x)

    logits = [
        faulty(net.data.inputs[i : i + 1], *fault)
        for i, fault in enumerate(zip(got.site, got.position, got.bit, strict=True))
    ]
    return jax.jit(each_outcome)(
        np.concatenate(logits), net.data.golden, net.data.labels
    )


def flipped_by_numpy(y, position, bit):
    """An independent flip of a float32 array."""

    def flip(y, position, bit):
        words = np.array(y).reshape(-1).view(np.uint32)
        if position < words.size:
            words[position] ^= np.uint32(1) << np.uint32(bit)
        return words.view(np.float32).reshape(y.shape)

    shape = jax.ShapeDtypeStruct(y.shape, y.dtype)
    return jax.pure_callback(flip, shape, y, position, bit)


def code_flipped_by_numpy(y, position, bit):
    """An independent flip of a bit of an 8-bit two's complement code."""

    def flip(y, position, bit):
        y = np.array(y)
        flat = y.reshape(-1)
        if position < flat.size:
            full_scale = 2.0 ** np.ceil(np.log2(np.abs(flat).max()))
            step = full_scale / 128
            code = np.array(np.clip(np.round(flat[position] / step), -128, 127), "int8")
            flipped = code.view(np.uint8) ^ np.uint8(1 << (bit % 8))
            flat[position] = step * flipped.view(np.int8)
        return y

    shape = jax.ShapeDtypeStruct(y.shape, y.dtype)
    return jax.pure_callback(flip, shape, y, position, bit)


@pytest.fixture(scope="module")
def planned():
    net = fault_nets.mlp()
    plan = plan_sites(net.apply, net.params, net.data.inputs, period=4)
    inject = each_injection(net.apply, net.params, plan)
    return net, plan, jax.jit(inject)


@pytest.mark.parametrize(("name", "fixed_point"), [("residual", None), ("mlp", 8)])
def test_one_run_is_a_loop_over_single_faults(name, fixed_point):
    net = getattr(fault_nets, name)()
    plan = plan_sites(
        net.apply, net.params, net.data.inputs, period=8, fixed_point=fixed_point
    )
    inject = jax.jit(each_injection(net.apply, net.params, plan))
    got = all_injections(inject, KEY, net.data, 8)
    assert len(set(got.site)) == len(plan.sites)
    flip = flipped_by_numpy if fixed_point is None else code_flipped_by_numpy
    expected = one_at_a_time(net, plan, got, flip)
    drop, others = got.outcome.confidence_drop, got.outcome._asdict()
    np.testing.assert_allclose(drop, expected.confidence_drop, atol=1e-5)
    for name in ("images", "correct", "changed", "critical", "nonfinite"):
        np.testing.assert_array_equal(others[name], getattr(expected, name), name)


def test_sites_positions_and_bits(planned):
    net, plan, inject = planned
    got = all_injections(inject, KEY, net.data, 4)
    for first in (0, 4):
        counts = np.bincount(got.site[first : first + 4], minlength=2)
        assert tuple(counts) == plan.counts == (3, 1)
    sizes = np.array(plan.features)[got.site]
    assert (got.position < sizes).all() and (got.bit < 32).all()
    assert len(np.unique(got.bit)) > 3


def test_a_sweep_of_it_fills_the_table_whatever_the_batch(planned):
    # Batches of 4, a period, against one of 10, which is no multiple of it.
    net, plan, inject = planned
    result = run(
        site_wise(net.apply, net.params, plan, faults_per_image=2), KEY,
        rates=[1.0], trials=3, data=net.data, unit=3, batch=10, plan="map",
    )  # fmt: skip
    stats = result.stats
    assert stats.images.shape == (1, 1, 3, 2, 32)
    np.testing.assert_array_equal(stats.images.sum((3, 4)), [[[20, 20, 20]]])
    first = jax.random.fold_in(KEY, 0)
    copies = [
        all_injections(inject, jax.random.fold_in(first, c), net.data, 4)
        for c in range(2)
    ]
    for name in ("images", "changed", "critical"):
        table = np.zeros((2, 32), int)
        for got in copies:
            np.add.at(table, (got.site, got.bit), getattr(got.outcome, name))
        np.testing.assert_array_equal(getattr(stats, name)[0, 0, 0], table)
    rows = site_table(plan, stats)
    assert sum(r.injections for r in rows) == 60
    assert sum(r.changed for r in rows) == stats.changed.sum()
    layers = site_table(plan, stats, by="layer")
    assert [r.layer for r in layers] == list(plan.sites)
    bits = site_table(plan, stats, by="bit")
    assert sum(r.critical for r in bits) == stats.critical.sum()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "uint32"])
def test_a_flip_changes_one_bit_and_undoes_itself(dtype):
    x = jnp.arange(6).reshape(2, 3).astype(dtype)
    flip = jax.jit(flip_word)
    top = 8 * x.dtype.itemsize - 1
    for bit in (0, top):
        once = flip(x, 4, bit)
        assert (np.asarray(once != x) == [[0, 0, 0], [0, 1, 0]]).all()
        np.testing.assert_array_equal(flip(once, 4, bit), x)
    np.testing.assert_array_equal(flip(x, 4, -1), x)


def test_every_bit_of_a_code():
    x = jnp.array([1.0, 0.26, -0.5])  # step 1/4 at 3 bits: codes 3 (clipped), 1, -2
    flip = jax.jit(jax.vmap(lambda p, b: flip_code(x, p, b, bits=3)))
    got = flip(jnp.array([0, 1, 1, 1, 2]), jnp.array([2, 0, 1, 2, 2]))
    changed = got[jnp.arange(5), jnp.array([0, 1, 1, 1, 2])]
    np.testing.assert_array_equal(changed, [-0.25, 0.0, 0.75, -0.75, 0.5])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_has_no_code_stays(dtype):
    """To the bit: the payload of a NaN is what an earlier fault left."""
    words = {"float32": 0xFFA00001, "bfloat16": 0xFFA1}
    unsigned = {"float32": jnp.uint32, "bfloat16": jnp.uint16}[dtype]
    nan = jax.lax.bitcast_convert_type(unsigned(words[dtype]), jnp.dtype(dtype))
    x = jnp.array([1.0, 0.0, jnp.inf, -jnp.inf]).astype(dtype).at[1].set(nan)
    got = jax.jit(jax.vmap(lambda p: flip_code(x, p, 2, bits=3)))(jnp.arange(4))
    as_words = jax.lax.bitcast_convert_type(got, unsigned)
    want = jax.lax.bitcast_convert_type(x, unsigned)
    np.testing.assert_array_equal(as_words[1:], jnp.broadcast_to(want, (3, 4)))
    assert got[0, 0] == -0.25


def test_shares_of_images():
    net = fault_nets.residual()
    plan = lambda **o: plan_sites(  # noqa: E731
        net.apply, net.params, net.data.inputs, **o
    )
    by_size = plan(period=20)
    assert by_size.features == (144, 144, 144, 54, 54, 5) and by_size.period == 20
    assert by_size.counts == (5, 5, 5, 2, 2, 1)
    assert plan(period=7).counts == (2, 1, 1, 1, 1, 1)
    assert plan(share="equal", period=12).counts == (2,) * 6
    macs = {s.name: s.macs for s in sites(net.apply, net.params, net.data.inputs[:1])}
    given = plan(share={"head": 3, "stem": 1})
    assert given.sites == ("stem", "head") and given.counts == (1, 3)
    assert given.share_redone == pytest.approx(
        (sum(macs.values()) - macs["stem"]) / sum(macs.values()) / 4
    )


def test_plan_errors():
    net = fault_nets.residual()
    plan = lambda **o: plan_sites(  # noqa: E731
        net.apply, net.params, net.data.inputs, **o
    )
    with pytest.raises(ValueError, match="no site 'frist'; nearest: first"):
        plan(sites=["frist"])
    with pytest.raises(ValueError, match="period=3 is shorter than the 6 sites"):
        plan(period=3)
    with pytest.raises(ValueError, match=r"share must be one of \('features', 'equal'"):
        plan(share="even")
    with pytest.raises(ValueError, match=r"share\['head'\] must be at least 1, got 0"):
        plan(share={"head": 0})
    with pytest.raises(ValueError, match="bits must be .* 2 to 16"):
        plan(fixed_point=1)
    with pytest.raises(ValueError, match="sites is empty"):
        plan(sites=[])
    with pytest.raises(ValueError, match="faults_per_image must be at least 1, got 0"):
        site_wise(net.apply, net.params, plan(), faults_per_image=0)

    def scanned(p, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])[0]

    with pytest.raises(ValueError, match="site 'w' lies in a scan"):
        plan_sites(scanned, {"w": jnp.ones((2, 3, 3))}, np.ones((2, 3), np.float32))
