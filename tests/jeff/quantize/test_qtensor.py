"""`QTensor`: storage, and life inside JAX's transforms."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import base, tree
from jeff.quantize.config import QuantConfig
from jeff.quantize.fake_quant import fake_quant
from jeff.quantize.qtensor import QTensor, quantize

W3 = QuantConfig(bits=3, group_size=16)


def random_weight(shape, seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape).astype(np.float32)).astype(dtype)


CONFIGS = [
    QuantConfig(bits=2),
    W3,
    QuantConfig(bits=3, symmetric=True),
    QuantConfig(bits=4, group_size=32, zero_point="float", scale_dtype="bfloat16"),
    QuantConfig(bits=4, zero_point="int_incl_zero", scale_dtype="float16"),
    QuantConfig(bits=8, per_tensor=True, symmetric=True),
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize(
    ("shape", "axes"), [((64, 5), (-2,)), ((5, 96), (1,)), ((2, 32, 3), (0, 1))]
)
def test_decodes_to_the_fake_quantized_weight(config, shape, axes):
    w = random_weight(shape)
    q = quantize(w, config, contract_axes=axes)
    assert q.shape == shape and q.dtype == jnp.float32 and q.ndim == len(shape)
    want = jax.jit(lambda w: fake_quant(w, config, contract_axes=axes))(w)
    np.testing.assert_array_equal(q.decode(), want)
    assert q.codes().shape == shape and q.codes().dtype == jnp.uint8
    assert (q.zero is None) == config.symmetric


def test_three_bits_take_three_bits():
    w = random_weight((512, 64))
    q = quantize(w, QuantConfig(bits=3, group_size=128, scale_dtype="float16"))
    assert q.packed.nbytes * 8 == 3 * w.size
    assert q.nbytes == 3 * w.size // 8 + (2 + 1) * 4 * 64
    assert q.bits_per_weight == 3 + (16 + 8) / 128
    symmetric = quantize(w, QuantConfig(bits=2, group_size=128, symmetric=True))
    assert symmetric.bits_per_weight == 2 + 32 / 128


@pytest.mark.parametrize(
    ("size", "pad"), [(32, 0), (40, 24), (80, 16), (96, 0), (1, 31)]
)
def test_ragged_axes_are_padded_to_32(size, pad):
    w = random_weight((size, 4))
    q = quantize(w, QuantConfig(bits=3))
    assert q.shape == (size, 4) and q.pad == pad
    assert q.packed.shape == ((size + pad) * 3 // 32, 4)
    np.testing.assert_array_equal(q.decode(), fake_quant(w, QuantConfig(bits=3)))


def test_entries_of_a_stack_are_weights():
    """Static facts count axes from the end, so slicing behind our back is right."""
    w = random_weight((3, 2, 64, 4))
    q = quantize(w, W3)
    dense = np.asarray(q.decode())
    entry = jax.tree.map(lambda a: a[1], q)
    assert entry.shape == (2, 64, 4)
    np.testing.assert_array_equal(entry.decode(), dense[1])
    again = jax.tree.map(lambda *a: jnp.stack(a), *[entry] * 2)
    np.testing.assert_array_equal(again.decode(), dense[[1, 1]])
    x = random_weight((2, 5, 64), 1)

    def body(carry, layer):
        assert layer.shape == (2, 64, 4)
        return carry, x @ layer.decode()

    _, ys = jax.lax.scan(body, 0, q)
    np.testing.assert_allclose(ys, x @ dense, rtol=1e-5, atol=1e-5)
    mapped = jax.vmap(jax.vmap(lambda w, x: x @ w.decode()), (0, None))(q, x)
    np.testing.assert_allclose(mapped, x @ dense, rtol=1e-5, atol=1e-5)


def test_per_tensor_scales_are_per_entry_of_a_stack():
    w = random_weight((3, 64, 4)) * jnp.array([1.0, 10.0, 100.0])[:, None, None]
    config = QuantConfig(bits=8, per_tensor=True)
    q = quantize(w, config, stack_axes=(0,))
    assert q.scale.shape == (3, 1, 1)
    alone = quantize(w[0], config)
    np.testing.assert_array_equal(
        jax.tree.map(lambda a: a[0], q).decode(), alone.decode()
    )
    assert quantize(w, config).scale.shape == (1, 1, 1)


def test_quantize_inside_jit_vmap_and_eval_shape():
    w = random_weight((3, 64, 4))
    q = quantize(w, W3)
    for other in (
        jax.jit(lambda w: quantize(w, W3))(w),
        jax.vmap(lambda w: quantize(w, W3))(w),
    ):
        jax.tree.map(np.testing.assert_array_equal, other, q)
        assert jax.tree.structure(other) == jax.tree.structure(q)
    shapes = jax.eval_shape(lambda w: quantize(w, W3), w)
    assert (shapes.shape, shapes.dtype) == (w.shape, w.dtype)


def test_gradient_reaches_the_scales():
    q = quantize(random_weight((64, 4)), W3)
    g = random_weight((64, 4), 1)

    def loss(scale):
        return jnp.sum(dataclasses.replace(q, scale=scale).decode() * g)

    steps = q.codes().astype(jnp.float32) - jnp.repeat(
        q.zero.astype(jnp.float32), 16, axis=0
    )
    want = (steps * g).reshape(4, 16, 4).sum(1)
    np.testing.assert_allclose(jax.grad(loss)(q.scale), want, rtol=1e-5, atol=1e-5)


def test_codes_can_be_replaced():
    q = quantize(random_weight((40, 4)), W3_ragged := QuantConfig(bits=3, group_size=8))
    flipped = q.with_codes(q.codes() ^ jnp.uint8(4))  # the top bit of every code
    assert jax.tree.structure(flipped) == jax.tree.structure(q)
    step = jnp.repeat(q.scale, W3_ragged.group_size, axis=0)
    np.testing.assert_allclose(abs(flipped.decode() - q.decode()), 4 * step, rtol=1e-5)
    with pytest.raises(ValueError, match=r"\(4, 40\), expected \(40, 4\)"):
        q.with_codes(q.codes().T)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_weights_keep_their_dtype(dtype):
    w = random_weight((64, 4), dtype=dtype)
    q = quantize(w, W3)
    assert q.dtype == dtype
    wide = quantize(w.astype(jnp.float32), W3)
    np.testing.assert_array_equal(q.packed, wide.packed)
    np.testing.assert_array_equal(q.decode(), wide.decode().astype(dtype))


def test_is_one_leaf_of_a_params_tree():
    params = {"layer": {"kernel": quantize(random_weight((64, 4)), W3)}}
    leaves, _ = tree.flatten(params)
    assert list(leaves) == ["layer.kernel"]
    assert base.decoded(params)["layer"]["kernel"].shape == (64, 4)
    assert repr(leaves["layer.kernel"]) == (
        "QTensor(float32[64, 4], 3 bits, scales float32[4, 4])"
    )
    specs = jax.tree.map(lambda a: "spec", params)
    assert "QTensor(spec, spec, spec)" in repr(specs)


def test_from_codes_checks_shapes():
    codes = jnp.zeros((64, 4), jnp.uint8)
    with pytest.raises(ValueError, match=r"\(3, 4\) does not divide .* \(64, 4\)"):
        QTensor.from_codes(codes, jnp.ones((3, 4)), None, bits=4)
    with pytest.raises(ValueError, match=r"zero has shape \(1, 4\), scale \(2, 4\)"):
        QTensor.from_codes(codes, jnp.ones((2, 4)), jnp.ones((1, 4), jnp.uint8), bits=4)
    with pytest.raises(ValueError, match="bits must be one of"):
        QTensor.from_codes(codes, jnp.ones((2, 4)), None, bits=5)


def test_errors_name_sizes_and_values():
    w = random_weight((64, 4))
    with pytest.raises(ValueError, match=r"group_size 48 .* \(64,\) .* \(64, 4\)"):
        quantize(w, QuantConfig(bits=3, group_size=48))
    with pytest.raises(ValueError, match=r"contract_axes \(-2,\) is out of range"):
        quantize(w[:, 0], W3)
    with pytest.raises(TypeError, match="int32"):
        quantize(jnp.ones((64, 4), jnp.int32), W3)
    with pytest.raises(ValueError, match="stride must be one of .* got 3"):
        quantize(w, W3, stride=3)
    with pytest.raises(TypeError, match="stride must be an integer, got '1'"):
        quantize(w, W3, stride="1")
    with pytest.raises(TypeError, match="contract_axes must be a tuple .* got -2"):
        quantize(w, W3, contract_axes=-2)
    with pytest.raises(TypeError, match=r"stack_axes must be a tuple .* got \(0.5,\)"):
        quantize(w, W3, stack_axes=(0.5,))
    with pytest.raises(TypeError, match="w must be a dense array, got QTensor"):
        quantize(quantize(w, W3), W3)
    with pytest.raises(TypeError, match="w must be an array, got NoneType|got float"):
        quantize(None, W3)


def test_values_that_are_not_finite_are_refused_outside_of_a_trace():
    w = random_weight((64, 4))
    with pytest.raises(ValueError, match="2 values of w are NaN or infinite: 2 of 16"):
        quantize(w.at[3, 1].set(jnp.nan).at[60, 2].set(-jnp.inf), W3)
    with pytest.raises(ValueError, match="too large: 1 of 4 scales .* float16"):
        quantize(w.at[0, 0].set(1e9), QuantConfig(bits=3, scale_dtype="float16"))
    # Inside a trace there is no value to look at: the NaN stays one.
    bad = jax.jit(lambda w: quantize(w, W3).decode())(w.at[3, 1].set(jnp.nan))
    assert jnp.isnan(bad[:16, 1]).all() and not jnp.isnan(bad[16:]).any()


SHARDED = """
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from jeff.quantize import QuantConfig, matmul, quantize

    config = QuantConfig(bits=3, group_size=32)
    w = jax.random.normal(jax.random.key(0), (256, 8))
    x = jax.random.normal(jax.random.key(1), (5, 256))
    q = quantize(w, config, stride=2)
    dense, y = np.asarray(q.decode()), np.asarray(x @ q.decode())

    def close(got, want=y):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)

    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4,), ("model",), axis_types=(kind,))
        for spec in (P("model", None), P(None, "model")):
            sharding = NamedSharding(mesh, spec)
            placed = jax.device_put(q, sharding)
            assert all(a.sharding.spec == spec for a in jax.tree.leaves(placed))
            assert placed.packed.addressable_shards[0].data.size == q.packed.size // 4
            decoded = jax.jit(lambda q: q.decode())(placed)
            np.testing.assert_array_equal(decoded, dense)
            assert decoded.sharding.is_equivalent_to(sharding, 2), decoded.sharding
            jax.tree.map(
                np.testing.assert_array_equal,
                quantize(jax.device_put(w, sharding), config, stride=2), q,
            )
            close(jax.jit(lambda x, q: x @ q.decode())(x, placed))
            for rows, tile in ((1, None), (5, None), (5, 64 * 8)):
                product = jax.jit(lambda x, q: matmul(x, q, tile=tile))
                close(product(x[:rows], placed), y[:rows])
                if kind is AxisType.Explicit:
                    with jax.set_mesh(mesh):
                        close(product(x[:rows], placed), y[:rows])
            # One spec for the whole weight enters shard_map: every shard is a weight.
            local = jax.jit(jax.shard_map(
                lambda q: q.decode(), mesh=mesh, in_specs=spec, out_specs=spec,
            ))
            np.testing.assert_array_equal(local(placed), dense)

    mesh = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,))
    for rows, tile in ((1, None), (5, 64 * 2)):
        by_columns = jax.shard_map(
            lambda x, q: matmul(x, q, tile=tile), mesh=mesh,
            in_specs=(P(), P(None, "model")), out_specs=P(None, "model"),
        )
        by_rows = jax.shard_map(
            lambda x, q: jax.lax.psum(matmul(x, q, tile=tile), "model"), mesh=mesh,
            in_specs=(P(None, "model"), P("model", None)), out_specs=P(),
        )
        for fn in (by_columns, by_rows):
            close(jax.jit(fn)(x[:rows], q), y[:rows])
    print("equal on", len(jax.devices()), "devices")
"""


def test_sharded_on_four_devices():
    root = pathlib.Path(__file__).parents[3]
    flags = os.environ.get("XLA_FLAGS", "")
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=4",
        "PYTHONPATH": str(root),
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SHARDED)],
        env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "equal on 4 devices" in done.stdout
