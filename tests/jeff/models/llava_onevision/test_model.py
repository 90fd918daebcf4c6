"""LLaVA-OneVision against the original program, and as an ordinary JAX function."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import llava_tiny, pages, tiny_decoder

from jeff.models import decoder, generation, tensors
from jeff.models import llava_onevision as llava
from jeff.models.decoder import block, rotary
from jeff.models.vision import siglip

ATOL = 5e-5  # the original ran on torch: sums in another order


@pytest.fixture(scope="module")
def case():
    return llava_tiny.load()


@functools.partial(jax.jit, static_argnames="config")
def everything(params, inputs, *, config):
    """What the fixture stores, in one compilation: the model block by block."""
    pixels = inputs["pixel_values"]
    states = siglip.hidden_states(
        params["vision"],
        pixels.reshape(-1, *pixels.shape[2:]),
        config=config.vision,
        layers=(1, 2),
    )
    seen = {"vision_block_out": jnp.stack(states).reshape(2, *pixels.shape[:2], 9, 32)}
    sequence = llava.embed(params, inputs, config=config)
    text = config.decoder
    tables = rotary.rotary_tables(
        sequence.positions, head_dim=text.head_dim, base=text.rope_base
    )
    causal = jnp.tril(jnp.ones((sequence.x.shape[1],) * 2, bool))
    attend = functools.partial(block.attend, allowed=causal & sequence.valid[:, None])
    outputs = [sequence.x]
    for layer in params["decoder"]["layers"]:
        outputs.append(block.block(layer, outputs[-1], tables, attend, config=text))
    seen["block_out"] = jnp.stack(outputs[1:])
    last = block.rms_norm(outputs[-1], params["decoder"]["norm"], eps=text.norm_eps)
    seen["hidden_states"] = jnp.stack([*outputs[:-1], last])
    seen["logits"] = decoder.apply(params["decoder"], sequence, config=text)
    return seen


@pytest.fixture(scope="module")
def run(case):
    """Inputs to everything that is compared; compiled once."""
    return lambda inputs: everything(case.params, inputs, config=case.config)


@pytest.fixture(scope="module")
def seen(case, run):
    return run(case.inputs)


def padded(case, tokens, sizes, **changes):
    """Inputs of the shape of the fixture's, so that nothing is compiled again."""
    slots = case.inputs["tokens"].shape[1]
    tokens = np.array([row + [0] * (slots - len(row)) for row in tokens])
    config = dataclasses.replace(case.config, **changes)
    pixels = case.stored["pixel_values"]
    return llava.model_inputs(tokens, tokens > 0, pixels, sizes, config=config, tiles=5)


def test_tower_is_the_originals(case, seen):
    got = np.asarray(seen["vision_block_out"])
    counts = case.stored["num_patches"]
    got = np.concatenate([got[:, i, :n] for i, n in enumerate(counts)], axis=1)
    np.testing.assert_allclose(got, case.stored["vision_block_out"], atol=ATOL)


def test_features_at_image_tokens_are_the_originals(case, seen):
    got = np.asarray(seen["hidden_states"])[0][
        case.inputs["feature_weight"][..., 0] > 0
    ]
    np.testing.assert_allclose(got, case.stored["image_features"], atol=ATOL)


@pytest.mark.parametrize("name", ["block_out", "hidden_states", "logits"])
def test_text_outputs_are_the_originals_at_tokens(case, seen, name):
    valid = case.inputs["valid"]
    got, want = np.asarray(seen[name]), case.stored[name]
    np.testing.assert_allclose(got[..., valid, :], want[..., valid, :], atol=ATOL)
    assert np.isfinite(got).all()


def test_loss_is_the_originals(case, seen):
    loss = case.loss(seen["logits"], case.stored["labels"])
    np.testing.assert_allclose(loss, case.stored["loss"], atol=ATOL)


