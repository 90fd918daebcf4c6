"""Tables between checkpoint names and params: all that is wrong is named at once."""

import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_decoder
from support.tiny_decoder import CONFIG

from jeff.models import tensors
from jeff.quantize import QuantConfig, quantize

TABLE = tensors.decoder_tensors(CONFIG, prefix="lm.")


class Lazy(dict):
    """Tensors that tell their shapes and count how often they are read."""

    def __init__(self, arrays):
        super().__init__(arrays)
        self.reads = 0

    def __getitem__(self, name):
        self.reads += 1
        return super().__getitem__(name)

    def shape(self, name):
        return super().__getitem__(name).shape


def named():
    rng = np.random.default_rng(0)
    return {
        row.name: rng.standard_normal(row.shape).astype(np.float32) for row in TABLE
    }


def test_round_trip():
    arrays = Lazy(named())
    params = tensors.to_params(TABLE, arrays)
    assert arrays.reads == len(TABLE)  # shapes are asked for, not read
    kernel = params["decoder"]["layers"][1]["attention"]["key"]["kernel"]
    name = "lm.model.layers.1.self_attn.k_proj.weight"
    np.testing.assert_array_equal(kernel, arrays[name].T)
    again = tensors.to_named(TABLE, params)
    assert list(again) == [row.name for row in TABLE]
    for row in TABLE:
        assert again[row.name].shape == row.shape
        np.testing.assert_array_equal(again[row.name], arrays[row.name])
    stacked = {"decoder": tiny_decoder.stack_layers(params["decoder"])}
    np.testing.assert_array_equal(tensors.to_named(TABLE, stacked)[name], arrays[name])


def test_stored_weights_are_taken_as_they_are():
    arrays = named()
    name = "lm.model.layers.0.mlp.down_proj.weight"
    packed = quantize(jnp.asarray(arrays[name].T), QuantConfig(bits=4, group_size=32))
    arrays[name] = packed
    params = tensors.to_params(TABLE, arrays, dtype=jnp.bfloat16)
    down = params["decoder"]["layers"][0]["mlp"]["down"]["kernel"]
    assert down.shape == (64, 32)
    assert down.dtype == jnp.bfloat16 == params["decoder"]["norm"].dtype
    assert tensors.to_named(TABLE, params)[name] is down
    arrays[name] = down
    with pytest.raises(ValueError, match=f"{name} decodes to bfloat16; it cannot be"):
        tensors.to_params(TABLE, arrays, dtype=jnp.float32)


@pytest.mark.parametrize("kind", [dict, Lazy])
def test_everything_that_is_wrong_is_named(kind):
    arrays = named()
    missing = ["lm.model.norm.weight", "lm.model.layers.1.mlp.up_proj.weight"]
    for name in missing:
        del arrays[name]
    arrays |= {"visual.b": np.ones(1), "visual.a": np.ones(1)}
    arrays["lm.lm_head.weight"] = np.ones((32, 48), np.float32)  # the wrong way round
    arrays["lm.model.layers.0.input_layernorm.weight"] = np.ones(())
    with pytest.raises(ValueError) as caught:
        tensors.to_params(TABLE, kind(arrays))
    assert str(caught.value).splitlines() == [
        "the checkpoint does not fit the architecture:",
        f"  missing: {missing[1]}, {missing[0]}",
        "  unknown: visual.a, visual.b",
        "  misshapen: lm.model.layers.0.input_layernorm.weight is (), expected 32, "
        "lm.lm_head.weight is 32x48, expected 48x32",
    ]


def test_params_without_a_leaf():
    with pytest.raises(ValueError, match="params has no leaf 'decoder.embed'"):
        tensors.to_named(TABLE, {"decoder": {}})
    short = tensors.to_params(TABLE, named())
    short["decoder"]["layers"] = short["decoder"]["layers"][:1]
    with pytest.raises(ValueError, match=r"no leaf 'decoder.layers.1.attention_norm'"):
        tensors.to_named(TABLE, short)


def test_renaming():
    arrays = Lazy({"old.a": np.ones(2), "new.a": np.ones(2), "inv_freq": np.ones(1)})

    def rename(name):
        return None if name == "inv_freq" else name.removeprefix("old.")

    view = tensors.renamed(arrays, rename)
    assert set(view) == {"a", "new.a"}
    assert view.shape("a") == (2,) and arrays.reads == 0
    assert not hasattr(tensors.renamed(dict(arrays), rename), "shape")
    with pytest.raises(ValueError, match="old.a and new.a .* are both called a"):
        tensors.renamed(arrays, lambda name: name.split(".")[-1])
