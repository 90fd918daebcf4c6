"""Group geometry against plain loops."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jeff.quantize import groups
from jeff.quantize.config import QuantConfig

CHANNEL = QuantConfig(bits=4)


def members(shape, contract, size):
    """Group number of every weight, counted along the flattened contraction axes."""
    number = np.zeros(shape, int)
    sizes = [shape[a] for a in contract]
    for index in itertools.product(*map(range, shape)):
        flat = np.ravel_multi_index([index[a] for a in contract], sizes)
        rest = [i for a, i in enumerate(index) if a not in contract]
        wide = [n for a, n in enumerate(shape) if a not in contract]
        outside = np.ravel_multi_index(rest, wide) if rest else 0
        number[index] = outside * 10_000 + flat // size
    return number


@pytest.mark.parametrize(
    ("shape", "contract", "size"),
    [
        ((8, 3), (0,), 4),
        ((3, 8), (1,), 2),
        ((4, 6, 2), (0, 1), 3),  # part of an inner row
        ((4, 6, 2), (0, 1), 12),  # two inner rows
        ((4, 6, 2), (0, 1), 24),  # everything
        ((2, 4, 6), (1, 2), 6),  # one inner row
        ((2, 3, 4), (2, 0), 8),  # contracted in another order than stored
    ],
)
def test_groups_are_runs_of_the_flattened_axes(shape, contract, size):
    config = QuantConfig(bits=4, group_size=size)
    counts = groups.group_shape(shape, config, contract_axes=contract)
    numbers = jnp.arange(np.prod(counts), dtype=jnp.float32).reshape(counts)
    got = np.broadcast_to(groups.spread(numbers, shape), shape)
    want = members(shape, contract, size)
    # The same partition: equal numbers exactly where the loop has equal numbers.
    pairs = set(zip(got.ravel().tolist(), want.ravel().tolist(), strict=True))
    assert len(pairs) == len(set(want.ravel().tolist())) == np.prod(counts)


def test_extremes():
    w = np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32)
    counts = groups.group_shape(
        w.shape, QuantConfig(bits=4, group_size=12), contract_axes=(0, 1)
    )
    low, high = groups.extremes(jnp.asarray(w), counts)
    np.testing.assert_array_equal(low[:, 0], w.reshape(2, 12, 2).min(1))
    np.testing.assert_array_equal(high[:, 0], w.reshape(2, 12, 2).max(1))


def test_per_channel_and_per_tensor():
    tensor = QuantConfig(bits=4, per_tensor=True)
    assert groups.group_shape((3, 8, 5), CHANNEL) == (3, 1, 5)
    assert groups.group_shape((3, 8, 5), CHANNEL, contract_axes=(-1, 0)) == (1, 8, 1)
    assert groups.group_shape((3, 8, 5), tensor) == (1, 1, 1)
    assert groups.group_shape((3, 8, 5), tensor, stack_axes=(0,)) == (3, 1, 1)
    assert groups.group_shape(
        (8, 3, 5), tensor, contract_axes=(0,), stack_axes=(-2,)
    ) == (1, 3, 1)


def test_errors_name_sizes_and_axes():
    with pytest.raises(ValueError, match=r"group_size 48 .* \(64,\) .* \(64, 8\)"):
        groups.group_shape((64, 8), QuantConfig(bits=4, group_size=48))
    with pytest.raises(ValueError, match=r"group_size 12 .* \(4, 8\)"):
        groups.group_shape(
            (4, 8, 3), QuantConfig(bits=4, group_size=12), contract_axes=(0, 1)
        )
    with pytest.raises(ValueError, match=r"contract_axes \(2,\) is out of range"):
        groups.group_shape((8, 8), CHANNEL, contract_axes=(2,))
    with pytest.raises(ValueError, match=r"\(0, -2\) names an axis twice"):
        groups.group_shape((8, 8), CHANNEL, contract_axes=(0, -2))
    with pytest.raises(ValueError, match="at least one"):
        groups.group_shape((8, 8), CHANNEL, contract_axes=())
    with pytest.raises(ValueError, match="share an axis"):
        groups.group_shape((8, 8), CHANNEL, contract_axes=(0,), stack_axes=(-2,))
    with pytest.raises(ValueError, match="no entries"):
        groups.group_shape((0, 8), CHANNEL)
