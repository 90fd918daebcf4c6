"""The tokenizer of the easy-VQA questions."""

import numpy as np
import pytest

from jeff.models import vqa_words


def test_vocabulary_has_28_different_entries_with_the_answers():
    assert len(set(vqa_words.VOCABULARY)) == len(vqa_words.VOCABULARY) == 28
    assert set(vqa_words.ANSWERS) < set(vqa_words.VOCABULARY)
    assert len(vqa_words.ANSWERS) == 13


def test_every_word_survives_the_round_trip():
    words = list(vqa_words.VOCABULARY[1:])
    assert vqa_words.detokenize(vqa_words.tokenize(words)) == words


def test_questions_are_padded_on_the_left():
    tokens = np.asarray(vqa_words.tokenize(["Is a RED shape present?"]))
    assert tokens.dtype == np.int32 and tokens.shape == (1, 9)
    assert (tokens[0, :4] == vqa_words.PAD).all() and (tokens[0, 4:] > 0).all()


def test_no_questions_give_no_rows():
    assert vqa_words.tokenize([]).shape == (0, 9)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("is a purple shape present?", "unknown word 'purple' in 'is a purple"),
        ("<pad>", "unknown word '<pad>'"),
        ("?", "1 to 9 words, got 0 in '[?]'"),
        ("is " * 10, "1 to 9 words, got 10"),
    ],
)
def test_a_bad_question_is_named(question, message):
    with pytest.raises(ValueError, match=message):
        vqa_words.tokenize([question])


def test_one_string_is_not_a_sequence_of_questions():
    with pytest.raises(TypeError, match="'is a circle present'"):
        vqa_words.tokenize("is a circle present")
