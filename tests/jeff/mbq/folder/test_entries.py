"""Calibration folders: what is in them becomes the inputs a model would get."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from support import tiny_checkpoints

from jeff.mbq import check_batches
from jeff.mbq.folder import entries as entries_module
from jeff.mbq.folder.entries import draw, read_entries, read_samples
from jeff.mbq.folder.job import next_token_loss
from jeff.mbq.folder.picture_samples import samples_of
from jeff.mbq.folder.samples import Samples
from jeff.models import registry

MODELS = ("llava_onevision", "qwen2_vl")


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / request.param
    return registry.load(tiny_checkpoints.checkpoint(folder, request.param))


def read(folder, model):
    return read_samples(read_entries(folder), samples_of(model))


def test_rows_of_arrays_become_the_inputs_of_the_model(model, tmp_path):
    rows = tiny_checkpoints.arrays(tmp_path / "rows", model.architecture)
    stored = np.load(rows / "rows.npz")
    valid = stored["attention_mask"] > 0
    samples = read(rows, model)
    maker = samples_of(model)
    batch = maker.batches(samples, 2)[0]
    (inputs,), masks, labels = batch.inputs, batch.masks, batch.targets
    sizes = {"llava_onevision": ("image_sizes", lambda s: [[tuple(x)] for x in s]),
             "qwen2_vl": ("image_grid_thw", np.asarray)}  # fmt: skip
    name, form = sizes[model.architecture]
    module = registry.architecture(model.architecture)
    expected = module.model_inputs(
        stored["input_ids"], valid, stored["pixel_values"], form(stored[name]),
        config=model.config,
    )  # fmt: skip
    assert set(inputs) == set(expected)
    for name, array in inputs.items():
        if array.shape[-2:] == valid.shape:  # padded on the right now
            for i in range(2):
                want = expected[name][..., i, :][..., valid[i]]
                got = array[..., i, : valid[i].sum()]
                np.testing.assert_array_equal(got, want)
        elif "feature" not in name:
            np.testing.assert_array_equal(array, expected[name])
    answers = [row[at] for row, at in zip(stored["labels"], valid, strict=True)]
    for i, row in enumerate(answers):
        np.testing.assert_array_equal(labels[i, : len(row)], row)
        assert (labels[i, len(row) :] == -100).all()
    np.testing.assert_array_equal(masks["language"], labels != -100)
    image = (inputs["tokens"] == model.config.image_token) & inputs["valid"]
    np.testing.assert_array_equal(masks["vision"], image)


def test_batches_of_one_have_equal_shapes(model, tmp_path):
    rows = tiny_checkpoints.arrays(tmp_path / "rows", model.architecture)
    (tmp_path / "rows" / "b.jsonl").write_text('{"text": "what is it"}\n')
    samples = read(rows, model)
    text = samples[0]  # b.jsonl comes before rows.npz
    assert text.pixels is None and text.tokens.shape == (3,)
    np.testing.assert_array_equal(text.labels, [-100, *text.tokens[1:]])
    batches = samples_of(model).batches(samples, 1)
    shapes = [{n: a.shape for n, a in b.inputs[0].items()} for b in batches]
    assert len(batches) == 3 and shapes[0] == shapes[1] == shapes[2]
    assert [int(b.masks["vision"].sum()) > 0 for b in batches] == [False, True, True]


def test_lines_with_pictures_are_asked_in_the_template(model, tmp_path):
    pairs = tiny_checkpoints.pictures(tmp_path / "pairs")
    line = {"prompt": "what is it ?", "image": ["red.png", "blue.png"]}
    (pairs / "z.jsonl").write_text(json.dumps(line) + "\n")
    first, second, both = read(pairs, model)
    red, end = 10 + tiny_checkpoints.WORDS.index("red"), 2  # <|im_end|>
    answer = first.labels[first.labels != -100].tolist()
    assert answer[1] == red and answer[3] == end
    assert (second.labels != first.labels).sum() == 1  # blue, not red
    assert (both.labels == -100).all() and len(both.sizes) == 2
    # LLaVA-OneVision gives each of several pictures one tile.
    llava = model.architecture == "llava_onevision"
    one, other, pixels = (sample.pixels() for sample in (first, second, both))
    assert len(pixels) == (1 + 1 if llava else len(one) + len(other))
    module = registry.architecture(model.architecture)
    samples = samples_of(model)
    (batch,) = samples.batches([first], 1)
    assert set(batch.inputs[0]) >= {"tokens", "valid", "positions"}
    assert module.masks(batch.inputs[0], batch.targets).keys() == batch.masks.keys()


def test_several_pictures_in_one_row_of_arrays(model, tmp_path):
    pairs = tiny_checkpoints.pictures(tmp_path / "pairs")
    line = {"prompt": "what ?", "answer": "a", "image": ["red.png", "blue.png"]}
    (pairs / "pairs.jsonl").write_text(json.dumps(line) + "\n")
    (both,) = read(pairs, model)
    llava = model.architecture == "llava_onevision"
    pixels = made = both.pixels()
    if llava:  # as a processor pads them
        pixels = np.zeros((2, 5, *made.shape[1:]), np.float32)
        pixels[:, 0] = made
    rows = tmp_path / "rows"
    rows.mkdir()
    np.savez(
        rows / "a.npz", input_ids=both.tokens[None], labels=both.labels[None],
        pixel_values=pixels,
        **{"image_sizes" if llava else "image_grid_thw": np.array(both.sizes)},
    )  # fmt: skip
    (again,) = read(rows, model)
    np.testing.assert_array_equal(again.pixels(), made)
    for got, want in zip(again, both, strict=True):
        if not callable(want):
            np.testing.assert_array_equal(got, want)


def test_arrays_that_do_not_fit_are_named(model, tmp_path):
    rows = tiny_checkpoints.arrays(tmp_path / "rows", model.architecture)
    file = rows / "rows.npz"
    stored = dict(np.load(file))
    pictures = "image_sizes" if "image_sizes" in stored else "image_grid_thw"
    for changed, message in [
        ({"labels": stored["labels"][:1]}, r"rows.npz: labels has shape \(1,"),
        ({"input_ids": stored["input_ids"][0]}, "input_ids must have 2 axes"),
        ({"attention_mask": 0 * stored["attention_mask"]}, "a row without a token"),
        ({pictures: stored[pictures][:1]}, "rows.npz: .*pixel_values"),
        ({"input_ids": 0 * stored["input_ids"]}, "2 pictures, but image tokens for 0"),
    ]:
        np.savez(file, **{**stored, **changed})
        with pytest.raises(ValueError, match=message):
            read(rows, model)
    np.savez(file, labels=stored["labels"])
    with pytest.raises(ValueError, match="rows.npz: has no input_ids"):
        read(rows, model)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="rows.npz: cannot be read"):
        read(rows, model)


def test_batches_are_made_when_they_are_asked_for(model, tmp_path, monkeypatch):
    """Only what was drawn is read, and no pixel is kept."""
    pairs = tiny_checkpoints.pictures(tmp_path / "pairs")
    opened = []
    read_picture = entries_module.read_picture
    monkeypatch.setattr(
        entries_module,
        "read_picture",
        lambda path: opened.append(path.name) or read_picture(path),
    )
    entries = read_entries(pairs)
    (chosen,) = draw(entries, 1, seed=0)
    rows = read_samples([chosen], samples_of(model))
    name = chosen.images[0].name
    assert opened == [name]
    batches = samples_of(model).batches([*rows, *rows], 1)
    assert opened == [name] and len(batches) == 2
    assert check_batches(batches) is batches and opened == [name] * 3
    first, second = batches[0], batches[1]
    assert first.inputs[0] is not second.inputs[0]
    for key, array in first.inputs[0].items():
        np.testing.assert_array_equal(array, second.inputs[0][key])


def test_rows_of_arrays_are_drawn_one_by_one(model, tmp_path):
    rows = tiny_checkpoints.arrays(tmp_path / "rows", model.architecture)
    entries = read_entries(rows)
    both = read_samples(entries, samples_of(model))
    (last,) = read_samples(entries[1:], samples_of(model))
    np.testing.assert_array_equal(last.tokens, both[1].tokens)
    np.testing.assert_array_equal(last.pixels(), both[1].pixels())
    np.save(rows / "rows.npy", np.ones(3))
    (rows / "rows.npy").rename(rows / "rows.npz")
    with pytest.raises(ValueError, match="rows.npz: is no NPZ file"):
        read_entries(rows)


def test_strings_may_hold_any_separator(tmp_path):
    text = "a\u2028b\x85c\u2029d"
    line = json.dumps({"text": text}, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_bytes(f"\ufeff{line}\r\n\n{line}".encode())
    found = read_entries(tmp_path)
    assert [e.content for e in found] == [{"text": text}] * 2
    assert [e.where.rpartition(":")[2] for e in found] == ["1", "3"]


def test_texts_are_cut_off():
    tokenizer = tiny_checkpoints.tokenizer({})
    model = SimpleNamespace(tokenizer=tokenizer)
    made = Samples(model).of_text("what is it ?", max_length=3)
    assert made.cut == 1 and made.labels.tolist() == [-100, *made.tokens[1:]]
    assert Samples(model).of_text("what is it ?", max_length=4).cut == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 100_000, "1: is nested too deeply"),
        ('{"prompt": "a", "image": "../b.png"}', "1: image must be in the folder"),
        ('{"prompt": "a", "image": "/b.png"}', "1: image must be in the folder"),
        (json.dumps({"prompt": "a", "image": "x" * 300}), "1: there is no pict"),
        (json.dumps({"prompt": "a", "image": "\0"}), "1: there is no picture"),
    ],
)  # fmt: skip
def test_lines_that_cannot_be_read_are_named(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text(line)
    with pytest.raises(ValueError, match=f"a.jsonl:{message}"):
        read_entries(tmp_path)


def test_the_loss_is_the_mean_over_answers_of_each_sample():
    logits = np.zeros((2, 4, 3), np.float32)
    logits[0, 1] = np.log([0.5, 0.25, 0.25])  # foretells slot 2
    labels = np.array([[-100, -100, 0, 1], [-100, -100, -100, -100]])
    got = next_token_loss(logits, labels)
    np.testing.assert_allclose(got, (np.log(2) + np.log(3)) / 2, rtol=1e-6)
