"""A call that is stopped goes on where it was, and ends with the same bits."""

import dataclasses
import functools
import json
import re
import shutil

import jax
import numpy as np
import pytest
from support import mbq_blocks

from jeff import io, mbq
from jeff.io import write_atomically
from jeff.io.tensor_record import from_tensors
from jeff.mbq.blocks import file as block_file
from jeff.mbq.blocks import store as block_store
from jeff.mbq.blocks.finished import FinishedBlock
from jeff.mbq.call import weighing
from jeff.mbq.methods import scaling
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
    assert store.finished == tuple((0, block) for block in range(count))
    before = {f: f.read_bytes() for f in store.folder.iterdir()}
    check_equal(call(name, store), whole(name))
    assert store.finished == ((0, 0), (0, 1), (0, 2))
    assert all(f.read_bytes() == data for f, data in before.items())


def test_what_is_finished_is_not_done_again(tmp_path, monkeypatch):
    store = mbq.BlockStore(tmp_path)
    first = call("mbq", store)

    def refuse(*args):
        raise AssertionError("computed again")

    monkeypatch.setattr(scaling, "scale_block", refuse)
    monkeypatch.setattr("jeff.mbq.methods.balancing.scale_block", refuse)
    monkeypatch.setattr(weighing, "sensitivities", refuse)
    check_equal(call("mbq", store), first)


def test_what_a_killed_writer_leaves_does_not_matter(tmp_path):
    """A temporary file that was never renamed, and a block from the middle."""
    store = mbq.BlockStore(tmp_path)
    call("rtn", store)
    (tmp_path / "stack0-block0000.safetensors").unlink()
    (tmp_path / ".stack0-block0000.safetensors.0123.tmp").write_bytes(b"half")
    assert store.finished == ((0, 1), (0, 2))
    check_equal(call("rtn", store), whole("rtn"))


def doubled(params, x):
    """Another program of the same sites, shapes and parameters."""
    return mbq_blocks.gated()(params, 2 * x)


OTHER = {
    "program": ({"apply": doubled}, "rtn", "other values of program than now"),
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
    "where": (
        {"where": lambda s: "up" in s.name},
        "rtn",
        "other values of stacks[0].blocks[0]",
    ),
    "params": (
        {"params": mbq_blocks.make_params(1)},
        "rtn",
        "other values of params.layers.0.down",
    ),
    "batches": ({"batches": mbq_blocks.batches(2)}, "rtn", "batches=1, now it is 2"),
    "data": (
        {"batches": [BATCHES[0]._replace(inputs=(BATCHES[0].inputs[0] + 1,))]},
        "rtn",
        "other values of batches[0].inputs",
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


def test_other_versions_are_refused(begun, monkeypatch):
    monkeypatch.setattr(io, "versions", lambda: {"jeff": "0.0.0"})
    with pytest.raises(ValueError, match=r"versions\.jeff=.*, now it is '0\.0\.0'"):
        call("rtn", begun)


@pytest.fixture
def copy(begun, tmp_path):
    """A store of its own with all blocks, and its second block's file."""
    folder = tmp_path / "copy"
    shutil.copytree(begun.folder, folder)
    return mbq.BlockStore(folder), folder / "stack0-block0001.safetensors"


def without(data, weight):
    """The file of a block that lacks a weight."""
    _, record = from_tensors(data)
    block = block_file.from_bytes(data, record["place"])
    rounded = {n: r for n, r in block.rounded.items() if n != weight}
    return block_file.to_bytes(block._replace(rounded=rounded), record["place"])


DAMAGES = {
    "cut": (lambda d, _: d[:-7], "not a safetensors file"),
    "other": (lambda d, _: b"x" * 40, "not a safetensors file"),
    "flipped header": (lambda d, _: b"\xff" + d[1:], "not a safetensors file"),
    "another block": (lambda d, first: first, "it was written for block=0, not 1"),
    "a weight less": (
        lambda d, _: without(d, "layers.0.up"),
        r"weight 'layers\.0\.up' has shape None, expected \(32, 64\)",
    ),
    "other settings": (
        lambda d, _: block_file.to_bytes(
            FinishedBlock({}, {}, (), (), ()), {"settings": "other"}
        ),
        "it was written for settings='other', not",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_block_is_named(damage, copy):
    store, file = copy
    change, why = DAMAGES[damage]
    first = file.with_name("stack0-block0000.safetensors").read_bytes()
    file.write_bytes(change(file.read_bytes(), first))
    message = f"block0001.safetensors' is damaged: {why}.*; delete it to compute"
    with pytest.raises(ValueError, match=message):
        call("rtn", store)


def test_blocks_without_settings_are_refused(copy):
    store, file = copy
    settings = file.with_name("settings.json")
    settings.write_text("{")
    with pytest.raises(ValueError, match="is damaged: .*; delete the folder to begin"):
        call("rtn", store)
    settings.unlink()
    with pytest.raises(ValueError, match="has blocks but no settings.json"):
        call("rtn", store)
    assert not settings.exists()


def test_one_call_at_a_time(copy):
    pytest.importorskip("fcntl")
    store, _ = copy
    with store.locked(), pytest.raises(OSError, match="another call is writing there"):
        call("rtn", mbq.BlockStore(store.folder))
    with pytest.raises(ValueError, match=r"config\.grid=3, now it is 20"):
        call("rtn", store, config=mbq.BalanceConfig(weights=W3))
    with store.locked():  # let go after an error too
        pass


def test_settings_are_written_once(tmp_path, monkeypatch):
    """Also where the system has no locks: the first of two wins, the other is told."""
    one, other, write = mbq.BlockStore(tmp_path), mbq.BlockStore(tmp_path), []

    def late(file, content):
        if not write:
            write.append(file)
            other.begin({"bits": 4})
        write_atomically(file, content)

    monkeypatch.setattr(block_store, "write_atomically", late)
    with pytest.raises(ValueError, match="was begun with bits=4, now it is 3"):
        one.begin({"bits": 3})
    assert json.loads((tmp_path / "settings.json").read_text()) == {"bits": 4}
    assert [f.name for f in tmp_path.iterdir()] == ["settings.json"]


def test_damaged_settings_and_wrong_stores(tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps(["no", "settings"]))
    with pytest.raises(ValueError, match=r"settings\.json' is damaged"):
        call("rtn", mbq.BlockStore(tmp_path))
    with pytest.raises(TypeError, match="store must be a BlockStore, got '/tmp'"):
        call("rtn", "/tmp")
    assert repr(mbq.BlockStore("some/folder")) == "BlockStore('some/folder')"
    assert mbq.BlockStore(tmp_path / "nothing").finished == ()
