"""The model of two halves: how chats are laid out, and what the program computes."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import pages

from jeff import mbq
from jeff.models import decoder
from jeff.quantize import QTensor, QuantConfig

pytestmark = pages.in_checkout
CONFIG = decoder.DecoderConfig(
    vocabulary=64, width=32, layers=3, heads=4, kv_heads=2, head_dim=8, hidden=32
)


@pytest.fixture(scope="module")
def vlm():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(pages.ROOT / "benchmarks"))
        yield importlib.import_module("smollm2_vlm")


class Words:
    """A tokenizer of whole words: 1 opens a turn, 2 ends it."""

    known = {"<|im_start|>user\n": [1, 10, 11], "yes": [20], "rectangle": [21, 22]}
    known["<|im_end|>\n<|im_start|>assistant\n"] = [2, 11, 1, 12, 11]

    def encode(self, text):
        ids = self.known.get(text) or [30 + i for i, _ in enumerate(text.split())]
        return type("Encoded", (), {"ids": ids})


@pytest.fixture(scope="module")
def chats(vlm):
    return vlm.chats(Words(), [("is it red", "yes", 4), ("what is", "rectangle", 5)])


@pytest.fixture(scope="module")
def params():
    key_d, key_p = jax.random.split(jax.random.key(0))
    kernel = 0.1 * jax.random.normal(key_p, (112, CONFIG.width))
    projector = {"kernel": kernel, "bias": jnp.ones(CONFIG.width)}
    return {"decoder": decoder.init(key_d, CONFIG), "projector": projector}


@pytest.fixture(scope="module")
def run(vlm):
    return jax.jit(lambda params, *inputs: vlm.apply(params, *inputs, config=CONFIG))


def _inputs(chats):
    seen = np.random.default_rng(0).normal(size=(len(chats.image), 16, 112))
    return seen.astype(np.float32), chats.tokens, chats.valid, chats.slots


def test_a_chat_slot_by_slot(chats):
    row = chats.tokens[0]
    assert row[:3].tolist() == [1, 10, 11] and not row[3:19].any()
    assert row[19:29].tolist() == [30, 31, 32, 2, 11, 1, 12, 11, 20, 2]
    assert chats.valid[0].sum() == 29 and chats.image.tolist() == [4, 5]
    assert chats.answers.tolist() == [[20, 2, -1], [21, 22, 2]]
    # The token before "yes" is where "yes" is predicted.
    assert chats.slots[0].tolist() == [26, 27, 28]


def test_masks_name_the_picture_and_the_words_after_it(chats):
    masks = chats.masks()
    assert masks["vision"].sum(1).tolist() == [16, 16]
    assert masks["language"].sum(1).tolist() == [10, 10]
    assert not (masks["vision"] & masks["language"]).any()
    assert not (masks["language"] & ~chats.valid).any()


def test_the_program_is_the_decoder_with_the_picture_put_in(vlm, chats, params, run):
    inputs = _inputs(chats)
    stacked = {**params, "decoder": decoder.stack_layers(params["decoder"])}
    read = decoder.text(params["decoder"], chats.tokens, jnp.asarray(chats.valid))
    picture = inputs[0] @ params["projector"]["kernel"] + 1.0
    read = read._replace(x=read.x.at[:, 3:19].set(picture))
    whole = jax.jit(lambda p, s: decoder.apply(p, s, config=CONFIG))
    scores = whole(params["decoder"], read)
    expected = np.take_along_axis(np.asarray(scores), chats.slots[..., None], axis=1)
    np.testing.assert_allclose(run(stacked, *inputs), expected, atol=1e-5)
    split = run(vlm.split(params, 2), *inputs)
    np.testing.assert_allclose(split, expected, atol=1e-5)


def test_the_answer_counts_up_to_the_end_of_its_turn(vlm):
    scores = np.full((2, 3, 4), -np.inf, np.float32)
    scores[:, :, 1:3] = 0.0  # two tokens, equally likely
    answers = np.array([[1, 2, -1], [1, 1, 1]])
    losses = vlm.answer_losses(jnp.asarray(scores), answers)
    np.testing.assert_allclose(losses, np.log(2.0) * np.array([2, 3]), rtol=1e-6)
    scores[:, 0, 1] = scores[:, 1, 2] = 1.0
    right = vlm.is_right(jnp.asarray(scores), answers)
    assert right.tolist() == [True, False]


def test_only_the_first_layers_are_quantized(vlm, chats, params):
    batch = mbq.Batch(inputs=tuple(map(jnp.asarray, _inputs(chats))))
    quantized = mbq.rtn(
        lambda p, *inputs: vlm.apply(p, *inputs, config=CONFIG),
        vlm.split(params, 2),
        [batch],
        mbq.BalanceConfig(weights=QuantConfig(bits=3, group_size=32)),
        where=lambda site: site.name.startswith("decoder.layers."),
    )
    leaves = jax.tree.leaves(quantized.params, is_leaf=lambda x: isinstance(x, QTensor))
    packed = [x for x in leaves if isinstance(x, QTensor)]
    assert len(packed) == 7 and all(x.shape[0] == 2 for x in packed)
