"""Calibration samples of a published model, before they are padded into batches.

A sample is one row of tokens with its labels and, for vision-language models, what the
pictures have become: tiles with the pictures' sizes for LLaVA-OneVision, patches with
their grids for Qwen2-VL. Text models have neither. Pixels are many times larger than
all the rest, so a sample only knows how to make them, and a batch is made when it is
asked for.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jeff.mbq.calibration.batches import Batch
from jeff.models import chat, registry
from jeff.models.chat import tokens as chat_tokens

__all__ = ["Batches", "Sample", "Samples", "matrix", "rows"]

IGNORED = chat_tokens.IGNORED


class Sample(NamedTuple):
    """One row of calibration data.

    Attributes:
      tokens: int32 ``[slots]``, without padding; image tokens expanded.
      labels: int32 ``[slots]``: tokens of the answer, -100 elsewhere.
      pixels: Makes the tiles ``[tiles, channels, size, size]`` or patches ``[patches,
        pixels]`` of all its pictures, float32; ``None`` if it has none.
      sizes: Per picture the (height, width) in pixels, or its grid (time, rows,
        columns).
      cut: How many tokens were cut off at its end.
    """

    tokens: np.ndarray
    labels: np.ndarray
    pixels: Callable[[], np.ndarray] | None = None
    sizes: tuple[tuple[int, ...], ...] = ()
    cut: int = 0


class Batches(Sequence[Batch]):
    """Batches of samples, made each time they are asked for.

    Examples:
      >>> batches = Batches(lambda i: Batch((i,)), 3)
      >>> len(batches), batches[-1].inputs, [b.inputs for b in batches[:2]]
      (3, (2,), [(0,), (1,)])
    """

    def __init__(self, make: Callable[[int], Batch], count: int):
        """Takes what makes a batch by its number, and how many there are."""
        self._make, self._numbers = make, range(count)

    def __getitem__(self, index: Any) -> Any:
        """Makes a batch, or a sequence of those of a slice."""
        found = self._numbers[index]
        if isinstance(found, int):
            return self._make(found)
        return Batches(lambda i: self._make(found[i]), len(found))

    def __len__(self) -> int:
        """How many there are."""
        return len(self._numbers)


class Samples:
    """What turns texts into samples and samples into batches; of text models."""

    vision = False

    def __init__(self, model: registry.Model):
        """Takes the model; its processor is read when a text is to be tokenized."""
        self.model = model

    def of_text(self, text: str, *, max_length: int | None = None) -> Sample:
        """Plain text: every token but the first is to be foretold.

        Args:
          text: The text.
          max_length: Tokens after so many are cut off; none if ``None``.

        Raises:
          ValueError: If there is no tokenizer, or the text has no two tokens.
        """
        tokens = np.asarray(self._tokenizer().encode(text).ids, np.int32)
        if len(tokens) < 2:
            raise ValueError(f"the text has {len(tokens)} tokens, it needs two or more")
        kept = tokens[:max_length]
        labels = kept.copy()
        labels[0] = IGNORED
        return Sample(kept, labels, cut=len(tokens) - len(kept))

    def of_chat(
        self, prompt: str, answer: str | None, pictures: Sequence[Callable[[], Any]]
    ) -> Sample:
        """A question about pictures with its answer, in the model's chat template.

        Args:
          prompt: The question.
          answer: The answer, if there is one.
          pictures: What reads each picture.

        Raises:
          TypeError: As `jeff.models.chat.tokens.tokenize`.
          ValueError: Likewise; or if there is no tokenizer, or there are pictures for a
            text model.
        """
        if pictures:
            raise ValueError(
                f"a {self.model.architecture} model reads no pictures, got "
                f"{len(pictures)}"
            )
        row = chat_tokens.tokenize(
            chat.question(prompt), self.model.chat, self._tokenizer(), answer=answer
        )
        batch = chat_tokens.pad([row])
        return Sample(batch.tokens[0], batch.labels[0])

    def of_arrays(self, arrays: Any) -> list[Sample]:
        """Rows of ready-made arrays, such as a processor of `transformers` gives.

        Args:
          arrays: ``input_ids`` ``[B, N]``, perhaps ``attention_mask`` and ``labels`` of
            the same shape, and what the pictures have become.

        Raises:
          ValueError: If one is missing or does not fit.
        """
        tokens, valid, labels = rows(arrays)
        return [
            Sample(row[at], own[at])
            for row, at, own in zip(tokens, valid, labels, strict=True)
        ]

    def batches(self, samples: Sequence[Sample], size: int) -> Batches:
        """Batches of equal shapes, padded on the right.

        Args:
          samples: In their order.
          size: Samples per batch; divides their number.

        Returns:
          The batches, with masks for those modalities that have a token anywhere, and
          the labels as targets. Making one raises a `ValueError` if its samples do not
          fit the model.
        """
        length = max(len(s.tokens) for s in samples)
        groups = [samples[i : i + size] for i in range(0, len(samples), size)]
        most = self._most(groups)
        named = {"language": any((s.labels != IGNORED).any() for s in samples)}
        named["vision"] = any(s.sizes for s in samples)

        def make(number: int) -> Batch:
            batch = self._batch(groups[number], length, most)
            masks = {name: m for name, m in batch.masks.items() if named[name]}
            return batch._replace(masks=masks)

        return Batches(make, len(groups))

    def _batch(self, samples: Sequence[Sample], length: int, most: int) -> Batch:
        shape = (len(samples), length)
        tokens, valid = np.zeros(shape, np.int32), np.zeros(shape, bool)
        labels = np.full(shape, IGNORED, np.int32)
        for i, sample in enumerate(samples):
            count = len(sample.tokens)
            tokens[i, :count], labels[i, :count] = sample.tokens, sample.labels
            valid[i, :count] = True
        inputs = self._inputs(samples, tokens, valid, most)
        masks: dict[str, Any] = chat_tokens.masks(inputs, labels)
        return Batch((inputs,), masks, labels)

    def _inputs(self, samples, tokens, valid, most) -> dict[str, Any]:
        vocabulary = self.model.config.decoder.vocabulary
        if tokens.min() < 0 or tokens.max() >= vocabulary:
            raise ValueError(
                f"tokens must be in [0, {vocabulary}), got {tokens.min()} to "
                f"{tokens.max()}"
            )
        return {"tokens": tokens, "valid": valid}

    def _most(self, groups: Sequence[Sequence[Sample]]) -> int:
        return 0

    def _tokenizer(self) -> Any:
        if self.model.tokenizer is None:
            why = "; ".join(self.model.notes)
            raise ValueError(f"{self.model.folder}: texts need a tokenizer ({why})")
        return self.model.tokenizer


def rows(arrays: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, what is no padding, and labels of ready-made arrays.

    Args:
      arrays: As for `Samples.of_arrays`.

    Returns:
      int32, bool and int32 ``[B, N]``.

    Raises:
      ValueError: If there are no tokens, shapes differ, or a row is padding only.

    Examples:
      >>> tokens, valid, labels = rows({"input_ids": np.array([[5, 6]])})
      >>> print(valid, labels)
      [[ True  True]] [[-100 -100]]
    """
    tokens = matrix(arrays, "input_ids").astype(np.int32)
    found = []
    for name, missing in (("attention_mask", 1), ("labels", IGNORED)):
        known = name in arrays
        found.append(np.asarray(arrays[name]) if known else tokens * 0 + missing)
        if found[-1].shape != tokens.shape:
            raise ValueError(
                f"{name} has shape {found[-1].shape}, input_ids {tokens.shape}"
            )
    valid = found[0] != 0
    if not tokens.size or not valid.any(axis=1).all():
        raise ValueError("input_ids has a row without a token")
    return tokens, valid, found[1].astype(np.int32)


def matrix(arrays: Any, name: str, rank: int = 2) -> np.ndarray:
    """One of several arrays, of the right number of axes.

    Args:
      arrays: Arrays by name.
      name: Which one.
      rank: How many axes it has.

    Returns:
      The array.

    Raises:
      ValueError: If it is not there, or has another number of axes.

    Examples:
      >>> matrix({}, "input_ids")
      Traceback (most recent call last):
        ...
      ValueError: has no input_ids
    """
    if name not in arrays:
        raise ValueError(f"has no {name}")
    found = np.asarray(arrays[name])
    if found.ndim != rank:
        raise ValueError(f"{name} must have {rank} axes, got shape {found.shape}")
    return found
