import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.quantize import QuantConfig, quantize
from jeff.sweep import FaultSpace, enumerate_faults

SPACE = FaultSpace(("a", "b.c", "d"), (3, 1, 5), (8, 32, 4))


def test_numbers_and_places_are_one_to_one():
    assert len(SPACE) == 24 + 32 + 20 and SPACE.starts == (0, 24, 56)
    numbers = np.arange(len(SPACE))
    leaf, position, bit = SPACE.locate(numbers)
    assert (SPACE.number(leaf, position, bit) == numbers).all()
    places = [
        (i, w, b) for i in range(3) for w in range(SPACE.words[i])
        for b in range(SPACE.bits[i])
    ]  # fmt: skip
    assert list(zip(leaf, position, bit, strict=True)) == places
    traced = jax.jit(SPACE.locate)(numbers.astype(np.int32))
    for ours, theirs in zip(traced, (leaf, position, bit), strict=True):
        assert ours.dtype == jnp.int32 and (np.asarray(ours) == theirs).all()


def test_strata_are_layers_times_bits():
    names, sizes = zip(*SPACE.strata(), strict=True)
    assert len(names) == 8 + 32 + 4 and sum(sizes) == len(SPACE)
    assert names[8] == "b.c bit 0" and sizes[-1] == 5
    counts = np.bincount(SPACE.stratum(np.arange(len(SPACE))), minlength=len(sizes))
    assert counts.tolist() == list(sizes)
    assert names[SPACE.stratum(SPACE.number("d", 2, 3))] == "d bit 3"


def test_dense_leaves_and_codes_have_the_bits_they_store():
    params = {
        "bf16": jnp.zeros(3, jnp.bfloat16),
        "codes": quantize(jnp.ones((32, 2)), QuantConfig(bits=8)),
        "f32": jnp.zeros((2, 2)),
        "int8": jnp.zeros(5, jnp.int8),
    }
    space = enumerate_faults(params)
    assert space == FaultSpace(tuple(params), (3, 64, 4, 5), (16, 8, 32, 8))
    specs = jax.eval_shape(lambda: params)
    assert enumerate_faults(specs) == space  # shapes are enough
    assert enumerate_faults(params | {"none": jnp.zeros((2, 0))}) == space
    few = FaultSpace(("bf16", "int8"), (3, 5), (16, 8))
    assert enumerate_faults(params, where="int8|bf") == few
    assert enumerate_faults(params, where=["int8", "bf16"]) == few
    assert enumerate_faults(params, where=lambda n, x: x.ndim == 1) == few


def test_codes_of_few_bits_have_only_those():
    w = quantize(jnp.ones((32, 2)), QuantConfig(bits=3))
    assert enumerate_faults({"w": w}).bits == (3,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SPACE.locate(76), r"number must be in \[0, 76\): 76"),
        (lambda: SPACE.locate([0, -1]), r"number must be in \[0, 76\): -1"),
        (lambda: SPACE.locate(0.5), "number must be integers"),
        (lambda: SPACE.number("b.d", 0, 0), "no leaf 'b.d'; nearest: b.c"),
        (lambda: SPACE.number("d", 5, 0), r"position must be in \[0, 5\): 5"),
        (lambda: SPACE.number([0, 2], 0, 7), r"bit must be in \[0, 4\): 7"),
        (lambda: enumerate_faults({"w": jnp.zeros(2)}, where="v"), "chooses no leaf"),
        (lambda: enumerate_faults({"w": jnp.zeros((0, 2))}), "no leaf has words: w"),
        (lambda: enumerate_faults({"w": jnp.zeros(2)}, where=["v"]), "where names 'v'"),
        (
            lambda: jax.jit(FaultSpace(("w",), (2**27,), (16,)).locate)(3),
            "2147483648 faults are too many",
        ),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_leaf_without_words_is_named():
    with pytest.raises(TypeError, match="leaf 'mask'"):
        enumerate_faults({"mask": jnp.zeros(2, bool)})
