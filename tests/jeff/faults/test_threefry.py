import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.faults.threefry import fold_in_each, random_rows

SHAPE, FIRST, GROUPS = (4, 30), 1, ((2, 30), (1, 7), (2, 1))


def _by_jax(keys):
    """The rows as `jax.random.bits` gives them, one key after another."""
    counts = np.repeat([n for _, n in GROUPS], [n for n, _ in GROUPS])
    draw = jax.jit(jax.vmap(lambda key: jax.random.bits(key, SHAPE, jnp.uint32)))
    rows = [own[FIRST:, :n] for own, n in zip(draw(keys), counts, strict=True)]
    return np.concatenate(rows, axis=1)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "raw"])
def test_random_rows_are_those_of_jax(impl):
    keys = jax.random.split(jax.random.key(3, impl=None if impl == "raw" else impl), 5)
    if impl == "raw":
        keys = jax.random.key_data(keys)
    drawn = jax.jit(lambda keys: random_rows(keys, SHAPE, FIRST, GROUPS))(keys)
    assert drawn.shape == (3, 2 * 30 + 7 + 2)
    np.testing.assert_array_equal(drawn, _by_jax(keys))


def test_the_older_form_of_threefry_is_drawn_as_jax_does(key):
    """Keys of the same kind draw other numbers where JAX is told so."""
    keys = jax.random.split(key, 5)

    def draw(keys):
        return random_rows(keys, SHAPE, FIRST, GROUPS)

    now = np.asarray(jax.jit(draw)(keys))
    with jax.threefry_partitionable(False):
        older = np.asarray(jax.jit(draw)(keys))
        np.testing.assert_array_equal(older, _by_jax(keys))
    assert (older != now).any()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_fold_in_each_is_that_of_jax(impl):
    keys = jax.random.split(jax.random.key(1, impl=impl), 3)
    first, second = jnp.array([[5, 0, 2**32 - 1], [7, 7, 1]], jnp.uint32)
    fold = jax.vmap(jax.random.fold_in)
    folded = jax.jit(fold_in_each)(keys, first, second)
    assert (folded == fold(fold(keys, first), second)).all()
    if impl == "threefry2x32":
        raw = fold_in_each(jax.random.key_data(keys), first)
        np.testing.assert_array_equal(raw, jax.random.key_data(fold(keys, first)))
