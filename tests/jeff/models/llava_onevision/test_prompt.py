"""Pictures and chats to inputs: the original's pixels and counts, and clear errors."""

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image
from support import golden_rule, llava_tiny

from jeff.models import chat
from jeff.models import llava_onevision as llava

TOKENS = {"<image>": 158, "<video>": 159}


class Words:
    """A tokenizer of words; those it does not know are one token."""

    def encode(self, text, add_special_tokens=True):
        for mark in ("<image>", "<video>", "<|im_end|>"):
            text = text.replace(mark, f" {mark} ")
        ids = [TOKENS.get(word, 1 + len(word) % 100) for word in text.split()]
        return type("Encoding", (), {"ids": ids})


@pytest.fixture(scope="module")
def config():
    return llava_tiny.load().config


@pytest.fixture(scope="module")
def processor(config):
    return llava.Processor(config=config, tokenizer=Words())


def picture(number, height, width):
    """The picture that the original was given."""
    noise = golden_rule.ints(f"picture_{number}", 500, (height, width, 3), 96)
    y, x = np.indices((height, width))
    ramp = (y * 159 // height, x * 159 // width, (y + x) * 159 // (height + width))
    return Image.fromarray((noise + np.stack(ramp, -1)).astype(np.uint8))


def plain(height, width):
    return Image.new("RGB", (width, height), (9, 9, 9))


@pytest.fixture(scope="module")
def original():
    return llava_tiny.preprocessed()


@pytest.fixture(scope="module")
def stored(original, config):
    """Pictures of odd sizes, and a model with tiles of the stored side."""
    meta = original["meta"]
    small = dataclasses.replace(
        config,
        vision=dataclasses.replace(config.vision, image_size=meta["side"]),
        pinpoints=tuple(map(tuple, meta["pinpoints"])),
    )
    sizes = enumerate(meta["picture_sizes"])
    return [picture(i, *size) for i, size in sizes], small


def test_pixels_are_the_originals_to_the_bit(original, stored):
    pictures, config = stored
    for i, one in enumerate(pictures):
        got = llava.picture_tiles([one], llava.PictureConfig(), config=config)
        want = original["pixels_single"][i]
        assert len(got) == llava.tile_count([one.size[::-1]], config=config) > 2
        np.testing.assert_array_equal(got, want[: len(got)])
        assert not want[len(got) :].any()
    got = llava.picture_tiles(pictures, llava.PictureConfig(), config=config)
    np.testing.assert_array_equal(got, original["pixels_multi"][:, 0])


def test_resizing_on_torch_differs_by_one_level_at_most(original):
    # The original's other backend resizes with torchvision; it is not what is here.
    for name in ("single", "multi"):
        assert np.abs(original[f"torchvision_levels_{name}"]).max() == 1


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (2000, 3000)])
def test_pictures_of_any_shape_have_the_features_the_processor_counts(config, size):
    ((index, weight),) = llava.picture_rows([size], config=config)
    side = config.vision.side
    rows, columns = (
        n // config.vision.image_size
        for n in llava.best_pinpoint(size, config.pinpoints)
    )
    high, wide = rows * side, columns * side
    if size[1] / size[0] > wide / high:
        high -= (high - int(round(size[0] * wide / size[1], 7))) // 2 * 2
    else:
        wide -= (wide - int(round(size[1] * high / size[0], 7))) // 2 * 2
    assert len(index) == side**2 + high * (wide + 1)
    np.testing.assert_allclose(weight.sum(1), 1.0, atol=1e-6)
    tiles = llava.picture_tiles([plain(*size)], llava.PictureConfig(), config=config)
    assert len(tiles) == 1 + rows * columns
    assert index.max() <= len(tiles) * side**2 and index.min() == 0


