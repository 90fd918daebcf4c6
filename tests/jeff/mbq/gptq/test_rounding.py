"""The array algorithm against the original program, a slow reference, and itself."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import golden_rule
from support import gptq_reference as ref
from support.case import normal

from jeff import quantize
from jeff.mbq import activation_hessian, gptq_codes
from jeff.mbq.gptq.rounding import round_matrix, unsound
from jeff.quantize import QuantConfig, affine


def config(bits=3, group_size=16, **changes):
    changes = {"zero_point": "int_incl_zero", **changes}
    if changes.get("symmetric"):
        del changes["zero_point"]
    return QuantConfig(bits=bits, group_size=group_size, **changes)


@functools.cache
def problem(seed, k=64, n=16, tokens=80):
    """A weight and inputs whose channels go together, some louder than others."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((tokens, k)) + rng.standard_normal((tokens, 4)) @ (
        rng.standard_normal((4, k))
    )
    x[:, ::13] *= 4
    return np.asarray(normal(seed, k, n)), x, np.float32(ref.hessian(x))


def decoded(got, bits=3):
    """The weight of codes whose groups may be scattered."""
    index = np.asarray(got.group_index)
    zero = 2.0 ** (bits - 1) if got.zero is None else np.asarray(got.zero, float)[index]
    return (np.asarray(got.codes, float) - zero) * np.asarray(got.scale, float)[index]


@functools.cache
def original(path):
    """The file with its weight ``[K, N]`` and Hessian."""
    z = dict(np.load(path))
    meta = json.loads(z["meta_json"].tobytes())
    k, n, seed = meta["IC"], meta["OC"], meta["seed"]
    w = (golden_rule.gauss("w", seed, (n, k)) / np.sqrt(k)).astype(np.float32)
    shape = (meta["calib_samples"], meta["calib_tokens"], k)
    x = golden_rule.gauss("calib_x", seed, shape)
    x = x + 0.8 * np.roll(x, 1, -1)
    x[..., ::13] *= 4
    h = activation_hessian(x.astype(np.float32)).total * (2 / shape[0])
    np.testing.assert_allclose(jnp.diagonal(h), z["hessian_diag"], rtol=1e-5)
    return z, meta, w.astype(np.float16).astype(np.float32).T, h


@pytest.mark.parametrize("tag", ["w3", "w4", "w3_act", "w4_act", "w3_bigblock"])
def test_original_program(golden, tag):
    """Every code was equal when this was written; the gate is that of the fixture."""
    z, meta, w, h = original(golden("gptq_linear.npz"))
    got = gptq_codes(
        w,
        h,
        config(int(tag[1]), meta["group"]),
        damping=meta["percdamp"],
        act_order="act" in tag,
        block_size=meta["bigblock" if "big" in tag else "blocksize"],
    )
    assert (got.codes != z[f"{tag}/codes"]).mean() <= 0.005
    assert (got.zero != z[f"{tag}/zeros"]).mean() <= 0.005
    np.testing.assert_allclose(got.scale, z[f"{tag}/scale_fp32"].T, rtol=1e-4)
    np.testing.assert_array_equal(got.group_index, z[f"{tag}/g_idx"])
    close = np.isclose(decoded(got), z[f"{tag}/gptq_weight"].T, atol=1e-4)
    assert close.mean() >= 0.995


def test_the_block_of_the_fixture_matters(golden):
    """The case of blocks larger than groups would not pass with smaller ones."""
    z, meta, w, h = original(golden("gptq_linear.npz"))
    got = gptq_codes(w, h, config(3, meta["group"]))
    assert (got.codes != z["w3_bigblock/codes"]).mean() > 0.05
    assert (got.codes != z["w3/codes"]).mean() <= 0.005


REFERENCE = [
    (config(3, 16), {}),
    (config(4, 32), {"act_order": True}),
    (config(3, 16), {"act_order": True, "static_groups": True}),
    (config(3, 16), {"static_groups": True}),
    (config(8, 16), {}),
    (config(3, None), {}),
    (config(3, 16, symmetric=True), {}),
]