@pytest.mark.parametrize("tag", ["a_max1", "a_max2", "b_max1", "b_max2"])
def test_features_scaled_down_are_the_originals(case, run, tag):
    stored = llava_tiny.preprocessed()
    sizes = [[tuple(size)] for size in stored["meta"]["feature_sizes"][tag[0]]]
    tokens = [[1] + [158] * n + [2] for n in stored[f"{tag}_lens"]]
    inputs = padded(case, tokens, sizes, max_tiles=int(tag[-1]))
    got = np.asarray(run(inputs)["hidden_states"])[0][inputs["tokens"] == 158]
    np.testing.assert_allclose(got, stored[tag], atol=1e-5)


def test_several_pictures_are_seen_whole_only_as_in_the_original(case, run):
    stored = llava_tiny.preprocessed()
    tokens = stored["multi_tokens"][0].tolist()
    sizes = [tuple(size) for size in case.stored["image_sizes"].tolist()]
    pixels = case.stored["pixel_values"]
    inputs = padded(case, [tokens, [1]], [sizes, []])
    inputs["pixel_values"][0, :2] = pixels[:, 0]
    inputs["pixel_values"][0, 2:] = 0
    got = run(inputs)
    image = np.asarray(got["hidden_states"])[0][inputs["tokens"] == 158]
    np.testing.assert_allclose(image, stored["multi_features"], atol=1e-5)
    np.testing.assert_allclose(
        got["logits"][0, 22:25], stored["multi_logits"], atol=ATOL
    )


def test_earlier_layer_without_first_patch_is_the_originals(case):
    stored = llava_tiny.preprocessed()
    config = dataclasses.replace(case.config, feature_layers=(-2,), drop_first=True)
    pixels = np.swapaxes(case.stored["pixel_values"][:, :1], 0, 1)
    table = jax.jit(functools.partial(llava.features, config=config))
    table = np.asarray(table(case.params, pixels))[0]
    rows = llava.picture_rows([(40, 60), (84, 84)], config=config)
    got = np.concatenate([table[index[:, 0]] for index, _ in rows])
    want = stored["multi_features_layer-2_default"]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_padding_may_stand_on_either_side(case, run, seen):
    moved, labels = dict(case.inputs), case.inputs["valid"]
    shifts = (~labels).sum(1)
    for name in ("tokens", "valid", "positions", "feature_index", "feature_weight"):
        rows = zip(case.inputs[name], shifts, strict=True)
        moved[name] = np.stack([np.roll(row, n, axis=0) for row, n in rows])
    got, want = np.asarray(run(moved)["logits"]), np.asarray(seen["logits"])
    np.testing.assert_allclose(
        got[moved["valid"]], want[case.inputs["valid"]], atol=ATOL
    )


def test_one_compilation_serves_all_pictures(case, run):
    run(case.inputs)
    before = everything._cache_size()
    run(padded(case, [[1, *[158] * 13], [1, *[158] * 13]], [[(1, 5000)], [(1, 900)]]))
    assert everything._cache_size() == before == 1


def test_mapped_samples_and_scanned_layers_are_the_same_model(case, seen):
    params = {
        **case.params,
        "vision": decoder.stack_layers(case.params["vision"]),
        "decoder": decoder.stack_layers(case.params["decoder"]),
    }

    def one(sample):
        return case.apply(params, jax.tree.map(lambda a: a[None], sample))[0]

    got = np.asarray(jax.jit(jax.vmap(one))(case.inputs))
    np.testing.assert_allclose(got, seen["logits"], atol=ATOL)


def test_greedy_tokens_are_the_originals(case, seen):
    slots = int(case.stored["attention_mask"][0].sum())
    leaves = (case.inputs[name][:1, :slots] for name in ("positions", "valid"))
    sequence = decoder.Sequence(seen["hidden_states"][0, :1, :slots], *leaves)
    params = tiny_decoder.stack_layers(case.params["decoder"])
    got = generation.generate(
        params, sequence, config=case.config.decoder, max_new_tokens=8
    )
    assert got.tokens[0].tolist() == case.stored["greedy8_sample0"].tolist()


