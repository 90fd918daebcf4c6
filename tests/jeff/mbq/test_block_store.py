"""A call that is stopped goes on where it was, and ends with the same bits."""

import dataclasses
import functools
import json
import re

import jax
import numpy as np
import pytest
from support import mbq_blocks

from jeff import mbq
from jeff.mbq import scaling, weighing
from jeff.quantize import QuantConfig

W3 = QuantConfig(bits=3, group_size=16)
PLAIN = mbq.BalanceConfig(weights=W3, grid=3)
ALL = dataclasses.replace(
    PLAIN, clip=True, distort=True, rounding="gptq", weighted_hessian=True
)
SETTINGS = {
    "mbq": ("mbq", PLAIN, "scanned"),
    "everything": ("mbq", ALL, "scanned"),
    "rtn": ("rtn", PLAIN, "unrolled"),
}
BATCHES = mbq_blocks.batches()


def call(name, store=None, method=None, **changes):
    usual, config, layout = SETTINGS[name]
    apply, params = mbq_blocks.gated(), mbq_blocks.make_params()
    if layout == "scanned":
        apply, params = mbq_blocks.scanned, mbq_blocks.stack(params)
    arguments = {
        "apply": apply, "params": params, "batches": BATCHES, "config": config,
        "loss": mbq_blocks.loss, **changes,
    }  # fmt: skip
    return getattr(mbq, method or usual)(**arguments, store=store)


whole = functools.cache(call)


class Stopped(Exception):
    pass


def stopped_after(store, count, name, monkeypatch, **changes):
    """A call that dies as it is about to keep one more block."""
    save, kept = mbq.BlockStore.save, []

    def dies(self, *args):
        if len(kept) == count:
            raise Stopped
        kept.append(save(self, *args))

    with monkeypatch.context() as patch:
        patch.setattr(mbq.BlockStore, "save", dies)
        with pytest.raises(Stopped):
            call(name, store, **changes)


def check_equal(one, other):
    """Bit by bit: parameters, rules and report."""
    assert jax.tree.structure(one.params) == jax.tree.structure(other.params)
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    assert len(one.rules) == len(other.rules)
    jax.tree.map(np.testing.assert_array_equal, one.report, other.report)
    leaves = [jax.tree.leaves(r.report) for r in (one, other)]
    for a, b in zip(*leaves, strict=True):
        assert type(a) is type(b) and np.asarray(a).dtype == np.asarray(b).dtype


@pytest.mark.parametrize(
    ("name", "count"), [("mbq", 2), ("everything", 2), ("rtn", 0), ("rtn", 1)]
)
def test_stopped_and_resumed(name, count, tmp_path, monkeypatch):
    store = mbq.BlockStore(tmp_path / "a" / "store")
    stopped_after(store, count, name, monkeypatch)
    assert store.finished == tuple(range(count))
    before = {f: f.read_bytes() for f in store.folder.iterdir()}
    check_equal(call(name, store), whole(name))
    assert store.finished == (0, 1, 2)
    assert all(f.read_bytes() == data for f, data in before.items())


def test_what_is_finished_is_not_done_again(tmp_path, monkeypatch):
    store = mbq.BlockStore(tmp_path)
    first = call("mbq", store)

    def refuse(*args):
        raise AssertionError("computed again")

    monkeypatch.setattr(scaling, "scale_block", refuse)
    monkeypatch.setattr("jeff.mbq.balancing.scale_block", refuse)
    monkeypatch.setattr(weighing, "sensitivities", refuse)
    check_equal(call("mbq", store), first)


def test_what_a_killed_writer_leaves_does_not_matter(tmp_path):
    """A temporary file that was never renamed, and a block from the middle."""
    store = mbq.BlockStore(tmp_path)
    call("rtn", store)
    (tmp_path / "stack0-block0000.safetensors").unlink()
    (tmp_path / ".stack0-block0000.safetensors.0123.tmp").write_bytes(b"half")
    assert store.finished == (1, 2)
    check_equal(call("rtn", store), whole("rtn"))


OTHER = {
    "method": ({}, "gptq", "method='rtn', now it is 'gptq'"),
    "bits": (
        {
            "config": mbq.BalanceConfig(
                weights=QuantConfig(bits=4, group_size=16), grid=3
            )
        },
        "rtn",
        "config.weights.bits=3, now it is 4",
    ),
    "grid": (
        {"config": mbq.BalanceConfig(weights=W3)},
        "rtn",
        "config.grid=3, now it is 20",
    ),
    "where": ({"where": lambda s: "up" in s.name}, "rtn", "stacks[0].blocks[0]="),
    "params": (
        {"params": mbq_blocks.make_params(1)},
        "rtn",
        "params.layers.0.down='float32[64, 32] ",
    ),
    "batches": ({"batches": mbq_blocks.batches(2)}, "rtn", "batches=1, now it is 2"),
    "data": (
        {"batches": [BATCHES[0]._replace(inputs=(BATCHES[0].inputs[0] + 1,))]},
        "rtn",
        "batches[0].inputs=",
    ),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    store = mbq.BlockStore(tmp_path_factory.mktemp("begun"))
    call("rtn", store)
    return store


@pytest.mark.parametrize("case", OTHER)
def test_other_settings_are_refused(case, begun):
    changes, method, message = OTHER[case]
    before = {f: f.read_bytes() for f in begun.folder.iterdir()}
    with pytest.raises(
        ValueError, match=re.escape(f"was begun with {message}")
    ) as info:
        call("rtn", begun, method=method, **changes)
    assert "\n" not in str(info.value) and str(begun.folder) in str(info.value)
    assert {f: f.read_bytes() for f in begun.folder.iterdir()} == before


@pytest.mark.parametrize("damage", ["cut", "other", "flipped header"])
def test_a_damaged_block_is_named(damage, tmp_path):
    store = mbq.BlockStore(tmp_path)
    call("rtn", store)
    file = tmp_path / "stack0-block0001.safetensors"
    data = file.read_bytes()
    changed = {
        "cut": data[:-7],
        "other": b"x" * 40,
        "flipped header": b"\xff" + data[1:],
    }
    file.write_bytes(changed[damage])
    message = "stack0-block0001.safetensors' is damaged: .*; delete it to compute"
    with pytest.raises(ValueError, match=message):
        call("rtn", store)


def test_damaged_settings_and_wrong_stores(tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps(["no", "settings"]))
    with pytest.raises(ValueError, match=r"settings\.json' is damaged"):
        call("rtn", mbq.BlockStore(tmp_path))
    with pytest.raises(TypeError, match="store must be a BlockStore, got '/tmp'"):
        call("rtn", "/tmp")
    assert repr(mbq.BlockStore("some/folder")) == "BlockStore('some/folder')"
    assert mbq.BlockStore(tmp_path / "nothing").finished == ()