def test_published_sizes(config):
    # 27 x 27 patches, 6 x 6 tiles: 162 x 162 features shrink to those of 9 tiles.
    tower = dataclasses.replace(config.vision, image_size=384)
    large = dataclasses.replace(config, vision=tower, pinpoints=llava.PINPOINTS)
    ((index, _),) = llava.picture_rows([(2304, 2304)], config=large)
    assert len(index) == 729 + 81 * 82
    ((index, _),) = llava.picture_rows([(384, 384)], config=large)
    assert len(index) == 729 + 27 * 28
    several = llava.picture_rows([(384, 384)] * 2, config=large)
    assert [len(index) for index, _ in several] == [730, 730]
    assert math.isclose(several[1][0][0, 0], 730)


def test_prompts_are_padded_and_answers_labelled(config, processor):
    chats = [
        chat.question("what is it?", [plain(40, 60)]),
        chat.question("which one?", [plain(9, 9), plain(9, 5)]),
        chat.question("why?"),
    ]
    answers = ["a red cat", "neither", "because"]
    inputs, labels = llava.prepare(chats, processor, answers=answers, tiles=4)
    counts = (inputs["tokens"] == config.image_token).sum(1)
    rows = llava.picture_rows([(40, 60)], config=config)
    assert counts.tolist() == [len(rows[0][0]), 20, 0]
    assert inputs["pixel_values"].shape == (3, 4, 3, 42, 42)
    assert inputs["valid"][:, -1].all()
    answered = labels != -100
    assert answered.sum(1).tolist() == [4, 2, 2]  # with the end of the turn
    np.testing.assert_array_equal(labels[answered], inputs["tokens"][answered])
    masks = llava.masks(inputs, labels)
    np.testing.assert_array_equal(masks["language"], answered)
    assert masks["vision"].sum(1).tolist() == counts.tolist()
    right = llava.prepare(chats, processor, answers=answers, side="right")
    assert right.inputs["valid"][:, 0].all()
    assert right.inputs["pixel_values"].shape[1] == 3


def test_a_tokenizer_of_a_checkpoint_serves(config):
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<unk>": 0, "red": 5, "user": 6, "assistant": 7, **TOKENS, "<|im_end|>": 9}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<image>", "<|im_end|>"])
    processor = llava.Processor(config=config, tokenizer=tokenizer)
    pair = [plain(9, 9), plain(9, 9)]
    inputs, labels = llava.prepare(
        [chat.question("red", pair)], processor, answers=["red red"]
    )
    # the user's turn, two pictures, the question, the model's turn
    want = [0, *[158] * 20, 5, 9, 0, 5, 5, 9]
    assert inputs["tokens"][0].tolist() == want
    assert labels[0].tolist() == [-100] * 24 + [5, 5, 9]


def test_text_alone_has_no_pictures(processor):
    inputs, _ = llava.prepare([chat.question("why?")], processor)
    assert set(inputs) == {"tokens", "valid", "positions"}


@pytest.mark.parametrize(
    ("chats", "options", "error", "words"),
    [
        ([], {}, ValueError, "the prompt is empty"),
        (chat.question("why?"), {}, TypeError, "got a single one"),
        ([chat.question("")], {}, ValueError, r"chats\[0\]: the prompt is empty"),
        (
            [chat.question("why?"), chat.question("a <image>?", [plain(2, 2)])],
            {},
            ValueError,
            r"chats\[1\]: the prompt has 2 image tokens for 1 pictures",
        ),
        (
            [chat.question("why?", [np.zeros((4, 0, 3), np.uint8)])],
            {},
            ValueError,
            "the picture has 0 pixels: 4 high, 0 wide",
        ),
        ([chat.question("a <video>?")], {}, ValueError, "videos are not supported"),
        (
            [[{"role": "user", "content": [{"type": "video"}]}]],
            {},
            ValueError,
            "videos are not supported",
        ),
        (
            [chat.question("why?")],
            {"answers": []},
            ValueError,
            "as many answers, got 0",
        ),
        (
            [chat.question("why?")],
            {"answers": ["<image>"]},
            ValueError,
            "the answer has",
        ),
        ([chat.question("why?")], {"length": 2}, ValueError, "length must be at least"),
        (
            [chat.question("why?", [plain(40, 60)])],
            {"tiles": 2},
            ValueError,
            "tiles must be at least 3, got 2",
        ),
    ],
)
def test_bad_requests_are_told_before_any_work(
    processor, monkeypatch, chats, options, error, words
):
    def work(*_, **__):
        raise AssertionError("a picture was resized")

    monkeypatch.setattr("jeff.models.llava_onevision.prompt.picture_tiles", work)
    with pytest.raises(error, match=words):
        llava.prepare(chats, processor, **options)


