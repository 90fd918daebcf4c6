"""Views: decoding a view equals the view of the decoded weight, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.quantize.config import QuantConfig
from jeff.quantize.qtensor import quantize


def random_weight(shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape).astype(np.float32))


def equal(stored, dense):
    assert stored is not None
    assert stored.shape == dense.shape
    np.testing.assert_array_equal(stored.decode(), dense)


WEIGHTS = {
    "dense layer": (
        (64, 6),
        {"contract_axes": (0,)},
        QuantConfig(bits=3, group_size=16),
    ),
    "ragged": ((40, 6), {"contract_axes": (0,)}, QuantConfig(bits=4, group_size=8)),
    "stack of layers": ((3, 64, 4), {}, QuantConfig(bits=2, symmetric=True)),
    "layers in the middle": (
        (64, 3, 4),
        {"contract_axes": (0,), "stack_axes": (1,)},
        QuantConfig(bits=8, per_tensor=True),
    ),
    "attention output": (
        (4, 32, 6),
        {"contract_axes": (0, 1)},
        QuantConfig(bits=3, group_size=64, zero_point="float"),
    ),
    "attention input": (
        (64, 4, 3),
        {"contract_axes": (0,)},
        QuantConfig(bits=3, group_size=32, scale_dtype="float16"),
    ),
    "embedding": (
        (12, 64),
        {"contract_axes": (-1,)},
        QuantConfig(bits=4, group_size=32),
    ),
    "convolution": ((3, 2, 32, 4), {"contract_axes": (0, 1, 2)}, QuantConfig(bits=8)),
    "convolution, grouped": (
        (3, 2, 32, 4),
        {"contract_axes": (0, 1, 2)},
        QuantConfig(bits=8, group_size=16),
    ),
    "one per tensor": ((64, 4), {}, QuantConfig(bits=4, per_tensor=True)),
    "one row": ((1, 64, 4), {"contract_axes": (0, 1)}, QuantConfig(bits=3)),
}


def factors(n, rng):
    """A random way to write `n` as a product, ones included."""
    out = []
    while n > 1:
        divisors = [d for d in range(2, n + 1) if n % d == 0]
        out.append(int(rng.choice(divisors)))
        n //= out[-1]
    if rng.random() < 0.3:
        out.insert(int(rng.integers(len(out) + 1)), 1)
    return out


def random_view(rng, shape):
    """A view as a function of a dense or stored weight."""
    kind = rng.choice(["transpose", "split", "merge", "flat", "slice", "take", "cast"])
    axis = int(rng.integers(len(shape)))
    if kind == "transpose":
        order = [int(i) for i in rng.permutation(len(shape))]
        return lambda w: w.transpose(order)
    if kind in ("split", "merge", "flat"):
        if kind == "split":
            new = [*shape[:axis], *factors(shape[axis], rng), *shape[axis + 1 :]]
        elif kind == "merge":
            last = min(axis + int(rng.integers(2, 4)), len(shape))
            new = [*shape[:axis], int(np.prod(shape[axis:last])), *shape[last:]]
        else:
            new = factors(int(np.prod(shape)), rng)
        new = new or [1]
        return lambda w: w.reshape(new)
    if kind == "slice":
        unit = int(rng.choice([1, 16, 32]))
        starts, limits = [0] * len(shape), list(shape)
        if shape[axis] > unit:
            starts[axis] = unit * int(rng.integers(shape[axis] // unit))
            room = (shape[axis] - starts[axis]) // unit
            if room:
                limits[axis] = starts[axis] + unit * int(rng.integers(1, room + 1))
        return lambda w: (
            jax.lax.slice(w, starts, limits)
            if isinstance(w, jax.Array)
            else w.slice(starts, limits)
        )
    if kind == "take":
        some = jnp.asarray(rng.integers(shape[axis], size=rng.choice([1, 2, 3])))
        some = some[0] if some.size == 1 else some
        return lambda w: (
            jnp.take(w, some, axis) if isinstance(w, jax.Array) else w.take(some, axis)
        )
    return lambda w: w.astype(jnp.float32)


@pytest.mark.parametrize("name", WEIGHTS)
def test_random_sequences_of_views(name):
    shape, axes, config = WEIGHTS[name]
    rng = np.random.default_rng(len(name))
    expressed = 0

    def sequence(w):
        nonlocal expressed
        dense = w.decode()
        for _ in range(6):
            view = random_view(rng, dense.shape)
            viewed = view(w)
            if viewed is not None:
                w, dense = viewed, view(dense)
                expressed += 1
                assert w.shape == dense.shape
                assert w.dtype == dense.dtype
            if dense.ndim == 0:
                break
        return w.decode(), w.with_codes(w.codes()).decode(), dense

    stored = quantize(random_weight(shape), config, **axes)
    for _ in range(4):
        decoded, again, dense = jax.jit(lambda w: sequence(w))(stored)
        np.testing.assert_array_equal(decoded, dense)
        np.testing.assert_array_equal(again, dense)
    assert expressed >= 8  # the sequences do test something


@pytest.mark.parametrize("name", WEIGHTS)
def test_can_index_means_what_it_says(name):
    shape, axes, config = WEIGHTS[name]
    stored = quantize(random_weight(shape), config, **axes)
    dense = stored.decode()
    able = [a for a in range(len(shape)) if stored.can_index(a)]
    entries = jax.jit(lambda w: [w.take(jnp.asarray(0), a).decode() for a in able])(
        stored
    )
    for axis, entry in zip(able, entries, strict=True):
        np.testing.assert_array_equal(entry, np.asarray(dense).take(0, axis))
        assert all(a.shape[axis] == shape[axis] for a in jax.tree.leaves(stored))
    for axis in set(range(len(shape))) - set(able):
        assert stored.take(jnp.asarray(0), axis) is None


def test_heads_are_merged_into_one_contraction():
    """What the program core asks of an attention output: [H, D, N] as [H*D, N]."""
    for group in (16, 64, None):
        config = QuantConfig(bits=3, group_size=group)
        w = random_weight((4, 32, 6))
        stored = quantize(w, config, contract_axes=(0, 1))
        merged = stored.reshape((128, 6))
        equal(merged, stored.decode().reshape(128, 6))
        assert merged.contract == (-2,)
        flat = quantize(w.reshape(128, 6), config, stride=stored.stride)
        equal(flat, merged.decode())
        np.testing.assert_array_equal(flat.packed, merged.packed)
        equal(merged.reshape((4, 32, 6)), stored.decode())


def test_convolution_kernel_is_flattened():
    stored = quantize(
        random_weight((3, 2, 32, 4)), QuantConfig(bits=4), contract_axes=(0, 1, 2)
    )
    equal(stored.reshape((192, 4)), stored.decode().reshape(192, 4))
    ragged = quantize(
        random_weight((3, 2, 5, 4)), QuantConfig(bits=4), contract_axes=(0, 1, 2)
    )
    assert ragged.reshape((30, 4)) is None  # padding between the rows


def test_the_contracted_axis_is_never_mixed_with_another():
    stored = quantize(random_weight((4, 32, 6)), QuantConfig(bits=4))
    assert stored.reshape((128, 6)) is None
    assert stored.reshape((4, 192)) is None
    # Contracted in another order than it lies in memory.
    other = quantize(
        random_weight((32, 4, 6)), QuantConfig(bits=4), contract_axes=(1, 0)
    )
    assert other.reshape((128, 6)) is None
    equal(
        other.transpose((1, 0, 2)).reshape((128, 6)),
        other.decode().transpose((1, 0, 2)).reshape(128, 6),
    )


def test_groups_do_not_tear():
    stored = quantize(random_weight((96, 4)), QuantConfig(bits=4, group_size=48))
    assert stored.reshape((3, 32, 4)) is None
    assert stored.slice((32, 0), (96, 4)) is None
    equal(stored.slice((0, 1), (48, 3)), stored.decode()[:48, 1:3])


def test_slices_along_the_packed_axis():
    stored = quantize(
        random_weight((128, 4)), QuantConfig(bits=3, group_size=16), stride=1
    )
    dense = stored.decode()
    equal(stored.slice((32, 0), (96, 4)), dense[32:96])
    equal(stored.slice((64, 0), (80, 4)), dense[64:80])  # ends inside a tile
    assert stored.slice((16, 0), (96, 4)) is None  # starts inside a tile
    assert stored.slice((0, 0), (0, 4)) is None
    shared = quantize(random_weight((128, 4)), QuantConfig(bits=3), stride=1)
    equal(shared.slice((32, 0), (41, 4)), shared.decode()[32:41])


def test_take_of_rows_decodes_only_rows():
    table = quantize(
        random_weight((50, 64)), QuantConfig(bits=4, group_size=32), contract_axes=(1,)
    )
    ids = jnp.array([[3, 3, 49], [0, 7, 1]])
    rows = table.take(ids, 0)
    equal(rows, table.decode()[ids])
    assert rows.nbytes < table.nbytes / 8 + 6 * 64


def test_astype_rounds_once():
    stored = quantize(random_weight((64, 4)), QuantConfig(bits=3))
    half = stored.astype(jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    equal(half, stored.decode().astype(jnp.bfloat16))
    assert half.astype(jnp.bfloat16) is not None
    assert half.astype(jnp.float32) is None  # would show bits that were rounded off
    assert stored.astype(jnp.int32) is None


def test_errors():
    stored = quantize(random_weight((64, 4)), QuantConfig(bits=3))
    with pytest.raises(ValueError, match=r"\(64, 4\).*\(64, 5\)"):
        stored.reshape((64, 5))
    with pytest.raises(ValueError, match=r"\(0, 0\) is not a permutation"):
        stored.transpose((0, 0))
