"""Chats with pictures as inputs, end to end, and requests that cannot be served."""

import dataclasses
import json

import numpy as np
import pytest
from support import qwen2_vl_tiny

from jeff.models import chat, qwen2_vl

IMAGE, START, END = 158, 156, 157
TEXT = [
    "<|im_start|>",
    "<|im_end|>",
    "user",
    "assistant",
    "what",
    "is",
    "it",
    "a",
    "cat",
]
SPECIAL = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


@pytest.fixture(scope="module")
def tokenizer():
    """Words with the fixture's numbers for the special tokens."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: i + 1 for i, word in enumerate([*TEXT, "?"])} | {"[unknown]": 0}
    words |= dict(zip(SPECIAL, range(START, 160), strict=True))
    model = tokenizers.models.WordLevel(words, unk_token="[unknown]")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens([*SPECIAL, *TEXT[:2]])
    return made


@pytest.fixture(scope="module")
def processor(tokenizer, tmp_path_factory):
    """Read from a folder, with bounds that keep pictures tiny."""
    folder = tmp_path_factory.mktemp("qwen2_vl")
    settings = {"size": {"shortest_edge": 784, "longest_edge": 4 * 784}}
    nested = {"processor_class": "Qwen2VLProcessor", "image_processor": settings}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    return qwen2_vl.read_processor(
        folder, config=qwen2_vl_tiny.load().config, tokenizer=tokenizer
    )


def picture(rows, columns):
    return np.zeros((rows, columns, 3), np.uint8)


def ask(*pictures, text="what is it ?"):
    return chat.question(text, pictures)


def test_a_batch_of_calibration_samples(processor):
    """56 x 28 pixels are two tokens; the answer and the end of its turn are labels."""
    chats = [ask(picture(56, 28)), ask(picture(28, 28), picture(28, 28))]
    got = qwen2_vl.prepare(chats, processor, answers=["a cat", "cat"], patches=20)
    tokens, valid = got.inputs["tokens"], got.inputs["valid"]
    assert not valid[0, 0] and valid[1].all()  # padded on the left
    words = tokens[0][valid[0]]
    assert words.tolist() == [
        1, 3, START, IMAGE, IMAGE, END, 5, 6, 7, 10, 2, 1, 4, 8, 9, 2
    ]  # fmt: skip
    np.testing.assert_array_equal(got.labels[0][got.labels[0] >= 0], [8, 9, 2])
    np.testing.assert_array_equal(got.labels[1][got.labels[1] >= 0], [9, 2])
    masks = qwen2_vl.masks(got.inputs, got.labels)
    np.testing.assert_array_equal(masks["vision"], tokens == IMAGE)
    assert masks["language"].sum() == 5
    assert got.inputs["patches"].shape == (20, 1176)
    segment = got.inputs["patch_segment"]
    assert segment.tolist() == [0] * 8 + [1] * 4 + [2] * 4 + [-1] * 4
    black = -np.array(processor.pictures.mean) / processor.pictures.std
    np.testing.assert_allclose(
        got.inputs["patches"][:16].reshape(16, 3, 2, 196),
        np.broadcast_to(black[None, :, None, None], (16, 3, 2, 196)),
        rtol=1e-5,
    )
    assert not got.inputs["patches"][16:].any()


def test_a_question_is_the_start_of_its_calibration_sample(processor):
    chats = [ask(picture(28, 28))]
    prompt = qwen2_vl.prepare(chats, processor)
    sample = qwen2_vl.prepare(chats, processor, answers=["a cat"], side="right")
    count = prompt.inputs["tokens"].shape[1]
    for name in ("tokens", "positions", "feature_index"):
        np.testing.assert_array_equal(
            sample.inputs[name][..., :count], prompt.inputs[name], err_msg=name
        )
    assert (prompt.labels == -100).all()


def test_text_alone_needs_no_picture(processor):
    got = qwen2_vl.prepare([ask(text="what is it")], processor)
    assert sorted(got.inputs) == ["positions", "tokens", "valid"]


VIDEO = [{"role": "user", "content": [{"type": "video", "video": "x.mp4"}]}]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([ask(), ask(picture(0, 5))], r"chats\[1\]: the picture has 0 pixels"),
        ([ask(picture(1, 5000))], "1 x 5000 pixels is too narrow"),
        ([ask(text=" ")], r"chats\[0\]: the prompt is empty"),
        ([], "the prompt is empty"),
        ([[]], "the prompt is empty"),
        ([VIDEO], "videos are not supported"),
        ([ask(text="<|video_pad|>")], "videos are not supported"),
        ([ask(text="<|image_pad|>")], "1 image tokens for 0 pictures"),
    ],
)
def test_requests_that_cannot_be_served(processor, given, words):
    with pytest.raises(ValueError, match=words):
        qwen2_vl.prepare(given, processor)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"answers": []}, "1 chats need as many answers, got 0"),
        ({"answers": [" "]}, "the answer is empty"),
        ({"answers": ["<|image_pad|>"]}, "the answer has tokens of pictures"),
        ({"length": 3}, "length must be at least"),
        ({"patches": 2}, "patches must be a multiple of 4 and at least 4"),
        ({"side": "top"}, "side must be"),
    ],
)
def test_options_that_do_not_fit(processor, options, words):
    with pytest.raises(ValueError, match=words):
        qwen2_vl.prepare([ask(picture(28, 28))], processor, **options)


def test_what_is_of_another_kind(processor):
    with pytest.raises(TypeError, match="a list of chats, got a single one"):
        qwen2_vl.prepare(ask(), processor)
    with pytest.raises(TypeError, match=r"chats\[0\]: "):
        qwen2_vl.prepare([ask("cat.png")], processor)


def test_pictures_must_have_the_models_patches(processor):
    other = qwen2_vl.PictureConfig(patch=16)
    with pytest.raises(ValueError, match=r"pictures\.patch must be 14, got 16"):
        dataclasses.replace(processor, pictures=other)
