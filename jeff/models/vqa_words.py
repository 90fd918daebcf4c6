"""Words of the easy-VQA questions and answers, and the tokenizer over them."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

__all__ = ["ANSWERS", "MAX_WORDS", "PAD", "VOCABULARY", "detokenize", "tokenize"]

PAD = 0
"""Token of the padding that stands before a short question."""

MAX_WORDS = 9
"""Words of the longest question ("is there not a red shape in the image?")."""

ANSWERS = (
    "black",
    "blue",
    "brown",
    "circle",
    "gray",
    "green",
    "no",
    "rectangle",
    "red",
    "teal",
    "triangle",
    "yellow",
    "yes",
)
"""The 13 answers, each one word."""

_QUESTION_WORDS = (
    "a",
    "color",
    "contain",
    "does",
    "image",
    "in",
    "is",
    "not",
    "of",
    "present",
    "shape",
    "the",
    "there",
    "what",
)

VOCABULARY = ("<pad>", *ANSWERS, *_QUESTION_WORDS)
"""The 28 entries; a token is an index into it."""

_TOKENS = {word: token for token, word in enumerate(VOCABULARY) if token != PAD}


def tokenize(questions: Sequence[str]) -> jnp.ndarray:
    """Tokens of questions, padded on the left to `MAX_WORDS`.

    Case and question marks are ignored. An answer is a question of one word: its token
    is the last of its row.

    Args:
      questions: Texts of at most `MAX_WORDS` known words.

    Returns:
      int32 ``[len(questions), 9]``.

    Raises:
      TypeError: If `questions` is one string.
      ValueError: If a question is empty, too long, or has an unknown word.

    Examples:
      >>> print(tokenize(["What color is the circle?", "is a red shape present?"]))
      [[ 0  0  0  0 27 15 20 25  4]
       [ 0  0  0  0 20 14  9 24 23]]
    """
    if isinstance(questions, str):
        raise TypeError(f"questions must be a sequence of texts, got {questions!r}")
    rows = np.full((len(questions), MAX_WORDS), PAD, np.int32)
    for row, question in zip(rows, questions, strict=True):
        words = question.lower().replace("?", " ").split()
        if not 1 <= len(words) <= MAX_WORDS:
            raise ValueError(
                f"questions must have 1 to {MAX_WORDS} words, got {len(words)} in "
                f"{question!r}"
            )
        for word in words:
            if word not in _TOKENS:
                raise ValueError(
                    f"unknown word {word!r} in {question!r}; known words: "
                    f"{', '.join(VOCABULARY[1:])}"
                )
        row[-len(words) :] = [_TOKENS[word] for word in words]
    return jnp.asarray(rows)


def detokenize(tokens: np.ndarray) -> list[str]:
    """Texts of rows of tokens, without the padding.

    Args:
      tokens: int ``[batch, words]``.

    Returns:
      ``batch`` texts.

    Examples:
      >>> detokenize(tokenize(["Is a red shape present?"]))
      ['is a red shape present']
    """
    return [
        " ".join(VOCABULARY[token] for token in row if token != PAD)
        for row in np.asarray(tokens)
    ]