def test_dropping_patches_needs_several_pictures(config):
    dropping = dataclasses.replace(config, drop_first=True)
    with pytest.raises(ValueError, match="'default' drops a patch of every tile"):
        llava.picture_rows([(40, 60)], config=dropping)


@pytest.mark.parametrize(
    ("tokens", "sizes", "words"),
    [
        ([[1, 158]], [[(40, 60)]], "sample 0 has 1 image tokens, its 1 pictures have"),
        ([[1, 158]], [[]], "has 1 image tokens, its 0 pictures have 0 features"),
        ([[1, 2]], [[], []], "sizes must have an entry for each of 1 samples, got 2"),
        ([[0, 0]], [[]], r"the prompt is empty: tokens\[0\] has no valid token"),
        ([[1, 160]], [[]], r"tokens must be in \[0, 160\), got 1 to 160"),
        ([[1, 159]], [[]], "video_token 159: videos are not supported"),
        ([1, 2], [[]], "tokens and valid must have one shape"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(config, tokens, sizes, words):
    tokens = np.array(tokens)
    with pytest.raises(ValueError, match=words):
        llava.model_inputs(tokens, tokens > 0, [], sizes, config=config)


def test_tiles_that_do_not_fit_are_refused(config):
    tokens = np.array([[158] * 20])
    sizes, pixels = [[(9, 9), (9, 9)]], np.zeros((1, 1, 3, 42, 42))
    for wrong, words in (
        (pixels, r"pixels\[0\] must be 2 tiles of shape \(3, 42, 42\), got shape \(1,"),
        (pixels[:, :, :, 1:], r"got shape \(1, 3, 41, 42\)"),
        ([], "pixels must have an entry for each of 1 samples, got 0"),
    ):
        with pytest.raises(ValueError, match=words):
            llava.model_inputs(tokens, tokens > 0, wrong, sizes, config=config)


def test_masks_fit_the_labels(config, processor):
    text = llava.prepare([chat.question("why?")], processor, answers=["because"])
    assert not llava.masks(text.inputs, text.labels)["vision"].any()
    some = llava.prepare([chat.question("why?", [plain(9, 9)])], processor)
    assert not llava.masks(some.inputs, some.labels)["language"].any()
    with pytest.raises(ValueError, match="labels must be -100 at image tokens"):
        llava.masks(some.inputs, some.inputs["tokens"])
    with pytest.raises(ValueError, match="labels must have shape"):
        llava.masks(some.inputs, some.labels[:, 1:])


def test_settings_come_from_the_checkpoints_files(tmp_path, config):
    from jeff.io import write_atomically

    read = llava.read_processor(tmp_path, config=config, tokenizer=Words())
    assert read.pictures == llava.PictureConfig()
    nested = '{"image_processor": {"image_mean": [0.5, 0.5, 0.5], "resample": 2}}'
    write_atomically(tmp_path / "processor_config.json", nested)
    write_atomically(tmp_path / "chat_template.jinja", "{{ messages[0].content }}")
    read = llava.read_processor(tmp_path, config=config, tokenizer=Words())
    assert read.pictures == llava.PictureConfig(mean=(0.5,) * 3, resample=2)
    assert read.form.template == "{{ messages[0].content }}"
    other = '{"do_normalize": false, "size": {"shortest_edge": 384}}'
    write_atomically(tmp_path / "preprocessor_config.json", other)
    with pytest.raises(ValueError, match="do_normalize = False, size = 384x384"):
        llava.read_processor(tmp_path, config=config, tokenizer=Words())
