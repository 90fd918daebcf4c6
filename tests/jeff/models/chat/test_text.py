"""Chats as text and tokens: templates of several kinds, and what is refused."""

import json

import numpy as np
import pytest

from jeff.models import chat
from jeff.models.chat import ChatFormat
from jeff.models.chat import tokens as chat_tokens

# As the templates of vision-language models do: pictures first, lists of parts only,
# answers marked for training.
PARTS = """\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + ' ' }}
{%- for part in message['content'] | selectattr('type', 'equalto', 'image') %}
{{ '<image>' }}
{%- endfor %}
{%- for part in message['content'] | selectattr('type', 'equalto', 'text') %}
{% generation %}{{ '\\n' + part['text'] }}{% endgeneration %}
{%- endfor %}
{{- '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
STRINGS = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
SPECIAL = (("bos_token", "<s>"), ("eos_token", "</s>"))


def conversation():
    return [
        {"role": "system", "content": "Be brief."},
        *chat.question("what?", ["picture"]),
    ]


@pytest.mark.parametrize(
    ("form", "want"),
    [
        (
            ChatFormat(image_text="<image>\n"),
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\n<image>\nwhat?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            ChatFormat(template=PARTS),
            "<|im_start|>system \nBe brief.<|im_end|>"
            "<|im_start|>user <image>\nwhat?<|im_end|><|im_start|>assistant\n",
        ),
        (
            ChatFormat(template=STRINGS, image_text="<image> ", variables=SPECIAL),
            "<s>[system] Be brief.</s>[user] <image> what?</s>[assistant]",
        ),
    ],
)
def test_every_kind_of_template_gets_contents_it_understands(form, want):
    assert chat.render(conversation(), form) == want


@pytest.mark.parametrize(
    ("form", "want"),
    [
        (ChatFormat(), "<|im_end|>\n"),
        (ChatFormat(template=PARTS), "<|im_end|>"),
        (ChatFormat(template=STRINGS, variables=SPECIAL), "</s>"),
        (ChatFormat(template="{{ messages[0].content }}"), ""),
    ],
)
def test_an_answer_ends_as_the_template_says(form, want):
    assert chat.end_of_answer(form) == want


def test_templates_can_stop_and_skip_but_reach_nothing():
    stop = ChatFormat(template="{{ raise_exception('no system') }}")
    with pytest.raises(ValueError, match="the chat template failed: no system"):
        chat.render(conversation(), stop)
    escape = ChatFormat(template="{{ messages.__class__.__mro__ }}")
    with pytest.raises(ValueError, match="template failed.*__class__.*unsafe"):
        chat.render(conversation(), escape)
    change = ChatFormat(template="{{ messages.append(1) }}")
    with pytest.raises(ValueError, match="the chat template failed"):
        chat.render(conversation(), change)
    number = ChatFormat(template="{{ messages[0].content + 1 }}")
    with pytest.raises(ValueError, match="the chat template failed: can only concat"):
        chat.render(conversation(), number)
    with pytest.raises(ValueError, match="is broken in line .*'break' outside loop"):
        ChatFormat(template="{% break %}")
    dated = "{% for m in messages %}{{ strftime_now('%y') | int >= 0 }}{% break %}"
    dated = ChatFormat(template=dated + "{% endfor %}")
    assert chat.render(conversation(), dated) == "True"


@pytest.mark.parametrize(
    ("messages", "error", "words"),
    [
        ([], ValueError, "the prompt is empty: the chat has no message"),
        (chat.question("\n"), ValueError, r"the prompt is empty: messages\[0\]"),
        (chat.question("", ["picture"]), ValueError, "the prompt is empty"),
        ("hello", TypeError, "a chat must be a list of messages"),
        ([{"role": "user"}], TypeError, "must be a dict with role and content"),
        ([{"role": "user", "content": 3}], TypeError, "a string or a list of parts"),
        (
            [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}],
            ValueError,
            "videos are not supported",
        ),
        (
            [{"role": "user", "content": [{"type": "image"}]}],
            ValueError,
            "an image part without a picture",
        ),
        (
            [{"role": "user", "content": [{"type": "audio"}]}],
            ValueError,
            "neither text nor an image",
        ),
    ],
)
def test_what_is_no_chat_is_refused(messages, error, words):
    with pytest.raises(error, match=words):
        chat.render(messages, ChatFormat())


def test_formats_come_from_the_checkpoints_files(tmp_path):
    assert chat.chat_format(tmp_path) == ChatFormat()
    config = {
        "bos_token": {"content": "<s>"},
        "eos_token": "</s>",
        "pad_token": None,
        "chat_template": [
            {"name": "tool_use", "template": "tools"},
            {"name": "default", "template": STRINGS},
        ],
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    form = chat.chat_format(tmp_path, image_text="<image>")
    assert form == ChatFormat(template=STRINGS, image_text="<image>", variables=SPECIAL)
    own = {"chat_template": "of its own file"}
    (tmp_path / "chat_template.json").write_text(json.dumps(own))
    assert chat.chat_format(tmp_path).template == "of its own file"
    (tmp_path / "chat_template.jinja").write_text("newest")
    assert chat.chat_format(tmp_path).template == "newest"
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ValueError, match="tokenizer_config.json must hold a JSON obj"):
        chat.chat_format(tmp_path)


class Words:
    """A tokenizer of words."""

    def encode(self, text, add_special_tokens=True):
        assert not add_special_tokens  # the template has them
        return type("Encoding", (), {"ids": [len(word) for word in text.split()]})


def test_prompts_are_those_of_generation_and_answers_end_the_turn():
    form = ChatFormat(template=PARTS)
    prompt, answer = chat_tokens.tokenize(
        chat.question("is it red?"), form, Words(), answer="yes it is"
    )
    words = ["<|im_start|>user", "is", "it", "red?<|im_end|><|im_start|>assistant"]
    assert prompt == [len(word) for word in words]
    assert answer == [len(word) for word in ("yes", "it", "is<|im_end|>")]
    alone, nothing = chat_tokens.tokenize(chat.question("is it red?"), form, Words())
    assert alone == prompt and nothing == []
    with pytest.raises(ValueError, match="the answer is empty"):
        chat_tokens.tokenize(chat.question("why?"), form, Words(), answer=" ")
    with pytest.raises(TypeError, match="tokenizer must have encode, got None"):
        chat_tokens.tokenize(chat.question("why?"), form, None)


def test_image_tokens_are_as_many_as_features():
    assert chat_tokens.expand([9, 1, 9], 9, [1, 3]) == [9, 1, 9, 9, 9]
    for counts in ([2], [1, 1, 1]):
        with pytest.raises(ValueError, match="has 2 image tokens for"):
            chat_tokens.expand([9, 1, 9], 9, counts)


def test_padding_and_labels_on_both_sides():
    rows = [([5, 6], [7]), ([8], [])]
    right = chat_tokens.pad(rows, length=4)
    left = chat_tokens.pad(rows, side="left", length=4)
    assert right.tokens.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert left.labels.tolist() == [[-100, -100, -100, 7], [-100] * 4]
    np.testing.assert_array_equal(left.valid, right.valid[:, ::-1])
    for wrong, words in (
        ({"length": 2}, "length must be at least 3 slots, got 2"),
        ({"side": "both"}, "side must be 'left' or 'right'"),
    ):
        with pytest.raises(ValueError, match=words):
            chat_tokens.pad(rows, **wrong)
    with pytest.raises(ValueError, match="the prompt is empty"):
        chat_tokens.pad([([], [])])


def test_templates_are_told_that_there_are_no_tools_or_documents():
    source = "{% if tools is not none or documents is not none %}tools {% endif %}"
    form = chat.ChatFormat(template=source + "{{ messages[0].content }}")
    assert chat.render(chat.question("hello"), form) == "hello"
