"""Orbax checkpoints: what its checkpointers wrote is read, or one error."""

import shutil

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as orbax
import pytest

from jeff.io import read_orbax
from jeff.quantize import QTensor

PARAMS = {
    "up": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)},
    "layers": [{"scale": jnp.ones(2, jnp.bfloat16)}, {"scale": jnp.zeros(2)}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of `StandardCheckpointer`."""
    folder = tmp_path_factory.mktemp("orbax") / "params"
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, PARAMS)
    return folder


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert isinstance(a, jax.Array) and a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_arrays_come_back_with_and_without_like(folder, tmp_path):
    assert_same(read_orbax(folder), PARAMS)
    assert_same(read_orbax(folder, jax.eval_shape(lambda: PARAMS)), PARAMS)
    orbax.PyTreeCheckpointer().save(tmp_path / "tree", PARAMS)
    assert_same(read_orbax(tmp_path / "tree"), PARAMS)


def test_the_last_step_of_a_manager_is_read(folder, tmp_path):
    for step in ("3", "12", "12.orbax-checkpoint-tmp-1"):
        shutil.copytree(folder, tmp_path / step / "default")
    with orbax.CheckpointManager(tmp_path / "manager") as manager:
        manager.save(7, args=orbax.args.StandardSave({"last": jnp.ones(1)}))
        manager.wait_until_finished()
    shutil.copytree(tmp_path / "manager" / "7", tmp_path / "13")
    assert list(read_orbax(tmp_path)) == ["last"]
    shutil.rmtree(tmp_path / "13")
    assert_same(read_orbax(tmp_path), PARAMS)
    assert_same(read_orbax(tmp_path / "3"), PARAMS)
    shutil.copytree(folder, tmp_path / "12" / "ema")
    with pytest.raises(
        ValueError, match="several trees; name one of: .*default, .*ema"
    ):
        read_orbax(tmp_path)


def test_states_of_nnx_lose_their_wrappers(tmp_path):
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
    pure = nnx.to_pure_dict(state)
    assert_same(read_orbax(tmp_path / "state"), pure)
    assert_same(read_orbax(tmp_path / "state", pure), pure)
    back = read_orbax(tmp_path / "state", nnx.eval_shape(lambda: state))
    nnx.update(model, back)
    np.testing.assert_array_equal(model.kernel[...], pure["kernel"])


def test_quantized_weights_are_saved_and_restored(tmp_path):
    def weight(zero):
        return QTensor(
            packed=jnp.arange(48, dtype=jnp.uint32).reshape(6, 8),
            scale=jnp.ones((2, 8), jnp.float16),
            zero=zero,
            bits=3,
            stride=2,
            contract=(-2,),
            pad=0,
            dense_dtype=jnp.dtype(jnp.float32),
        )

    params = {"a": weight(None), "b": [weight(jnp.ones((2, 8), jnp.uint8))]}
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "q", params)
    like = jax.eval_shape(lambda: params)
    got = read_orbax(tmp_path / "q", like)
    assert_same(got, params)
    assert got["a"].bits == 3 and got["b"][0].shape == (64, 8)
    like["a"] = like["b"][0]
    with pytest.raises(ValueError, match=r"differs from like:\n  missing: a.zero"):
        read_orbax(tmp_path / "q", like)


def test_every_difference_is_named(folder):
    like = jax.eval_shape(lambda: PARAMS)
    like["down"] = jax.ShapeDtypeStruct((2,), jnp.float32)
    like["up"]["kernel"] = jax.ShapeDtypeStruct((3, 3), jnp.float32)
    like["layers"][0]["scale"] = jax.ShapeDtypeStruct((2,), jnp.float32)
    del like["layers"][1]
    with pytest.raises(ValueError) as caught:
        read_orbax(folder, like)
    assert str(caught.value).splitlines()[1:] == [
        "  missing: down",
        "  extra: layers.1.scale",
        "  layers.0.scale is bfloat16[2], expected float32[2]",
        "  up.kernel is float32[2, 3], expected float32[3, 3]",
    ]


def test_what_is_no_checkpoint_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        read_orbax(tmp_path / "nowhere")
    (tmp_path / "5").mkdir()
    with pytest.raises(ValueError, match="5 has no tree of arrays"):
        read_orbax(tmp_path)
    with pytest.raises(ValueError, match="is no orbax checkpoint"):
        read_orbax(tmp_path / "5")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    metadata = (broken / "_METADATA").read_bytes()
    (broken / "_METADATA").write_bytes(metadata[: len(metadata) // 2])
    with pytest.raises(
        ValueError, match="broken: the checkpoint is incomplete or corr"
    ):
        read_orbax(broken)