@pytest.mark.parametrize(("settings", "options"), REFERENCE)
@pytest.mark.parametrize("seed", [0, 1])
def test_against_float64_reference(settings, options, seed):
    """A weight on the edge between two codes may fall to either side, and its output's
    later channels follow: at most 0.5 % of the codes, the gate of the fixture; at 8
    bits the edges are 36 times as dense as at 3 and it is 2 %, of one step."""
    w, _, h = problem(seed)
    size = settings.group_size or len(w)
    order = None
    if options.get("act_order"):
        order = np.argsort(-np.diag(h), kind="stable")
    codes, q, cost = ref.rounded(
        w,
        ref.damped(h),
        settings.bits,
        size,
        order=order,
        static=options.get("static_groups", False),
        symmetric=settings.symmetric,
    )
    got = gptq_codes(w, h, settings, **options)
    gate = 0.02 if settings.bits == 8 else 0.005
    assert (got.codes != codes).mean() <= gate
    # What is left is the sum of the corrected errors: both ways to say it agree.
    np.testing.assert_allclose(cost, ref.error(w, q, ref.damped(h)), rtol=1e-9)
    here = ref.error(w, decoded(got, settings.bits), ref.damped(h))
    np.testing.assert_allclose(here, cost, rtol=0.02)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("bits", "act_order"), [(2, False), (3, True), (8, False)])
def test_never_worse_than_rounding_to_nearest(seed, bits, act_order):
    """On one grid, and with rounding errors uniform within a step s, rounding to
    nearest costs ``s^2 / 12 sum_i H_ii`` per output on average, GPTQ ``s^2 / 12 sum_i
    1 / U_ii^2``: what of H_ii the later channels do not explain. In units of the first,
    the difference of the two has mean 1 - ratio. The relative variance of a quadratic
    form of independent errors is at most ``2 sum H_ij^2 / (sum H_ii)^2`` (Gaussian;
    less if uniform), that of a sum of weighted squares of uniform errors 4/5 of
    ``sum a_i^2 / (sum a_i)^2``, both over the number of outputs: the mean is more than
    four standard deviations from 0 on every problem here."""
    outputs = 32
    w, _, h = problem(seed + 10, 96, outputs)
    full = ref.damped(h)
    a = 1 / np.diag(np.linalg.cholesky(np.linalg.inv(full)).T) ** 2
    ratio = a.sum() / np.trace(full)
    variance = 2 * (full**2).sum() / np.trace(full) ** 2
    variance += ratio**2 * 0.8 * (a**2).sum() / a.sum() ** 2
    assert 1 - ratio > 4 * np.sqrt(variance / outputs)
    settings = config(bits, None)
    nearest = quantize.quantize(w, settings).decode()
    got = decoded(gptq_codes(w, h, settings, act_order=act_order), bits)
    assert ref.error(w, got, full) <= ref.error(w, nearest, full)


def test_white_inputs_are_rounded_to_nearest():
    w, _, _ = problem(0)
    settings = config(3, 16)
    want = quantize.quantize(w, settings)
    for options in ({}, {"act_order": True, "static_groups": True}):
        got = gptq_codes(w, 3.0 * jnp.eye(64), settings, **options)
        np.testing.assert_array_equal(got.codes, want.codes())
        np.testing.assert_array_equal(got.scale, want.scale)
        np.testing.assert_array_equal(got.zero, want.zero)


def test_block_size_changes_rounding_only():
    """With static scales; 24 does not divide the 64 channels."""
    w, _, h = problem(2)
    wanted = gptq_codes(w, h, config(), static_groups=True).codes  # all at once
    for block in (1, 24):
        got = gptq_codes(w, h, config(), static_groups=True, block_size=block).codes
        assert (got != wanted).mean() <= 0.005, block
    # And where scales are found on the way, for blocks within a group.
    wanted = gptq_codes(w, h, config(3, 32)).codes
    got = gptq_codes(w, h, config(3, 32), block_size=8).codes
    assert (got != wanted).mean() <= 0.005


