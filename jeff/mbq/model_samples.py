"""Calibration samples of a published model, before they are padded into batches.

A sample is one row of tokens with its labels and, for vision-language models, what the
pictures have become: tiles with the pictures' sizes for LLaVA-OneVision, patches with
their grids for Qwen2-VL. Text models have neither.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jeff.mbq.calibration import Batch
from jeff.models import chat, chat_tokens, registry

__all__ = ["Sample", "Samples", "samples_of"]

IGNORED = chat_tokens.IGNORED


class Sample(NamedTuple):
    """One row of calibration data.

    Attributes:
      tokens: int32 ``[slots]``, without padding; image tokens expanded.
      labels: int32 ``[slots]``: tokens of the answer, -100 elsewhere.
      pixels: Tiles ``[tiles, channels, size, size]`` or patches ``[patches, pixels]``
        of all its pictures, float32; ``None`` if it has none.
      sizes: Per picture the (height, width) in pixels, or its grid (time, rows,
        columns).
    """

    tokens: np.ndarray
    labels: np.ndarray
    pixels: np.ndarray | None = None
    sizes: tuple[tuple[int, ...], ...] = ()


class Samples:
    """What turns texts into samples and samples into batches; of text models."""

    vision = False

    def __init__(self, model: registry.Model):
        """Takes the model; its processor is read when a text is to be tokenized."""
        self.model = model

    def of_text(self, text: str) -> Sample:
        """Plain text: every token but the first is to be foretold.

        Raises:
          ValueError: If there is no tokenizer, or the text has no two tokens.
        """
        tokens = np.asarray(self._tokenizer().encode(text).ids, np.int32)
        if len(tokens) < 2:
            raise ValueError(f"the text has {len(tokens)} tokens, it needs two or more")
        labels = tokens.copy()
        labels[0] = IGNORED
        return Sample(tokens, labels)

    def of_chat(
        self, prompt: str, answer: str | None, pictures: Sequence[Any]
    ) -> Sample:
        """A question about pictures with its answer, in the model's chat template.

        Raises:
          TypeError: As `jeff.models.chat_tokens.tokenize`.
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
        tokens, valid, labels = _rows(arrays)
        return [
            Sample(row[at], own[at])
            for row, at, own in zip(tokens, valid, labels, strict=True)
        ]

    def batches(self, samples: Sequence[Sample], size: int) -> list[Batch]:
        """Batches of equal shapes, padded on the right.

        Args:
          samples: In their order.
          size: Samples per batch; divides their number.

        Returns:
          The batches, with masks for those modalities that have a token anywhere, and
          the labels as targets.

        Raises:
          ValueError: If the samples do not fit the model.
        """
        length = max(len(s.tokens) for s in samples)
        groups = [samples[i : i + size] for i in range(0, len(samples), size)]
        found = [self._batch(g, length, self._most(groups)) for g in groups]
        named = {n for b in found for n, m in b.masks.items() if m.any()}
        return [
            b._replace(masks={n: m for n, m in b.masks.items() if n in named})
            for b in found
        ]

    def _batch(self, samples: Sequence[Sample], length: int, most: int) -> Batch:
        shape = (len(samples), length)
        tokens, valid = np.zeros(shape, np.int32), np.zeros(shape, bool)
        labels = np.full(shape, IGNORED, np.int32)
        for i, sample in enumerate(samples):
            count = len(sample.tokens)
            tokens[i, :count], labels[i, :count] = sample.tokens, sample.labels
            valid[i, :count] = True
        inputs = self._inputs(samples, tokens, valid, most)
        masks = {"language": labels != IGNORED}
        if self.vision:
            index = inputs.get("feature_index", np.full((*shape, 1), -1))
            masks["vision"] = index.reshape(*shape, -1)[..., 0] >= 0
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


class _Pictured(Samples):
    """What both vision-language models have in common."""

    vision = True

    def __init__(self, model: registry.Model):
        super().__init__(model)
        self._module = registry.architecture(model.architecture)
        self._processor = None

    def of_chat(
        self, prompt: str, answer: str | None, pictures: Sequence[Any]
    ) -> Sample:
        if self._processor is None:
            self._processor = self._module.read_processor(
                self.model.folder, config=self.model.config, tokenizer=self._tokenizer()
            )
        question = chat.question(prompt, pictures)
        answers = None if answer is None else [answer]
        inputs, labels = self._module.prepare(
            [question], self._processor, answers=answers, side="right"
        )
        sizes = tuple(self._size(p) for p in pictures)
        return Sample(inputs["tokens"][0], labels[0], self._pixels(inputs), sizes)

    def of_arrays(self, arrays: Any) -> list[Sample]:
        tokens, valid, labels = _rows(arrays)
        sizes, pixels = self._stored(arrays)
        samples, at = [], 0
        for i, row in enumerate(tokens):
            own = row[valid[i]]
            wanted = int((own == self.model.config.image_token).sum())
            first, found = at, 0
            while found < wanted and at < len(sizes):
                found += self._features(sizes[at])
                at += 1
            if found != wanted:
                raise ValueError(
                    f"input_ids[{i}] has {wanted} image tokens, its pictures have "
                    f"{found} features"
                )
            mine = pixels[first:at]
            samples.append(
                Sample(
                    own,
                    labels[i][valid[i]],
                    np.concatenate(mine) if mine else None,
                    tuple(sizes[first:at]),
                )
            )
        if at != len(sizes):
            raise ValueError(f"{len(sizes)} pictures, but image tokens for {at}")
        return samples

    def _pixels(self, inputs: Any) -> np.ndarray | None:
        raise NotImplementedError

    def _size(self, picture: Any) -> tuple[int, ...]:
        raise NotImplementedError

    def _features(self, size: tuple[int, ...]) -> int:
        raise NotImplementedError

    def _stored(self, arrays: Any) -> tuple[list[Any], list[np.ndarray]]:
        raise NotImplementedError