def test_params_go_back_to_the_checkpoints_tensors(case):
    table = llava.tensor_table(case.config)
    named = tensors.to_named(table, case.params)
    again = tensors.to_params(table, named)
    jax.tree.map(np.testing.assert_array_equal, again, case.params)


@pytest.mark.parametrize(
    "spell",
    [
        lambda name: name,
        lambda name: name.replace("vision_tower.", "vision_tower.vision_model."),
        lambda name: (
            "lm_head.weight"
            if "lm_head" in name
            else "model." + name.replace("language_model.model.", "language_model.")
        ),
    ],
)
def test_names_of_all_versions_are_known(case, spell):
    names = [row.name for row in llava.tensor_table(case.config)]
    assert [llava.rename(spell(name)) for name in names] == names


def test_what_nothing_reads_is_left_out():
    assert llava.rename("vision_tower.vision_model.head.probe") is None


def test_random_params_have_the_checkpoints_shapes(case):
    made = jax.eval_shape(lambda k: llava.init(k, case.config), jax.random.key(0))
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, case.params)


def test_text_alone_needs_no_pictures(case):
    tokens = np.array([[3, 4]])
    inputs = llava.model_inputs(tokens, tokens > 0, [], [[]], config=case.config)
    assert set(inputs) == {"tokens", "valid", "positions"}
    assert jax.eval_shape(case.apply, case.params, inputs).shape == (1, 2, 160)


def test_absent_inputs_are_named(case):
    inputs = {"tokens": case.inputs["tokens"], "feature_index": 0}
    with pytest.raises(ValueError, match="lack valid, positions, pixel_values, feat"):
        llava.embed(case.params, inputs, config=case.config)


@pages.in_checkout
def test_the_code_of_the_page_prints_what_it_says(capsys):
    text = (pages.ROOT / "docs" / "models.md").read_text()
    section = text.split("## LLaVA-OneVision\n")[1]
    code, said = re.findall(r"```(?:python|text)\n(.*?)```", section, re.DOTALL)[:2]
    exec(compile(code, "docs/models.md", "exec"), {})
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "llava_next"}, "model_type must be 'llava_onevision'"),
        ({"text_config": {"model_type": "llama"}}, "text_config.model_type"),
        ({"vision_config": {"model_type": "clip_vision_model"}}, "vision_config.model"),
        ({"vision_aspect_ratio": "square"}, "anyres_max_N.*square"),
        ({"vision_feature_select_strategy": "cls"}, "'full' or 'default'"),
        ({"vision_feature_layer": [3, -1]}, "feature_layers"),
        ({"image_grid_pinpoints": [[42, 50]]}, r"multiples.*42.*\(42, 50\)"),
        ({"image_token_index": 160}, "image_token must be in the vocabulary"),
        ({"projector_hidden_act": "relu"}, "projector_hidden_act"),
        ({"text_config": {"hidden_size": None}}, "hidden_size"),
        ({"text_config": {"hidden_size": "64"}}, "hidden_size must be an int, .*'64'"),
        ({"text_config": "x"}, "text_config must be an object, got 'x'"),
        ({"vision_config": {"num_attention_heads": None}}, "lacks num_attention_heads"),
        (
            {"vision_config": {"patch_size": 1.5}},
            r"vision_config.patch_size .* got 1\.5",
        ),
        ({"vision_config": "x"}, "vision_config must be an object, got 'x'"),
        ({"image_grid_pinpoints": [[1]]}, r"a list of pairs of ints, got \[\[1\]\]"),
        ({"vision_feature_layer": "last"}, "an int or a list of ints, got 'last'"),
    ],
)
def test_other_models_are_refused(change, words):
    from jeff.io import checkpoint

    config = checkpoint.read_json(llava_tiny.FOLDER / "config.json")
    for name, value in change.items():
        old = config.get(name)
        config[name] = {**old, **value} if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=words):
        llava.config_from_json(config)
