"""Kinds of faults: which faults they hold, and that their draws are uniform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jeff.quantize import QuantConfig, quantize
from jeff.sweep import FaultSpace, enumerate_faults
from jeff.sweep.single_flips.kinds import BY, fault_kinds

PARAMS = {
    "bias": jnp.zeros(3),
    "codes": quantize(jnp.ones((4, 2)), QuantConfig(bits=4, group_size=4)),
    "w": jnp.zeros(10, jnp.int8),
}
SPACE = enumerate_faults(PARAMS)  # 3 words of 32 bits, 8 of 4, 10 of 8


def drawn(kinds, kind, count):
    keys = jax.random.split(jax.random.key(5), count)
    faults = jax.jit(jax.vmap(lambda k: kinds.draw(k, kind)))(keys)
    return SPACE.number(*map(np.asarray, faults))


@pytest.mark.parametrize(
    ("by", "count"), [("layer_bit", 44), ("layer", 3), ("bit", 32)]
)
def test_every_fault_is_of_one_kind(by, count):
    kinds = fault_kinds(SPACE, PARAMS, by)
    assert len(kinds) == len(set(kinds.names)) == count
    assert sum(kinds.sizes) == len(SPACE) and kinds.target.sum() == pytest.approx(1)
    if by == "layer_bit":
        assert tuple(zip(kinds.names, kinds.sizes, strict=True)) == SPACE.strata()
    if by == "bit":
        assert kinds.sizes[:5] == (21, 21, 21, 21, 13) and kinds.sizes[8:] == (3,) * 24
    if by == "layer":
        assert kinds.sizes == (96, 32, 80)


def test_faults_of_a_kind_are_drawn_alike():
    count = 20_000
    for by, kind in (("bit", 2), ("layer", 2), ("layer_bit", 40)):
        kinds = fault_kinds(SPACE, PARAMS, by)
        numbers = drawn(kinds, kind, count)
        mine = [
            SPACE.number(leaf, word, bit)
            for k, leaf, bit in kinds.cells
            if k == kind
            for word in range(SPACE.words[leaf])
        ]
        assert len(mine) == kinds.sizes[kind] and set(numbers) == set(mine)
        seen = np.bincount(numbers, minlength=len(SPACE))[mine]
        assert stats.chisquare(seen).pvalue > 1e-3  # one in a thousand keys fails


def test_spaces_beyond_32_bits_are_drawn_from_too():
    """As of a language model: 6.4 * 10^9 faults, of which numbers are no int32."""
    params = {
        "a": jax.ShapeDtypeStruct((3 * 10**8,), jnp.int8),
        "b": jax.ShapeDtypeStruct((10**9,), jnp.int4),
    }
    space = enumerate_faults(params)
    assert len(space) == 64 * 10**8 > 2**31
    kinds = fault_kinds(space, params, "bit")
    keys = jax.random.split(jax.random.key(1), 4000)
    faults = jax.jit(jax.vmap(lambda k: kinds.draw(k, 3)))(keys)
    leaf, position = np.asarray(faults.leaf), np.asarray(faults.position)
    assert (np.asarray(faults.bit) == 3).all() and (position >= 0).all()
    # A share of 10 / 13 of the second leaf, to four standard deviations.
    assert abs(leaf.mean() - 10 / 13) < 4 * (30 / 169 / 4000) ** 0.5
    for i, words in enumerate(space.words):
        part = position[leaf == i] / words
        assert stats.kstest(part, "uniform").pvalue > 1e-3


def test_other_params_and_words_are_refused():
    with pytest.raises(ValueError, match="by must be one of .*got 'bits'"):
        fault_kinds(SPACE, PARAMS, "bits")
    assert BY == ("layer_bit", "layer", "bit")
    other = PARAMS | {"w": jnp.zeros(9, jnp.int8)}
    with pytest.raises(ValueError, match="leaf 'w' has 9 words of 8 bits, there 10 of"):
        fault_kinds(SPACE, other, "bit")
    with pytest.raises(ValueError, match="leaf 'w' has 10 words of 8 bits, there 0 of"):
        fault_kinds(FaultSpace(("w",), (0,), (8,)), PARAMS, "bit")
    with pytest.raises(ValueError, match="'v', which is no leaf"):
        fault_kinds(FaultSpace(("v",), (2,), (8,)), PARAMS, "bit")
    huge = {"w": jax.ShapeDtypeStruct((2**31,), jnp.int8)}
    with pytest.raises(ValueError, match=r"leaf 'w' has 2\^31 words"):
        fault_kinds(enumerate_faults(huge), huge, "bit")
