"""The files that ship in the wheel: contents, and one clear error when damaged."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jeff.data import embedded
from jeff.models import vqa_words


def test_digits_are_the_1797_of_uci():
    digits = embedded.load_digits()
    assert digits.images.shape == (1797, 8, 8) and digits.images.dtype == np.uint8
    assert digits.images.max() == 16
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(digits.labels).tolist() == counts


def test_digits_agree_with_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is absent")
    theirs = datasets.load_digits()
    digits = embedded.load_digits()
    np.testing.assert_array_equal(digits.images, theirs.images)
    np.testing.assert_array_equal(digits.labels, theirs.target)


@pytest.mark.parametrize(("part", "images"), [("calibration", 150), ("test", 300)])
def test_questions_fit_their_images_and_words(part, images):
    data = getattr(embedded.load_vqa(), part)
    assert data.images.shape == (images, 64, 64, 3) and data.images.dtype == np.uint8
    assert np.unique(data.image_index).tolist() == list(range(images))
    assert len(data.image_index) == len(data.tokens) == len(data.answers)
    words = np.array(vqa_words.VOCABULARY)
    assert set(words[data.answers]) == set(vqa_words.ANSWERS)
    padding = data.tokens == vqa_words.PAD
    assert not padding[:, -1].any()
    assert (padding[:, 1:] <= padding[:, :-1]).all()  # padding only on the left


def test_a_yes_answer_names_what_is_in_the_picture():
    """The first test picture of easy-VQA holds a red triangle."""
    data = embedded.load_vqa().test
    rows = data.image_index == 0
    asked = vqa_words.detokenize(data.tokens[rows])
    answer = dict(zip(asked, data.answers[rows], strict=True))
    assert vqa_words.VOCABULARY[answer["what is the red shape"]] == "triangle"
    pixels = data.images[0].reshape(-1, 3)
    assert ([255, 0, 0] == pixels).all(axis=1).any()


def test_all_files_stay_small():
    sizes = {name: len(embedded.read(name)) for name in embedded.names()}
    weights = sum(size for name, size in sizes.items() if name.endswith("tensors"))
    assert weights < 4e6 and sum(sizes.values()) < 7e6


def test_weights_are_half_precision():
    for name in ("tiny_vlm", "efficientnet_lite0_features", "digits_bnn"):
        dtypes = {array.dtype for array in embedded.load_weights(name).values()}
        assert dtypes == {np.dtype(np.float16)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the embedded files that a test may damage."""
    source = pathlib.Path(embedded.__file__).parent
    for name in (*embedded.names(), "checksums.json"):
        shutil.copy(source / name, tmp_path)
    monkeypatch.setattr(embedded, "_file", tmp_path.joinpath)
    return tmp_path


@pytest.mark.parametrize("load", [embedded.load_digits, embedded.load_vqa])
@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_a_damaged_file_is_named(folder, load, damage):
    name = {"load_digits": "digits.npz", "load_vqa": "easy_vqa.npz"}[load.__name__]
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    size = {"truncated": len(content) // 2, "altered": len(content), "empty": 0}[damage]
    (folder / name).write_bytes(content[:size])
    with pytest.raises(ValueError, match=rf"{name} is corrupt") as error:
        load()
    assert "\n" not in str(error.value)


def test_damaged_weights_are_named(folder):
    (folder / "tiny_vlm.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"tiny_vlm\.safetensors is corrupt"):
        embedded.load_weights("tiny_vlm")


def test_a_missing_file_is_named(folder):
    (folder / "digits.npz").unlink()
    with pytest.raises(ValueError, match=r"digits\.npz cannot be read"):
        embedded.load_digits()


def test_damaged_checksums_are_named(folder):
    (folder / "checksums.json").write_text("x")
    with pytest.raises(ValueError, match=r"checksums\.json is corrupt"):
        embedded.load_digits()


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"'big_vlm\.safetensors'; known: digits\.npz"):
        embedded.load_weights("big_vlm")


def test_importing_opens_no_file_of_data():
    code = (
        "import sys; opened = []\n"
        "def note(event, args):\n"
        "    if event == 'open': opened.append(str(args[0]))\n"
        "sys.addaudithook(note)\n"
        "import jeff.data.embedded, jeff.models.pretrained\n"
        "ends = ('.npz', '.safetensors', 'sums.json')\n"
        "print([name for name in opened if name.endswith(ends)])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
