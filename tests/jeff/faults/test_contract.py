"""What every fault model keeps to, over a table of all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import faults
from pallas_kernels import threefry

X = np.array([[0.7, -3.0, 0.0], [-0.0, 1.23, 2.5]], np.float32)
ODD = np.array([[0.7, -3.0, np.inf], [np.nan, 1.23, -np.inf]], np.float32)
TOP = 0.5  # largest rate


def _same(x):
    return x


def _rounded(high, cut=np.rint):
    """What is left at rate 0 of `X` and `ODD`, whose range is 4: codes up to `high`."""

    def q(x):
        code = np.clip(cut(np.where(np.isfinite(x), x, 0) * 32), -high, high)
        return np.where(np.isfinite(x), code / 32, x)

    return q


def _bounded(make, **settings):
    return lambda rate: make(rate, max_rate=TOP, **settings)


MODELS = {
    "adsaf": (_bounded(faults.adsaf), _same),
    "adsaf_cells": (_bounded(faults.adsaf_cells), _rounded(127, np.trunc)),
    "bit_flip": (_bounded(faults.bit_flip), _same),
    "compose": (
        lambda rate: faults.compose(
            faults.salt_and_pepper(rate, max_rate=TOP), faults.gaussian(rate)
        ),
        _same,
    ),
    "fixed_point_flip": (_bounded(faults.fixed_point_flip), _rounded(127)),
    "gaussian": (faults.gaussian, _same),
    "lognormal": (faults.lognormal, _same),
    "mibb": (_bounded(faults.mibb, macs=3), _rounded(128)),
    "reciprocal_normal": (faults.reciprocal_normal, _same),
    "salt_and_pepper": (_bounded(faults.salt_and_pepper), _same),
    "stuck_at": (_bounded(faults.stuck_at), _same),
}
NOISE = ("compose", "gaussian", "lognormal", "reciprocal_normal")
NESTED = sorted(MODELS.keys() - set(NOISE) | {"compose"})


class _Program:
    """A model compiled once, mapped over keys; counts its traces."""

    def __init__(self, name):
        make, self.at_rate_0 = MODELS[name]
        self.traces, self.is_noise = 0, name in NOISE

        def once(rate, key, x):
            model = make(rate)
            drawn = model.sample(key, x)
            return drawn, model.inject(drawn, x)

        def over_keys(rate, keys, x):
            self.traces += 1
            return jax.vmap(once, (None, 0, None))(rate, keys, x)

        self.once, self.compiled = once, jax.jit(over_keys)

    def __call__(self, rate, x=X):
        run = self.compiled(jnp.float32(rate), KEYS, jnp.asarray(x))
        return jax.tree.map(np.asarray, run)


KEYS = jax.random.split(jax.random.key(5), 2)


@pytest.fixture(scope="module")
def programs():
    return {}


@pytest.fixture(params=sorted(MODELS))
def program(request, programs):
    """The model's program, one per module."""
    return programs.setdefault(request.param, _Program(request.param))


def test_a_map_over_keys_under_jit_is_the_eager_loop_and_traced_once(program):
    mapped = program(TOP)
    assert (mapped[1] != X).any() and mapped[1].dtype == X.dtype
    assert not getattr(mapped[0], "overflow", np.array(False)).any()
    program(0.1, ODD)
    assert program.traces == 1
    loop = [program.once(TOP, key, jnp.asarray(X)) for key in KEYS]
    for a, b in zip(jax.tree.leaves(mapped), _stacked(loop), strict=True):
        assert a.dtype == b.dtype
        if program.is_noise:  # compiled otherwise, an exponential is rounded otherwise
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(a, b)


def test_draws_are_those_of_jax(program, monkeypatch):
    """The words that are written out are the ones that JAX makes in its own way."""
    mapped = jax.tree.map(lambda a: a[0], program(TOP)[0])
    monkeypatch.setattr(threefry, "is_written_out", lambda key: False)
    with jax.disable_jit():
        drawn = program.once(TOP, KEYS[0], jnp.asarray(X))[0]
    for a, b in zip(*map(jax.tree.leaves, (mapped, drawn)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6 * program.is_noise, atol=0)


def _stacked(runs):
    return jax.tree.leaves(jax.tree.map(lambda *leaves: np.stack(leaves), *runs))


def test_scalars_and_empty_arrays_keep_shape_and_dtype(program):
    for shape, dtype in (((), jnp.bfloat16), ((0, 2), jnp.float16)):
        like = jax.ShapeDtypeStruct(shape, dtype)
        _, y = jax.eval_shape(program.once, 0.1, KEYS[0], like)
        assert y.shape == shape and y.dtype == dtype


def test_rate_0_changes_nothing_but_the_rounding(program):
    for x in (X, ODD):
        expected = np.float32(program.at_rate_0(x))
        for y in program(0.0, x)[1]:
            np.testing.assert_array_equal(y, expected)
            if program.at_rate_0 is _same:  # the signs of zeros too
                np.testing.assert_array_equal(y.view(np.uint32), x.view(np.uint32))


def test_what_is_not_finite_leaves_the_rest_alone(program):
    finite = np.isfinite(ODD)
    odd = program(TOP, ODD)[1]
    plain = program(TOP, np.where(finite, ODD, np.float32(0)))[1]
    np.testing.assert_array_equal(odd[:, finite], plain[:, finite])


@pytest.mark.parametrize("name", NESTED)
def test_faults_at_a_lower_rate_are_among_those_at_a_higher_one(name, programs):
    program = programs.setdefault(name, _Program(name))
    low, high = (program(rate)[0] for rate in (TOP / 4, TOP))
    if name == "compose":  # the other part is noise
        low, high = low.parts[0], high.parts[0]
    for field, few, many in zip(low._fields, low, high, strict=True):
        if few.dtype == np.float32:
            kept = np.where(few != 0, many, np.float32(0))
        else:
            kept = few & many
        np.testing.assert_array_equal(kept, few)
        assert field == "overflow" or (few != many).any()
