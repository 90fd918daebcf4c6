import jax.numpy as jnp
import numpy as np
import pytest

from jeff.mbq.rounding.matrices import Matrices


@pytest.mark.parametrize(
    ("shape", "contract", "stack", "matrices"),
    [
        ((6, 4), (0,), (), (1, 6, 4)),
        ((4, 6), (1,), (), (1, 6, 4)),
        ((2, 3, 4), (0, 1), (), (1, 6, 4)),
        ((3, 6, 2), (-2,), (0,), (3, 6, 2)),
        ((6, 3, 2, 5), (0,), (2, 1), (6, 6, 5)),
    ],
)
def test_there_and_back(shape, contract, stack, matrices):
    w = jnp.arange(np.prod(shape)).reshape(shape)
    layout = Matrices.of(shape, contract_axes=contract, stack_axes=stack)
    split = layout.split(w)
    assert split.shape == matrices and layout.k == matrices[1]
    assert np.prod(layout.stacked, dtype=int) == matrices[0]
    np.testing.assert_array_equal(layout.restore(split, shape), w)


def test_order_of_the_axes():
    """Entry ``[s, (i, j), o]`` is that of stack, contraction and output axes."""
    w = np.random.default_rng(0).normal(size=(5, 2, 3, 4))  # [o, s, i, j]
    layout = Matrices.of(w.shape, contract_axes=(2, 3), stack_axes=(1,))
    got = layout.split(jnp.asarray(w, jnp.float32))
    want = w.transpose(1, 2, 3, 0).reshape(2, 12, 5)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_values_per_group_are_restored_too():
    layout = Matrices.of((8, 3), contract_axes=(1,))
    per_group = jnp.arange(8.0).reshape(1, 1, 8)
    assert layout.restore(per_group, (8, 1)).shape == (8, 1)


def test_bad_axes():
    with pytest.raises(ValueError, match=r"contract_axes \(2,\) is out of range"):
        Matrices.of((4, 4), contract_axes=(2,))