def test_blocks_larger_than_a_group_may_be_ragged():
    """96 channels in blocks of 64: the second is filled up with zero weights."""
    w, _, h = problem(3, 96)
    got = gptq_codes(w, h, config(3, 32), block_size=64)
    assert got.codes.shape == (96, 16) and got.scale.shape == (3, 16)
    whole = gptq_codes(w[:64], h[:64, :64], config(3, 32), block_size=64)
    np.testing.assert_array_equal(got.scale[:2], whole.scale)


def test_order_of_the_hessian():
    """Sorting channels beforehand is the same as asking for the order."""
    w, _, h = problem(4)
    order = np.argsort(-np.diag(h), kind="stable")
    assert (order != np.arange(64)).any()
    got = gptq_codes(w, h, config(), act_order=True)
    sorted_by_hand = gptq_codes(w[order], h[np.ix_(order, order)], config())
    np.testing.assert_array_equal(got.codes[order], sorted_by_hand.codes)
    np.testing.assert_array_equal(got.scale, sorted_by_hand.scale)
    position = np.argsort(order)
    np.testing.assert_array_equal(got.group_index, position // 16)


@pytest.mark.parametrize("static", [False, True])
def test_permuted_channels_give_permuted_codes(static):
    """With the order by diagonal the order given does not matter, groups apart."""
    w, _, h = problem(5)
    settings = config(3, None if static else 16)
    shuffle = np.random.default_rng(0).permutation(64)
    one = gptq_codes(w, h, settings, act_order=True)
    other = gptq_codes(
        w[shuffle], h[np.ix_(shuffle, shuffle)], settings, act_order=True
    )
    assert (other.codes != one.codes[shuffle]).mean() <= 0.005
    np.testing.assert_array_equal(other.group_index, one.group_index[shuffle])


def test_static_groups_are_runs_of_neighbours():
    w, _, h = problem(6)
    got = gptq_codes(w, h, config(), act_order=True, static_groups=True)
    np.testing.assert_array_equal(got.group_index, np.arange(64) // 16)
    scale, zero = affine.affine_parameters(jnp.asarray(w), config())
    np.testing.assert_array_equal(got.scale, scale)
    np.testing.assert_array_equal(got.zero, zero)


def test_unit_of_the_hessian_does_not_matter():
    w, _, h = problem(7)
    one, other = gptq_codes(w, h, config()), gptq_codes(w, 2.0**-20 * h, config())
    np.testing.assert_array_equal(one.codes, other.codes)


@pytest.mark.parametrize("act_order", [False, True])
def test_dead_inputs(act_order):
    """They are rounded to nearest, and the others as if they were not there."""
    w, x, _ = problem(8)
    x = x.copy()
    dead = [0, 17, 63]
    live = np.setdiff1d(np.arange(64), dead)
    x[:, dead] = 0.0
    h = np.float32(ref.hessian(x))
    settings = config(3, None)
    got = gptq_codes(w, h, settings, act_order=act_order)
    nearest = quantize.quantize(w, settings).codes()
    np.testing.assert_array_equal(got.codes[jnp.array(dead)], nearest[jnp.array(dead)])
    kept = w.copy()
    kept[dead] = 0.0  # other weights under the same scale
    scale, zero = affine.affine_parameters(jnp.asarray(w), settings)
    if (w[live].max(0) == w.max(0)).all() and (w[live].min(0) == w.min(0)).all():
        alone = gptq_codes(
            w[live], h[np.ix_(live, live)], settings, act_order=act_order
        )
        np.testing.assert_array_equal(got.codes[live], alone.codes)
    np.testing.assert_array_equal(got.scale, scale)
    nothing = gptq_codes(w, jnp.zeros((64, 64)), settings, act_order=act_order)
    np.testing.assert_array_equal(nothing.codes, nearest)


@pytest.mark.parametrize(
    "settings",
    [
        QuantConfig(bits=4, per_tensor=True),
        QuantConfig(bits=3, group_size=16, zero_point="float"),
        QuantConfig(bits=3, group_size=16, scale_dtype="float16"),
        QuantConfig(bits=3, group_size=16),
    ],
)
def test_other_quantizers(settings):
    """What is stored is what was compensated: the error beats that of rounding."""
    w, _, h = problem(9)
    got = gptq_codes(w, h, settings)
    q = affine.decode(got.codes, jnp.asarray(got.scale), got.zero, bits=settings.bits)
    nearest = quantize.quantize(w, settings)
    assert got.scale.shape == nearest.scale.shape
    assert got.scale.dtype == nearest.scale.dtype
    assert ref.error(w, q, h) < ref.error(w, nearest.decode(), h)


def test_jit_vmap_and_one_trace():
    w, h = (np.stack([problem(s)[i] for s in (0, 1)]) for i in (0, 2))
    run = functools.partial(gptq_codes, config=config(), act_order=True)
    one = [run(a, b) for a, b in zip(w, h, strict=True)]
    mapped = jax.jit(jax.vmap(run))(w, h)
    for i in (0, 1):
        assert (mapped.codes[i] != one[i].codes).mean() <= 0.005
        np.testing.assert_array_equal(mapped.group_index[i], one[i].group_index)
    before = round_matrix._cache_size()
    run(w[0] + 1, h[1], damping=0.05)
    assert round_matrix._cache_size() == before


def test_bfloat16_weights():
    w, _, h = problem(11)
    narrow = jnp.asarray(w).astype(jnp.bfloat16)
    got = gptq_codes(narrow, h, config())
    want = gptq_codes(narrow.astype(jnp.float32), h, config())
    np.testing.assert_array_equal(got.codes, want.codes)


def bad(**changes):
    w, _, h = problem(0)
    return {"w": w, "hessian": h, "config": config(), **changes}


NAN = np.where(np.arange(64 * 64).reshape(64, 64) == 7, np.nan, 1.0).astype(np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (bad(w=np.ones(64, np.float32)), ValueError, "w must have shape [K, N]"),
        (bad(w=np.ones((64, 2), int)), TypeError, "w must be floating, got int"),
        (
            bad(hessian=np.eye(32, dtype=np.float32)),
            ValueError,
            "hessian must have shape (64, 64) for w of shape (64, 16), got (32, 32)",
        ),
        (bad(hessian=NAN), ValueError, "1 values of hessian are NaN or infinite"),
        (
            bad(w=np.full((64, 16), np.inf, np.float32)),
            ValueError,
            "1024 values of w are NaN or infinite",
        ),
        (
            bad(config=config(3, 48)),
            ValueError,
            "group_size 48 does not divide the contraction axes",
        ),
        (bad(config=3), TypeError, "config must be a QuantConfig, got 3"),
        (bad(damping=-0.5), ValueError, "damping must be finite and not negative"),
        (bad(damping="1"), TypeError, "damping must be a number, got '1'"),
        (bad(act_order=1), TypeError, "act_order must be True or False, got 1"),
        (bad(static_groups=0), TypeError, "static_groups must be True or False"),
        (
            bad(block_size=24),
            ValueError,
            "block_size 24 and group_size 16: one must divide the other",
        ),
        (bad(block_size=0), ValueError, "block_size must be positive, got 0"),
        (bad(block_size=1.5), TypeError, "block_size must be an integer, got 1.5"),
        (
            bad(hessian=-np.ones((64, 64), np.float32)),
            ValueError,
            "hessian is not positive definite with damping=0.01; raise damping",
        ),
        (
            bad(
                w=np.full((64, 16), 1e7, np.float32),
                config=QuantConfig(bits=3, group_size=16, scale_dtype="float16"),
            ),
            ValueError,
            "a scale overflows scale_dtype='float16'",
        ),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)) as info:
        gptq_codes(**arguments)
    assert "\n" not in str(info.value)


def test_soundness_in_a_trace():
    w, _, h = problem(0)
    options = {"config": config(), "act_order": False, "static_groups": False}
    run = functools.partial(round_matrix, **options)
    damping = jnp.float32(0.01)
    assert run(w, h, damping)[1] and not run(w, NAN, damping)[1]
    codes = jax.eval_shape(lambda h: gptq_codes(w, h, config()).codes, NAN)
    assert codes.shape == w.shape  # a trace cannot raise
    assert unsound(w, h, jnp.ones(1), config(), 0.0).startswith("hessian is not pos")
