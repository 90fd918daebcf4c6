"""The public product: dtypes, maps, derivatives, dispatch, bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import bits as layouts
from pallas_kernels.dequant_matmul import (
    Config,
    cases,
    dequant_matmul,
    dispatch,
    resolve,
)

BITS, GROUP, STRIDE = 3, 32, 2
product = functools.partial(dequant_matmul, bits=BITS, group_size=GROUP, stride=STRIDE)
EVERYWHERE = ["reference", "xla"]


def operands(rows=5, stack=0, zero="float32", columns=8, size=128):
    case = cases.Case(
        rows=rows,
        size=size,
        columns=columns,
        bits=BITS,
        group_size=GROUP,
        x_dtype="float32",
        scale_dtype="float32",
        zero=zero,
        stack=stack,
        stride=STRIDE,
        kernel=False,
    )
    return cases.make(case)


@jax.jit
def dense(packed, scale, zero):
    codes = layouts.unpack(packed, bits=BITS, axis=-2, stride=STRIDE)
    wide = functools.partial(jnp.repeat, repeats=GROUP, axis=-2)
    zero = 2.0 ** (BITS - 1) if zero is None else wide(zero.astype(jnp.float32))
    return (codes.astype(jnp.float32) - zero) * wide(scale)


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("implementation", EVERYWHERE)
def test_leading_axes_of_x_are_rows(implementation):
    arrays = operands()
    w = dense(*arrays[1:])
    for shape in ((128,), (1, 128), (2, 3, 128), (0, 128)):
        x = jax.random.normal(jax.random.key(1), shape)
        y = product(x, *arrays[1:], implementation=implementation)
        assert y.shape == (*shape[:-1], 8)
        close(y, x @ w)


def test_one_scale_for_all_columns():
    x, packed, scale, zero = operands()
    y = product(x, packed, scale[:, :1], zero[:, :1])
    close(y, x @ dense(packed, scale[:, :1], zero[:, :1]))


@pytest.mark.parametrize("implementation", EVERYWHERE)
def test_a_stack_multiplies_matrix_by_matrix(implementation):
    x, packed, scale, zero = operands(stack=3)
    y = product(x, packed, scale, zero, implementation=implementation)
    close(y, x @ dense(packed, scale, zero))
    more = jnp.stack([x, 2 * x], 1)
    y = product(more, packed, scale, zero, implementation=implementation)
    close(y, jnp.stack([y[:, 0], 2 * y[:, 0]], 1))
    assert y.shape == (3, 2, 5, 8)


def test_result_is_of_the_dtype_of_x_unless_asked():
    arrays = operands()
    x = arrays.x.astype(jnp.bfloat16)
    narrow, wide = (
        product(x, *arrays[1:], preferred_element_type=dtype)
        for dtype in (None, jnp.float32)
    )
    assert narrow.dtype == jnp.bfloat16 and wide.dtype == jnp.float32
    np.testing.assert_array_equal(narrow, wide.astype(jnp.bfloat16))


def test_maps():
    x, packed, scale, zero = operands(rows=4)
    many = jax.random.normal(jax.random.key(1), (3, 4, 128))
    w = dense(packed, scale, zero)
    mapped = jax.jit(jax.vmap(lambda x: product(x, packed, scale, zero)))
    close(mapped(many), many @ w)
    text = mapped.lower(many).as_text()
    assert "tensor<12x128xf32>" in text  # one product of twelve rows
    faulty = jnp.stack([packed, packed ^ jnp.uint32(1), packed ^ jnp.uint32(1 << 15)])
    want = jnp.stack([x @ dense(p, scale, zero) for p in faulty])
    over_words = jax.jit(jax.vmap(lambda p: product(x, p, scale, zero)))
    close(over_words(faulty), want)
    both = jax.vmap(jax.vmap(lambda x, p: product(x, p, scale, zero)), (None, 0))
    close(
        jax.jit(both)(many, jnp.stack([faulty, faulty])),
        both_by_hand(many, faulty, scale, zero),
    )
    stack = operands(rows=4, stack=2)
    rows = jnp.stack([stack.x, 3 * stack.x])
    got = jax.jit(jax.vmap(lambda x: product(x, *stack[1:])))(rows)
    close(got, rows @ dense(*stack[1:]))


def both_by_hand(many, faulty, scale, zero):
    one = jnp.stack(
        [x @ dense(p, scale, zero) for x, p in zip(many, faulty, strict=True)]
    )
    return jnp.stack([one, one])


@pytest.mark.parametrize("stack", [0, 2])
def test_derivatives(stack):
    x, packed, scale, zero = operands(rows=3, stack=stack)
    weight = jax.random.normal(jax.random.key(2), (*x.shape[:-1], 8))

    def loss(multiply, x, scale, zero):
        return jnp.sum(jnp.sin(multiply(x, packed, scale, zero)) * weight)

    def derivatives(multiply):
        of = functools.partial(loss, multiply)
        gradient = jax.jit(jax.grad(of, (0, 1, 2)))(x, scale, zero)
        forward = jax.jit(lambda *a: jax.jvp(of, a, a)[1])
        return gradient, forward(x, scale, zero)

    got = derivatives(product)
    want = derivatives(lambda x, *w: x @ dense(*w))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("implementation", EVERYWHERE)
def test_derivatives_of_a_stack_of_tiles(implementation):
    """Matrices of several tiles, which are decoded in a scan."""
    x, packed, scale, zero = operands(rows=3, stack=2, size=512)

    def loss(multiply, x):
        return jnp.sum(multiply(x, packed, scale, zero) ** 2)

    tiles = functools.partial(product, tile=64 * 8, implementation=implementation)
    got = jax.jit(jax.grad(functools.partial(loss, tiles)))(x)
    want = jax.jit(jax.grad(functools.partial(loss, lambda x, *w: x @ dense(*w))))(x)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=0.2)


def test_nothing_to_multiply():
    x, packed, scale, zero = operands()
    none = (packed[:, :0], scale[:, :0], zero[:, :0])
    assert product(x, *none).shape == (5, 0)
    gradient = jax.grad(lambda x: product(x, *none).sum())(x)
    np.testing.assert_array_equal(gradient, jnp.zeros_like(x))
    many = jax.tree.map(lambda a: jnp.stack([a, a]), none)
    assert jax.vmap(lambda *w: product(x, *w))(*many).shape == (2, 5, 0)


def test_eager_calls_compile_once():
    arrays = operands(columns=24)
    jax.block_until_ready(product(*arrays))
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "compile" in name else None
    )
    try:
        jax.block_until_ready(product(*arrays))
    finally:
        jax.monitoring.clear_event_listeners()
    assert not [name for name in compiled if "backend_compile" in name]


def test_derivatives_of_a_map():
    x, packed, scale, zero = operands(rows=2, zero="uint8")
    many = jnp.stack([x, 2 * x, 3 * x])
    gradient = jax.vmap(jax.grad(lambda x: product(x, packed, scale, zero).sum()))
    want = np.broadcast_to(np.asarray(dense(packed, scale, zero)).sum(1), many.shape)
    close(gradient(many), want)


def test_one_trace_for_two_calls():
    arrays, traces = operands(), []

    @jax.jit
    def run(*arrays):
        traces.append(1)
        return product(*arrays)

    run(*arrays)
    run(arrays.x + 1, *arrays[1:])
    assert len(traces) == 1


def test_dispatch():
    kernel = cases.CASES["w3 m1"]
    arrays = cases.make(kernel)
    which = functools.partial(
        resolve, *arrays, bits=kernel.bits, group_size=kernel.group_size
    )
    if jax.default_backend() != "gpu":
        assert which() == "xla"
    for name in ("reference", "xla", "mosaic_gpu", "interpret"):
        assert which(implementation=name) == name
    assert which(implementation=["xla", "reference"]) == "xla"
    other = functools.partial(
        resolve, *operands(), bits=BITS, group_size=GROUP, stride=STRIDE
    )
    assert other(implementation=("mosaic_gpu", "xla")) == "xla"
    with pytest.raises(NotImplementedError, match="mosaic_gpu: .* stride 16, got 2"):
        other(implementation="mosaic_gpu")
    with pytest.raises(ExceptionGroup) as error:
        other(implementation=("mosaic_gpu", "interpret"))
    assert len(error.value.exceptions) == 2
    with pytest.raises(ValueError, match="implementation must be of .* 'cuda'"):
        other(implementation="cuda")
    with pytest.raises(ValueError, match=r"implementation must be of .*\(\)"):
        other(implementation=())
    large = Config(stages=8, warpgroups=4)
    both = ("mosaic_gpu", "xla")
    assert which(implementation=both, config=large) == "xla"
    with pytest.raises(NotImplementedError, match="stages=8.* does not fit"):
        which(implementation="mosaic_gpu", config=large)
    with pytest.raises(NotImplementedError, match="the result must be of .* float64"):
        which(implementation="mosaic_gpu", preferred_element_type="float64")


def test_a_gpu_is_used_where_it_can(monkeypatch):
    kernel, other = cases.CASES["w3 m1"], cases.CASES["w3 stride 1"]

    class Device:
        compute_capability = "9.0"

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [Device()])

    def which(case, **changes):
        arrays = cases.make(case)
        return resolve(
            *arrays._replace(**changes),
            bits=case.bits,
            group_size=case.group_size,
            stride=case.stride,
        )

    assert which(kernel) == "mosaic_gpu"
    assert which(kernel, x=jnp.zeros((65, kernel.size), jnp.bfloat16)) == "xla"
    assert which(other) == "xla"
    # Rows that a map makes count.
    arrays, names = cases.make(kernel), []
    monkeypatch.setattr(
        dispatch,
        "resolve",
        lambda x, *rest, f=dispatch.resolve: names.append(f(x, *rest)) or "xla",
    )
    jax.vmap(
        lambda x: dequant_matmul(x, *arrays[1:], bits=3, group_size=kernel.group_size)
    )(jnp.stack([arrays.x] * 65))
    assert (names[0], names[-1]) == ("mosaic_gpu", "xla")  # one row, then 65
    Device.compute_capability = "8.0"
    assert which(kernel) == "xla"


def test_bad_input():
    x, packed, scale, zero = operands()

    def fails(kind, match, *arrays, **changes):
        settings = {"bits": BITS, "group_size": GROUP, "stride": STRIDE, **changes}
        with pytest.raises(kind, match=match):
            dequant_matmul(*arrays, **settings)

    fails(TypeError, "x must be floating, got int32", x.astype(int), packed, scale)
    fails(TypeError, "packed must be uint32, got int32", x, packed.astype(int), scale)
    fails(TypeError, "scale must be floating", x, packed, scale.astype(jnp.uint8))
    fails(TypeError, "zero must be uint8", x, packed, scale, zero.astype(int))
    fails(TypeError, "config must be a Config, got 3", x, packed, scale, config=3)
    fails(TypeError, "preferred_element_type must be floating, got int8",
          x, packed, scale, preferred_element_type=jnp.int8)  # fmt: skip
    fails(
        TypeError, "decode_dtype must be floating", x, packed, scale, decode_dtype=int
    )
    fails(ValueError, "bits must be one of", x, packed, scale, bits=5)
    fails(ValueError, "stride must be one of", x, packed, scale, stride=3)
    fails(ValueError, "tile must be positive, got 0", x, packed, scale, tile=0)
    fails(ValueError, r"packed must be a matrix .* \(12,\)", x, packed[:, 0], scale)
    fails(
        ValueError,
        r"packed of shape \(10, 8\) does not hold 3-bit codes for x of .* \(5, 128\)",
        x,
        packed[:10],
        scale,
    )
    fails(
        ValueError,
        "group_size 48 does not divide K = 128",
        x,
        packed,
        scale,
        group_size=48,
    )
    fails(
        ValueError, r"scale has shape \(2, 8\).* takes \(4, 8\)", x, packed, scale[:2]
    )
    fails(
        ValueError,
        r"zero has shape \(2, 8\), scale \(4, 8\)",
        x,
        packed,
        scale,
        zero[:2],
    )
    stack = operands(stack=3)
    fails(ValueError, r"x of shape \(2, 5, 128\) does not fit a stack",
          stack.x[:2], *stack[1:])  # fmt: skip
