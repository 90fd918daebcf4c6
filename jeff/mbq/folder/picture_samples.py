"""Calibration samples of models that see pictures, and the samples of any model."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jeff.mbq.folder.samples import Sample, Samples, matrix, rows
from jeff.models import chat, registry

__all__ = ["Patched", "Pictured", "Tiled", "samples_of"]


class Pictured(Samples):
    """What both vision-language models have in common."""

    vision = True

    def __init__(self, model: registry.Model):
        """Takes the model; its processor is read when a chat is to be prepared."""
        super().__init__(model)
        self._module = registry.architecture(model.architecture)
        self._processor: Any = None

    def of_chat(
        self, prompt: str, answer: str | None, pictures: Sequence[Callable[[], Any]]
    ) -> Sample:
        """A question about pictures with its answer, in the model's chat template.

        Args:
          prompt: The question.
          answer: The answer, if there is one.
          pictures: What reads each picture; they are read again for every use.

        Raises:
          TypeError: As `prepare` of the model's module.
          ValueError: Likewise, or if there is no tokenizer.
        """
        if self._processor is None:
            self._processor = self._module.read_processor(
                self.model.folder, config=self.model.config, tokenizer=self._tokenizer()
            )
        answers = None if answer is None else [answer]

        def prepared() -> tuple[Any, Any, tuple[tuple[int, ...], ...]]:
            opened = [read() for read in pictures]
            question = chat.question(prompt, opened)
            inputs, labels = self._module.prepare(
                [question], self._processor, answers=answers, side="right"
            )
            return inputs, labels, tuple(self._size(p) for p in opened)

        def pixels() -> np.ndarray:
            return self._pixels(prepared()[0])

        inputs, labels, sizes = prepared()
        return Sample(
            inputs["tokens"][0], labels[0], pixels if pictures else None, sizes
        )

    def of_arrays(self, arrays: Any) -> list[Sample]:
        """Rows of ready-made arrays; pictures belong to rows by their image tokens.

        Raises:
          ValueError: If an array is missing or does not fit.
        """
        tokens, valid, labels = rows(arrays)
        sizes, pixels = self._stored(arrays)
        samples, at = [], 0
        for i, row in enumerate(tokens):
            own = row[valid[i]]
            wanted = int((own == self.model.config.image_token).sum())
            first = at
            counts = range(len(sizes) - first + 1)
            fits = (k for k in counts if self._features(sizes[at : at + k]) == wanted)
            count = next(fits, None)
            if count is None:
                found = self._features(sizes[first : first + 1])
                raise ValueError(
                    f"input_ids[{i}] has {wanted} image tokens, its pictures have "
                    f"{found} features"
                )
            at += count
            mine = tuple(sizes[first:at])
            own_pixels = pixels[first:at]
            joined = functools.partial(self._joined, own_pixels, mine) if mine else None
            samples.append(Sample(own, labels[i][valid[i]], joined, mine))
        if at != len(sizes):
            raise ValueError(f"{len(sizes)} pictures, but image tokens for {at}")
        return samples

    def _pixels(self, inputs: Any) -> np.ndarray:
        raise NotImplementedError

    def _size(self, picture: Any) -> tuple[int, ...]:
        raise NotImplementedError

    def _features(self, sizes: Sequence[Any]) -> int:
        raise NotImplementedError

    def _joined(self, pixels: Sequence[np.ndarray], sizes: Sequence[Any]) -> np.ndarray:
        return np.concatenate(pixels)

    def _stored(self, arrays: Any) -> tuple[list[Any], list[np.ndarray]]:
        raise NotImplementedError


class Tiled(Pictured):
    """LLaVA-OneVision: tiles, and sizes in pixels."""

    def _pixels(self, inputs):
        return inputs["pixel_values"][0]

    def _size(self, picture):
        return (picture.height, picture.width)

    def _features(self, sizes):
        if not sizes:
            return 0
        found = self._module.picture_rows(sizes, config=self.model.config)
        return sum(len(rows) for rows, _ in found)

    def _joined(self, pixels, sizes):
        # Several pictures of a sample have a tile each, a single one as many as fit.
        count = self._module.tile_count(sizes, config=self.model.config) // len(sizes)
        return np.concatenate([tiles[:count] for tiles in pixels])

    def _stored(self, arrays):
        if "pixel_values" not in arrays:
            return [], []
        sizes = [tuple(int(n) for n in s) for s in matrix(arrays, "image_sizes")]
        pixels = matrix(arrays, "pixel_values", 5)
        if len(pixels) != len(sizes):
            raise ValueError(f"{len(pixels)} pixel_values for {len(sizes)} image_sizes")
        return sizes, list(pixels)

    def _most(self, groups):
        config = self.model.config
        samples = [s for group in groups for s in group]
        return max(self._module.tile_count(s.sizes, config=config) for s in samples)

    def _inputs(self, samples, tokens, valid, most):
        return self._module.model_inputs(
            tokens,
            valid,
            [None if s.pixels is None else s.pixels() for s in samples],
            [s.sizes for s in samples],
            config=self.model.config,
            tiles=most,
        )


class Patched(Pictured):
    """Qwen2-VL: patches, and grids of them."""

    def _pixels(self, inputs):
        return inputs["patches"]

    def _size(self, picture):
        return tuple(self._module.picture_grid(picture, self._processor.pictures))

    def _features(self, sizes):
        merge = self.model.config.vision.merge
        return sum(math.prod(size) // merge**2 for size in sizes)

    def _stored(self, arrays):
        if "pixel_values" not in arrays:
            return [], []
        grids = matrix(arrays, "image_grid_thw")
        sizes = [tuple(int(n) for n in grid) for grid in grids]
        pixels = matrix(arrays, "pixel_values")
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
        pixels = [s.pixels() for s in samples if s.pixels is not None]
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


_KINDS = {"llava_onevision": Tiled, "qwen2_vl": Patched}


def samples_of(model: registry.Model) -> Samples:
    """What makes samples for a model.

    Args:
      model: From `jeff.models.registry.load`.

    Returns:
      The maker of its architecture.
    """
    return _KINDS.get(model.architecture, Samples)(model)