class _Tiled(_Pictured):
    """LLaVA-OneVision: tiles, and sizes in pixels."""

    def _pixels(self, inputs):
        return inputs["pixel_values"][0] if "pixel_values" in inputs else None

    def _size(self, picture):
        return (picture.height, picture.width)

    def _features(self, size):
        ((rows, _),) = self._module.picture_rows([size], config=self.model.config)
        return len(rows)

    def _stored(self, arrays):
        if "pixel_values" not in arrays:
            return [], []
        sizes = [tuple(int(n) for n in s) for s in _array(arrays, "image_sizes", 2)]
        pixels = _array(arrays, "pixel_values", 5)
        if len(pixels) != len(sizes):
            raise ValueError(f"{len(pixels)} pixel_values for {len(sizes)} image_sizes")
        counts = [self._module.tile_count([s], config=self.model.config) for s in sizes]
        return sizes, [p[:n] for p, n in zip(pixels, counts, strict=True)]

    def _most(self, groups):
        config = self.model.config
        samples = [s for group in groups for s in group]
        return max(self._module.tile_count(s.sizes, config=config) for s in samples)

    def _inputs(self, samples, tokens, valid, most):
        return self._module.model_inputs(
            tokens,
            valid,
            [s.pixels for s in samples],
            [s.sizes for s in samples],
            config=self.model.config,
            tiles=most,
        )


class _Patched(_Pictured):
    """Qwen2-VL: patches, and grids of them."""

    def _pixels(self, inputs):
        return inputs.get("patches")

    def _size(self, picture):
        return tuple(self._module.picture_grid(picture, self._processor.pictures))

    def _features(self, size):
        return math.prod(size) // self.model.config.vision.merge**2

    def _stored(self, arrays):
        if "pixel_values" not in arrays:
            return [], []
        grids = _array(arrays, "image_grid_thw", 2)
        sizes = [tuple(int(n) for n in grid) for grid in grids]
        pixels = _array(arrays, "pixel_values", 2)
        counts = [math.prod(size) for size in sizes]
        if sum(counts) != len(pixels):
            raise ValueError(
                f"{len(pixels)} pixel_values, but image_grid_thw has {sum(counts)}"
            )
        return sizes, np.split(pixels, np.cumsum(counts)[:-1])

    def _most(self, groups):
        return max(
            sum(math.prod(size) for s in group for size in s.sizes) for group in groups
        )

    def _inputs(self, samples, tokens, valid, most):
        width = self.model.config.vision.pixels
        pixels = [s.pixels for s in samples if s.pixels is not None]
        return self._module.model_inputs(
            tokens,
            valid,
            np.concatenate(pixels) if pixels else np.zeros((0, width), np.float32),
            np.reshape([size for s in samples for size in s.sizes], (-1, 3)).astype(
                int
            ),
            config=self.model.config,
            patches=most,
        )


_KINDS = {"llava_onevision": _Tiled, "qwen2_vl": _Patched}


def samples_of(model: registry.Model) -> Samples:
    """What makes samples for a model.

    Args:
      model: From `jeff.models.registry.load`.

    Returns:
      The maker of its architecture.
    """
    return _KINDS.get(model.architecture, Samples)(model)


def _rows(arrays: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, what is no padding, and labels."""
    tokens = _array(arrays, "input_ids", 2).astype(np.int32)
    found = []
    for name, missing in (("attention_mask", 1), ("labels", IGNORED)):
        array = (
            np.asarray(arrays[name])
            if name in arrays
            else np.full_like(tokens, missing)
        )
        if array.shape != tokens.shape:
            raise ValueError(
                f"{name} has shape {array.shape}, input_ids {tokens.shape}"
            )
        found.append(array)
    valid = found[0] != 0
    if not tokens.size or not valid.any(axis=1).all():
        raise ValueError("input_ids has a row without a token")
    return tokens, valid, found[1].astype(np.int32)


def _array(arrays: Any, name: str, rank: int) -> np.ndarray:
    if name not in arrays:
        raise ValueError(f"has no {name}")
    array = np.asarray(arrays[name])
    if array.ndim != rank:
        raise ValueError(f"{name} must have {rank} axes, got shape {array.shape}")
    return array
