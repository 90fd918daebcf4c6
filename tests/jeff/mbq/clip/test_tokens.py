import numpy as np
import pytest

from jeff.mbq.clip.tokens import pick_tokens


def everything(picks, sizes):
    """The picked tokens of all batches together, and what they stand for."""
    starts = np.cumsum([0, *sizes])
    index = np.concatenate(
        [i[s > 0] + at for (i, s), at in zip(picks, starts, strict=False)]
    )
    return index, np.concatenate([s[s > 0] for _, s in picks])


@pytest.mark.parametrize("cuts", [[100], [50, 50], [25] * 4])
def test_batches_do_not_change_what_is_picked(cuts):
    kinds = np.random.default_rng(0).integers(-1, 3, 100)
    picks = pick_tokens(np.split(kinds, np.cumsum(cuts)[:-1]), 6)
    index, share = everything(picks, cuts)
    order = np.argsort(index)
    whole, shares = everything(pick_tokens([kinds], 6), [100])
    np.testing.assert_array_equal(index[order], whole)
    np.testing.assert_array_equal(share[order], shares)
    assert len({i.shape for i, _ in picks}) == 1  # all share a compiled program
    for kind in range(3):
        mine = np.flatnonzero(kinds == kind)
        stride = mine.size // 6
        np.testing.assert_array_equal(whole[kinds[whole] == kind], mine[::stride])
        np.testing.assert_array_equal(shares[kinds[whole] == kind], stride)
        assert 6 <= len(mine[::stride]) < 12


def test_few_tokens_are_all_taken():
    ((index, share),) = pick_tokens([np.array([0, -1, 0, 1])], 512)
    np.testing.assert_array_equal(index, [0, 2, 3])
    np.testing.assert_array_equal(share, 1)


def test_plain_tokens_are_those_of_the_original():
    """Every ``n // wanted``-th of all."""
    ((index, _),) = pick_tokens([np.zeros(120, int)], 60)
    np.testing.assert_array_equal(index, np.arange(0, 120, 2))
