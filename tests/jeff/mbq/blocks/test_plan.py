"""Which blocks are worked on: those that `where` accepts, and no others."""

import re

import jax
import numpy as np
import pytest
from support import mbq_blocks

from jeff import mbq, tree
from jeff.mbq.blocks.prefix import Prefix
from jeff.mbq.call.begin import begin
from jeff.mbq.call.job import start
from jeff.quantize import QTensor, QuantConfig

W3 = QuantConfig(bits=3, group_size=16)
CONFIG = mbq.BalanceConfig(weights=W3, smoothing=0.25)
EVERY = ("gate", "up", "down")
PARAMS, BATCHES = mbq_blocks.make_params(), mbq_blocks.batches()


def only(*blocks):
    return lambda site: site.name.startswith(tuple(f"layers.{b}." for b in blocks))


def call(where=None, method="smoothquant", **options):
    apply = mbq_blocks.gated()
    return getattr(mbq, method)(apply, PARAMS, BATCHES, CONFIG, where=where, **options)


def changed(result):
    """Names of the leaves that are not the same arrays as before."""
    before, after = tree.flatten(PARAMS)[0], tree.flatten(result.params)[0]
    return {n for n in before if before[n] is not after[n]}


@pytest.mark.parametrize("method", ["rtn", "smoothquant"])
def test_other_blocks_are_untouched(method):
    result, whole = call(only(1), method), call(None, method)
    folded = {"layers.1.norm"} if method == "smoothquant" else set()
    assert changed(result) == {f"layers.1.{n}" for n in EVERY} | folded
    for name in changed(result):
        got, want = tree.get(result.params, name), tree.get(whole.params, name)
        jax.tree.map(np.testing.assert_array_equal, got, want)
    assert {g.block for g in result.report.groups} == ({1} if folded else set())


def test_blocks_of_different_kinds():
    """All of the first block, `down` alone of the third."""
    result = call(lambda s: only(0)(s) or s.name == "layers.2.down")
    stored = [
        n for n in changed(result) if isinstance(tree.get(result.params, n), QTensor)
    ]
    assert set(stored) == {*(f"layers.0.{n}" for n in EVERY), "layers.2.down"}
    assert [(g.block, g.sites) for g in result.report.groups] == [
        (0, ("layers.0.gate", "layers.0.up")),
        (0, ("layers.0.down",)),
        (2, ("layers.2.down",)),
    ]
    assert changed(result) - set(stored) == {"layers.0.norm"}  # folded into


@pytest.mark.parametrize(("blocks", "moves"), [((0,), 0), ((1,), 1), ((0, 2), 2)])
def test_nothing_behind_the_last_block_is_run(blocks, moves, monkeypatch):
    seen, move = [], Prefix.move

    def spy(self, *args):
        seen.append(args)
        return move(self, *args)

    monkeypatch.setattr(Prefix, "move", spy)
    result = call(only(*blocks))
    assert len(seen) == moves
    assert {n.split(".")[1] for n in changed(result)} == set(map(str, blocks))


def test_sensitivities_do_not_depend_on_where():
    """The floor of the ratios is the median over all blocks, accepted or not."""
    options = dict.fromkeys(("groups", "clip_where", "store"))
    args = "mbq", mbq_blocks.gated(), PARAMS, BATCHES, CONFIG
    seen = []
    for where in (only(2), None):
        with begin(*args, loss=mbq_blocks.loss, where=where, **options) as call:
            seen.append(call.seen)
    some, every = seen
    jax.tree.map(np.testing.assert_array_equal, some, every)
    assert some["layers.0.down"]["vision"].shape == (3,)


def test_equal_blocks_share_a_plan():
    job = start(mbq_blocks.gated(), PARAMS, BATCHES, CONFIG, only(0, 2), None)
    ((_, (first, second, third)),) = job.stacks
    assert first is third and second is None and job.plans == [first]


def test_groups_by_hand_must_be_wanted_somewhere():
    spec = mbq.GroupSpec(sites=("layers.0.gate", "layers.0.up"))
    some = call(only(1), groups=[spec])  # named in the first block, meant in each
    assert [g.sites for g in some.report.groups] == [("layers.1.gate", "layers.1.up")]
    for where in (lambda s: s.name.endswith("down"), lambda s: s.name.endswith("up")):
        message = "site 'layers.0.gate' of a group is not one to be quantized"
        with pytest.raises(ValueError, match=re.escape(message)):
            call(where, groups=[spec])
    unknown = mbq.GroupSpec(sites=("layers.0.gate", "layers.0.gone"))
    with pytest.raises(ValueError, match=r"no site 'layers\.0\.gone' in the block"):
        call(groups=[unknown])
