"""Points of a map for every entry of a stack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.prng import named_key
from jeff.quantize import QuantConfig, quantize
from jeff.sweep import Narrow, weight_map
from jeff.sweep.single_flips.uniform import uniform_below

KEY = jax.random.key(5)
W = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)


def nothing(params, x):
    return x


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (2, 0), (0, 1, 2)])
def test_every_entry_is_hit_and_nothing_else(axes):
    params = {"b": np.zeros(2, np.int8), "w": W}
    made = weight_map(nothing, params, stacked={"w": axes})
    count = int(np.prod([W.shape[a] for a in axes]))
    each = W.size // count
    assert made.space.names[0] == "b" and made.space.words == (2, *[each] * count)
    index = list(np.ndindex(*(W.shape[a] for a in axes)))
    names = [f"w[{', '.join(map(str, i))}]" for i in index]
    assert made.space.names[1:] == tuple(names)
    chosen = np.flatnonzero((made.designs["bit"] == 30) & (made.designs["leaf"] > 0))
    designs = {n: a[chosen] for n, a in made.designs.items()}
    draw = jax.jit(jax.vmap(made.trial.draw, (None, None, 0)))
    faulty = np.asarray(draw(KEY, 1.0, designs)["w"])
    assert len(faulty) == count
    for got, name, place in zip(faulty, names, index, strict=True):
        words = np.moveaxis(W.view(np.uint32).copy(), axes, range(len(axes)))
        entry = words[place].reshape(-1)
        entry[int(uniform_below(named_key(KEY, name), each))] ^= np.uint32(1 << 30)
        words[place] = entry.reshape(words[place].shape)
        expected = np.moveaxis(words, range(len(axes)), axes)
        np.testing.assert_array_equal(got.view(np.uint32), expected)


def test_leaves_without_a_stack_are_drawn_as_before():
    plain = weight_map(nothing, {"w": W})
    other = weight_map(nothing, {"w": W, "x": W}, stacked={"x": (0,)})
    draws = [m.trial.draw for m in (plain, other)]

    @jax.jit
    def both(key):
        return [draw(key, 1.0, {"leaf": 0, "bit": 3})["w"] for draw in draws]

    np.testing.assert_array_equal(*both(KEY))


@jax.tree_util.register_dataclass
class Flat(Narrow):
    """Codes in one row."""

    def codes(self):
        return super().codes().reshape(-1)

    def with_codes(self, codes):
        return super().with_codes(codes.reshape(self.shape))


def test_stored_leaves_are_split_where_codes_have_their_shape():
    stored = quantize(W, QuantConfig(bits=4, group_size=4), stack_axes=(0,))
    made = weight_map(nothing, {"w": stored}, stacked={"w": (0,)})
    assert made.space.names == ("w[0]", "w[1]", "w[2]")
    assert made.space.bits == (4,) * 3 and made.space.words == (20,) * 3
    flat = Flat(jnp.asarray(W, jnp.bfloat16), jnp.dtype("float32"))
    made = weight_map(nothing, {"w": flat}, stacked={"w": (0,)})
    assert made.space.names == ("w",) and made.space.words == (60,)


def test_bad_stacks_are_named():
    with pytest.raises(ValueError, match="'v', which is no leaf of params; nearest"):
        weight_map(nothing, {"w": W, "vv": W}, stacked={"v": 1})
    with pytest.raises(ValueError, match="'w' has no axis 3"):
        weight_map(nothing, {"w": W}, stacked={"w": (3,)})
    with pytest.raises(ValueError, match="different axes, got"):
        weight_map(nothing, {"w": W}, stacked={"w": (0, 0)})
