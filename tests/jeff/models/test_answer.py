"""Answers: prompts of words, of tokens and of pictures become a model's inputs."""

import dataclasses

import numpy as np
import pytest
from support import tiny_checkpoints

from jeff.models import registry
from jeff.models.answer import model_rules, prompt_inputs
from jeff.quantize import fused


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "qwen"
    return registry.load(tiny_checkpoints.checkpoint(folder, "qwen2_vl"))


def test_words_are_asked_in_the_template_and_raw_ones_are_not(model):
    asked = prompt_inputs(model, "what is it")["tokens"][0]
    raw = prompt_inputs(model, "what is it", raw=True)
    np.testing.assert_array_equal(raw["tokens"], [[10, 11, 12]])
    np.testing.assert_array_equal(raw["positions"], [[[0, 1, 2]]] * 3)
    assert len(asked) == 8 and asked[0] == 1  # <|im_start|>
    tokens = prompt_inputs(model, [10, 11, 12])
    np.testing.assert_array_equal(tokens["tokens"], raw["tokens"])


def test_what_is_no_prompt_is_named(model):
    picture = np.zeros((60, 60, 3), np.uint8)
    mute = dataclasses.replace(model, tokenizer=None, notes=("no tokenizer: gone",))
    for asked, args, message in [
        (model, ("",), "the prompt is empty"),
        (model, ([],), "it has no token"),
        (model, ("what \udcff",), r"lone surrogate, '\\udcff', at character 5"),
        (model, ([160],), r"tokens must be in \[0, 160\), got 160 to 160"),
        (model, ([1], [picture]), "pictures need a prompt of words"),
        (mute, ("what",), r"a prompt of words needs a tokenizer \(no tokenizer: gone"),
        (
            dataclasses.replace(model, architecture="qwen2"),
            ("what", [picture]),
            "a qwen2 model reads no pictures",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            prompt_inputs(asked, *args)


def test_a_model_for_quantized_activations_runs_with_products_of_integers(model):
    assert model_rules(model) == (fused,)
    (rule,) = model_rules(dataclasses.replace(model, activation_bits=8))
    assert rule is not fused
