"""Quantizing holds one dense block beside the caller's params, not all of them."""

import dataclasses
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_blocks

from jeff import mbq, quantize, tree
from jeff.mbq.call import job
from jeff.mbq.methods import balancing, scaling
from jeff.mbq.methods.done import Done
from jeff.quantize import QuantConfig

CONFIG = mbq.BalanceConfig(weights=QuantConfig(bits=3, group_size=16), reweight="none")
BLOCK = 4 * 3 * mbq_blocks.D * mbq_blocks.HIDDEN  # bytes of a dense block


@pytest.fixture(autouse=True)
def _earlier_objects_apart():
    """What earlier tests left need not be looked through by every collection."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def live():
    """Bytes of all arrays that something still refers to."""
    gc.collect()
    return sum(a.nbytes for a in jax.live_arrays() if not a.is_deleted())


@pytest.mark.parametrize("layout", ["unrolled", "scanned"])
def test_a_block_that_is_done_is_not_kept_dense(layout, monkeypatch):
    params, apply = mbq_blocks.make_params(), mbq_blocks.gated()
    if layout == "scanned":
        params, apply = mbq_blocks.stack(params), mbq_blocks.scanned
    seen, samples = [], []

    def choose(search, group, block, weights, features):
        if group == 0:
            samples.append(live())
        scale = jnp.full(search.groups[group].share.size, 2.0)
        return scaling.Choice(scale, 0.5, np.zeros(0), {})

    leaves = Done.leaves

    def last(done):
        seen.append(live())
        return leaves(done)

    monkeypatch.setattr(Done, "leaves", last)
    started = job.start(apply, params, mbq_blocks.batches(), CONFIG, None, None)
    before = live()
    result = balancing.balance(started, choose, {})
    # A block adds its packed weights, 4 kB, and a few activations; dense it has 24 kB.
    assert result.report.stored_bytes == 3 * 4224 and BLOCK == 24576
    growth = np.diff(samples)
    assert len(growth) == 2 and (growth < BLOCK / 2).all()
    assert seen[0] - before < result.report.stored_bytes + BLOCK / 4


def test_a_stacked_leaf_is_rounded_entry_by_entry(monkeypatch):
    """For plain rounding too: the quantizer never sees two layers at once."""
    shapes = []
    plain = quantize.quantize

    def spy(w, *args, **kwargs):
        shapes.append(w.shape)
        return plain(w, *args, **kwargs)

    params = mbq_blocks.stack(mbq_blocks.make_params())
    batches = mbq_blocks.batches()
    config = mbq.BalanceConfig(weights=QuantConfig(bits=3, group_size=8))
    started = job.start(mbq_blocks.scanned, params, batches, config, None, ())
    monkeypatch.setattr(quantize, "quantize", spy)
    result = started.finish()
    assert set(shapes) == {(32, 64), (64, 32)}
    for name in ("gate", "up", "down"):
        whole = plain(params["layers"][name], config.weights)
        jax.tree.map(
            np.testing.assert_array_equal, result.params["layers"][name], whole
        )


def test_leaves_outside_of_the_blocks_stay_the_same_arrays():
    params = mbq_blocks.make_params()
    result = mbq.mbq(mbq_blocks.gated(), params, mbq_blocks.batches(), CONFIG)
    assert result.params["head"] is params["head"]
    untouched = mbq.mbq(
        mbq_blocks.gated(), params, mbq_blocks.batches(), CONFIG, groups=[]
    )
    norms = [n for n in tree.flatten(params)[0] if n.endswith("norm")]
    for name in norms:
        assert tree.get(untouched.params, name) is tree.get(params, name)


def test_one_set_of_states_per_prefix(monkeypatch):
    """With eight batches: two sets, and what a batch needs meanwhile."""
    params, seen, change = mbq_blocks.make_params(), [], scaling.relative_change

    def spy(*args):
        seen.append(live())
        return change(*args)

    monkeypatch.setattr(scaling, "relative_change", spy)
    x = np.asarray(jax.random.normal(jax.random.key(0), (8, 4, 256, mbq_blocks.D)))
    config = dataclasses.replace(CONFIG, distort=True, grid=1)
    before = live()
    mbq.awq(mbq_blocks.gated(), params, [mbq.Batch((a,)) for a in x], config)
    sets = (np.array(seen) - before) / x.nbytes
    # A batch is 1/8: its clean output and its features are held for the comparison.
    assert len(seen) >= 3 and sets.max() < 2.8
