import jax
import jax.numpy as jnp
import numpy as np

from jeff.faults import bit_words, pages, sparse
from jeff.faults.sparse import sparse_words
from jeff.faults.words import bit_words_each
from jeff.prng import named_key

RATE = 1e-3


def test_pages_cover_an_array_in_whole_elements():
    for size, bits in ((1, 32), (1024, 1), (1025, 1), (2**18, 1), (300_000, 3)):
        paging = pages.paging(size, bits)
        assert paging.count * paging.elements >= size
        assert (paging.count - 1) * paging.elements < size
        assert paging.elements * bits <= paging.span <= 2**18
    # 7e9 codes of 3 bits: 2.1e10 positions, more than 32 bits count.
    assert pages.paging(7_000_000_000, 3) == (2**18, 87_381, 80_109)


def _alone(key, number, bits):
    """The words of one page, from nothing but the array's key and its number."""
    page = jax.random.fold_in(named_key(key, "sparse"), number)
    hits = pages.hits(
        page[None], RATE, [2**18], span=2**18, bits=bits, max_rate=RATE
    )  # fmt: skip
    word = jnp.zeros(2**18 // bits, jnp.uint8)
    bit = hits.keep.astype(jnp.uint8) << (hits.offset % bits).astype(jnp.uint8)
    return word.at[hits.offset // bits].add(bit, mode="drop")


def test_a_page_can_be_drawn_alone_also_of_an_array_too_large_to_hold(key):
    size, bits = 200_000, 3  # three pages, of which the last is not full
    word = bit_words(key, RATE, (size,), bits=bits, method="sparse").word
    elements = 2**18 // bits
    alone = jax.jit(_alone, static_argnums=2)
    for number in range(3):
        part = word[number * elements : (number + 1) * elements]
        np.testing.assert_array_equal(part, alone(key, number, bits)[: part.size])
    # The same program draws page 80,000 of 7e9 codes: all that depends on the place is
    # a number folded into the key. The whole array only has to be describable.
    far = np.asarray(alone(key, 80_000, bits))
    assert abs((far != 0).sum() - elements * bits * RATE) < 5 * 16.2
    assert (far != np.asarray(alone(key, 80_000 - 2**16, bits))).any()
    like = jax.eval_shape(
        lambda k: bit_words(k, RATE, (7_000_000_000,), bits=bits).word, key
    )
    assert like.shape == (7_000_000_000,)


def test_several_arrays_at_once_are_each_drawn_alone(key):
    shapes = [(40, 30), (1000,), (1200,), (3,)]
    keys = jax.random.split(key, len(shapes))
    each = bit_words_each(keys, 0.01, shapes, bits=[8] * 4)
    for i in (0, 2):
        one = bit_words(keys[i], 0.01, shapes[i], bits=8)
        np.testing.assert_array_equal(each[i].word, one.word)
    words = [np.asarray(drawn.word) for drawn in each]
    assert [word.shape for word in words] == shapes
    assert (words[0].ravel() != words[2]).any() and (words[1] != 0).any()
    assert not any(drawn.overflow for drawn in each)


def test_arrays_cut_into_several_buffers_are_the_same(key, monkeypatch):
    """Buffers end where 32 bits could not count their elements."""
    sizes = (120_000, 3_000, 70_000)

    def draw(keys):
        return sparse_words(
            keys, None, sizes, bits=8, top=RATE, share=0.5, dtype="uint8"
        )  # fmt: skip

    keys = jax.random.split(key, len(sizes))
    whole = jax.jit(draw)(keys)
    monkeypatch.setattr(sparse, "_MOST", 40_000)
    cut = jax.jit(lambda keys: draw(keys))(keys)
    assert [word.shape for word, _, _ in cut] == [(size,) for size in sizes]
    for ours, theirs in zip(jax.tree.leaves(cut), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert all((np.asarray(word) != 0).any() for word, _, _ in cut)
