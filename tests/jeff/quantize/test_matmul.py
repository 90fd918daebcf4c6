"""Products with packed weights: values, derivatives, maps, memory."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jeff
from jeff.quantize.config import QuantConfig
from jeff.quantize.matmul import fused, matmul
from jeff.quantize.qtensor import quantize


def random_array(shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape).astype(np.float32))


decode = jax.jit(lambda w: w.decode())


def exact(x, w):
    return np.asarray(x, np.float64) @ np.asarray(decode(w), np.float64)


def close(got, want, size):
    # Sums of `size` products of normal numbers, float32: a few roundings each.
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6 * size**0.5 * 10)


CASES = {
    "one tile": ((64, 8), QuantConfig(bits=3, group_size=32), {}),
    "stride 16, groups of a few slots": (
        (1024, 8),
        QuantConfig(bits=3, group_size=128),
        {},
    ),
    "groups of several tiles": (
        (256, 8),
        QuantConfig(bits=4, group_size=128),
        {"stride": 1},
    ),
    "groups smaller than the stride": (
        (512, 8),
        QuantConfig(bits=2, group_size=4),
        {"stride": 16},
    ),
    "groups not nested with tiles": (
        (192, 8),
        QuantConfig(bits=3, group_size=96),
        {"stride": 2},
    ),
    "per channel": ((256, 8), QuantConfig(bits=8, symmetric=True), {}),
    "per tensor": ((256, 8), QuantConfig(bits=4, per_tensor=True), {}),
    "float zero": (
        (128, 8),
        QuantConfig(bits=3, group_size=64, zero_point="float", scale_dtype="float16"),
        {},
    ),
    "ragged": ((200, 8), QuantConfig(bits=3, group_size=8), {}),
    "ragged, one group": ((200, 8), QuantConfig(bits=3), {}),
    "ragged, long groups": ((144, 8), QuantConfig(bits=3, group_size=72), {}),
    "shorter than a tile": ((20, 8), QuantConfig(bits=3), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_dense_product(name):
    shape, config, options = CASES[name]
    w = quantize(random_array(shape), config, **options)
    for rows, tile in ((1, None), (5, None), (5, 32 * 8), (5, 3 * 64 * 8)):
        x = random_array((rows, shape[0]), rows)
        y = jax.jit(lambda x, w, tile=tile: matmul(x, w, tile=tile))(x, w)
        assert y.dtype == jnp.float32
        close(y, exact(x, w), shape[0])


@pytest.mark.parametrize("columns", [100, 256, 300])
def test_wide_weights_are_cut_by_columns(columns):
    w = quantize(random_array((96, columns)), QuantConfig(bits=3, group_size=32))
    x = random_array((5, 96), 1)
    y = jax.jit(lambda x, w: matmul(x, w, tile=32 * 128))(x, w)
    close(y, exact(x, w), 96)
    shared = quantize(random_array((96, columns)), QuantConfig(bits=3, per_tensor=True))
    y = jax.jit(lambda x, w: matmul(x, w, tile=32 * 128))(x, shared)
    close(y, exact(x, shared), 96)


def test_leading_axes_of_x():
    w = quantize(random_array((64, 8)), QuantConfig(bits=3))
    for shape in ((64,), (1, 64), (2, 3, 64), (0, 64)):
        x = random_array(shape, 1)
        y = matmul(x, w)
        assert y.shape == (*shape[:-1], 8)
        close(y, exact(x, w), 64)


def test_transposed_weight():
    w = quantize(
        random_array((8, 64)), QuantConfig(bits=3, group_size=16), contract_axes=(1,)
    )
    x = random_array((5, 64), 1)
    close(matmul(x, w), exact(x, w.transpose((1, 0))), 64)
    close(matmul(x[0], w), exact(x[0], w.transpose((1, 0))), 64)


def test_dtypes_follow_the_dense_product():
    half = quantize(random_array((64, 8)).astype(jnp.bfloat16), QuantConfig(bits=3))
    x = random_array((5, 64), 1).astype(jnp.bfloat16)
    for rows in (x, x[:1]):
        assert matmul(rows, half).dtype == jnp.bfloat16
        wide = matmul(rows, half, preferred_element_type=jnp.float32)
        assert wide.dtype == jnp.float32
        close(wide, exact(rows, half), 64)
        np.testing.assert_array_equal(matmul(rows, half), wide.astype(jnp.bfloat16))


WEIGHT = QuantConfig(bits=3, group_size=32, zero_point="float")


@pytest.mark.parametrize(("rows", "tile"), [(1, None), (5, None), (5, 64 * 8)])
def test_derivatives_equal_those_of_the_dense_product(rows, tile):
    w = quantize(random_array((256, 8)), WEIGHT, stride=2)
    x, g = random_array((rows, 256), 1), random_array((rows, 8), 2)

    def loss(product, x, scale, zero):
        y = product(x, dataclasses.replace(w, scale=scale, zero=zero))
        return jnp.sum(jnp.sin(y) * g)

    def run(product):
        args = (x, w.scale, w.zero)
        return jax.jit(
            lambda *a: (
                jax.grad(loss, (1, 2, 3))(product, *a),
                jax.jvp(lambda *b: loss(product, *b), a, a)[1],
            )
        )(*args)

    got = run(lambda x, w: matmul(x, w, tile=tile))
    want = run(lambda x, w: x @ w.decode())
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-3)


def test_integer_zero_points_have_no_derivative():
    w = quantize(random_array((64, 8)), QuantConfig(bits=3, group_size=32))
    x = random_array((5, 64), 1)
    got = jax.jit(jax.grad(lambda x: jnp.sum(matmul(x, w) ** 2)))(x)
    want = jax.jit(jax.grad(lambda x: jnp.sum((x @ w.decode()) ** 2)))(x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)
    second = jax.jit(jax.hessian(lambda x: jnp.sum(matmul(x, w) ** 2)))(x[0])
    dense = np.asarray(decode(w))
    np.testing.assert_allclose(second, 2 * dense @ dense.T, rtol=1e-4, atol=1e-3)


def test_maps_over_x_become_rows():
    w = quantize(random_array((64, 8)), QuantConfig(bits=3, group_size=32))
    x = random_array((2, 7, 64), 1)
    close(jax.jit(jax.vmap(jax.vmap(lambda x: matmul(x, w))))(x), exact(x, w), 64)
    close(
        jax.jit(jax.vmap(lambda x: matmul(x, w), 1, 1))(x[..., None, :])[..., 0, :],
        exact(x, w),
        64,
    )
    text = jax.jit(jax.vmap(lambda x: matmul(x, w))).lower(x[0]).as_text()
    assert "tensor<7x64xf32>" in text  # one product of seven rows
    grads = jax.jit(jax.vmap(jax.grad(lambda x: matmul(x, w).sum())))(x[0])
    close(grads, np.broadcast_to(np.asarray(decode(w)).sum(1), (7, 64)), 8)


def test_maps_over_w_are_loops():
    w = quantize(random_array((3, 64, 8)), QuantConfig(bits=3, group_size=32))
    x = random_array((5, 64), 1)
    both = random_array((3, 5, 64), 2)
    close(jax.jit(jax.vmap(matmul, (None, 0)))(x, w), exact(x, w), 64)
    close(jax.jit(jax.vmap(matmul))(both, w), exact(both, w), 64)
    # Only the codes mapped: a sweep of faults.
    first = jax.tree.map(lambda a: a[0], w)
    faulty = jax.vmap(
        lambda packed: matmul(x, dataclasses.replace(first, packed=packed))
    )(w.packed)
    want = dataclasses.replace(
        w, **{f: jnp.stack([getattr(first, f)] * 3) for f in ("scale", "zero")}
    )
    close(faulty, exact(x, want), 64)


@pytest.mark.parametrize("rows", [1, 64])
def test_no_dense_weight_is_ever_held(rows):
    size = 2048
    w = jax.eval_shape(
        lambda w: quantize(w, QuantConfig(bits=3, group_size=128)),
        jax.ShapeDtypeStruct((size, size), jnp.float32),
    )
    x = jax.ShapeDtypeStruct((rows, size), jnp.float32)

    def held(fn):
        memory = jax.jit(fn).lower(x, w).compile().memory_analysis()
        return memory.temp_size_in_bytes

    dense = 4 * size * size
    tile = 2**18
    assert held(lambda x, w: x @ w.decode()) >= dense
    few = held(lambda x, w: matmul(x, w, tile=None if rows == 1 else tile))
    assert few < dense / 4
    assert held(matmul) < dense / 2
    # Nor by the derivative, which decodes every tile again.
    again = held(jax.grad(lambda x, w: matmul(x, w, tile=tile).sum(), allow_int=True))
    assert again < dense / 4


def test_implementations_agree():
    """The kernel and plain XLA, float32 weights: float32 sums of the same numbers."""
    config = QuantConfig(bits=3, group_size=128, scale_dtype="bfloat16")
    w, x = quantize(random_array((512, 64)), config), random_array((2, 512), 1)
    size = np.abs(x) @ np.abs(w.decode())
    for name in ("xla", "interpret"):
        y = matmul(x, w, implementation=name)
        assert (np.abs(y - exact(x, w)) / size).max() < 4 * 1024**0.5 * 2.0**-24


def test_the_kernel_does_not_round_weights():
    """With weights of 16 bits it is nearer to the codes than plain XLA can be."""
    config = QuantConfig(bits=3, group_size=128, scale_dtype="bfloat16")
    half = quantize(random_array((512, 64)).astype(jnp.bfloat16), config)
    x = random_array((2, 512), 1).astype(jnp.bfloat16)
    unrounded = dataclasses.replace(half, dense_dtype=jnp.dtype("float32"))
    want, size = exact(x, unrounded), np.abs(x) @ np.abs(unrounded.decode())
    errors = {
        name: (np.abs(matmul(x, half, implementation=name,
                             preferred_element_type=jnp.float32) - want) / size).max()
        for name in ("xla", "interpret")
    }  # fmt: skip
    assert errors["interpret"] < 4 * 1024**0.5 * 2.0**-24
    assert errors["interpret"] < errors["xla"] < 2.0**-9  # one rounding of a weight


@pytest.mark.parametrize("scanned", [False, True])
def test_a_quantized_model_runs_with_the_kernel(scanned):
    """The rule in a program under jit: interpreted, and lowered for CUDA."""
    config = QuantConfig(bits=4, group_size=128, scale_dtype="bfloat16")
    params = {"w": quantize(random_array((2, 512, 512)) / 20, config)}
    x = random_array((2, 512), 1)

    def apply(p, x):
        if scanned:
            return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, p["w"])[0]
        return jnp.tanh(jnp.tanh(x @ p["w"][0]) @ p["w"][1])

    def with_rule(name):
        rule = functools.partial(fused, implementation=name)
        return jax.jit(jeff.rewrite(apply, rule))

    want = with_rule("xla")(params, x)
    np.testing.assert_allclose(apply({"w": params["w"].decode()}, x), want, atol=1e-5)
    text = with_rule("mosaic_gpu").trace(params, x).lower(lowering_platforms=("cuda",))
    assert "mosaic_gpu_v2" in text.as_text()
    if not scanned:  # interpreted kernels may not be inside a scan
        got = with_rule("interpret")(params, x)
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_one_trace_for_two_calls():
    w = quantize(random_array((64, 8)), QuantConfig(bits=3))
    traces = []

    @jax.jit
    def run(x, w):
        traces.append(1)
        return matmul(x, w)

    run(jnp.ones((5, 64)), w)
    run(jnp.zeros((5, 64)), jax.tree.map(lambda a: a + 0, w))
    assert len(traces) == 1


def test_errors():
    w = quantize(random_array((64, 8)), QuantConfig(bits=3))
    stack = quantize(random_array((3, 64, 8)), QuantConfig(bits=3))
    with pytest.raises(ValueError, match=r"shape \(3, 64, 8\) contracted over"):
        matmul(jnp.ones((5, 64)), stack)
    with pytest.raises(ValueError, match=r"\(5, 8\) does not fit .* \(64, 8\)"):
        matmul(jnp.ones((5, 8)), w)
    with pytest.raises(ValueError, match="tile must be positive, got 0"):
        matmul(jnp.ones((5, 64)), w, tile=0)


def test_rule_applies_at_products_with_packed_matrices_only():
    w = quantize(random_array((64, 8)), QuantConfig(bits=3))
    x = random_array((5, 64), 1)

    def op(x, w):
        return "op"

    dot = types.SimpleNamespace(kind="dot", dtype=jnp.dtype("bfloat16"))
    y = fused(dot, op, x, w)
    assert y.dtype == jnp.bfloat16 and y.shape == (5, 8)
    assert fused(dot, op, x, w.decode()) == "op"
    assert fused(types.SimpleNamespace(kind="conv"), op, x, w) == "op"
    stack = quantize(random_array((3, 64, 8)), QuantConfig(bits=3))
    assert fused(dot, op, x, stack) == "op"
    outputs = quantize(random_array((8, 64)), QuantConfig(bits=3), contract_axes=(1,))
    assert fused(dot, op, x, outputs) == "op"  # a product over the output axis


def test_rule_in_a_program():
    """Scanned layers and an einsum with the weight on the left, packed throughout."""
    config = QuantConfig(bits=3, group_size=16)
    params = {
        "layers": random_array((3, 32, 32)) / 6,
        "out": random_array((4, 8, 32), 1) / 6,
    }
    packed = {
        "layers": quantize(params["layers"], config),
        "out": quantize(params["out"], config, contract_axes=(-1,)),
    }

    def apply(p, x):
        x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, p["layers"])
        return jnp.einsum("hdk,bk->bhd", p["out"], x)

    seen = []

    def spy(site, op, x, w):
        seen.append(type(w).__name__)
        return op(x, w)

    x = random_array((5, 32), 2)
    rewritten = jeff.rewrite(apply, spy, fused)
    y = jax.jit(rewritten)(packed, x)
    dense = jax.tree.map(
        lambda w: w.decode(), packed, is_leaf=lambda w: hasattr(w, "decode")
    )
    np.testing.assert_allclose(y, apply(dense, x), rtol=1e-5, atol=1e-5)
    assert set(seen) == {"QTensor"}
    assert not rewritten.notes(packed, x)
