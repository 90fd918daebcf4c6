"""Questions for ``jeff run mbq``: easy-VQA as the embedded decoder takes it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff.data import embedded
from jeff.evaluate import Progress
from jeff.mbq.calibration import Batch
from jeff.models import pretrained, tiny_vlm

__all__ = ["Questions", "batch", "parts", "shapes"]


class Questions(NamedTuple):
    """Questions with the vision tokens of their images.

    Attributes:
      vision: float32 ``[questions, vision tokens, features]``.
      tokens: int32 ``[questions, words]``.
      answers: int32 ``[questions]``.
    """

    vision: np.ndarray
    tokens: np.ndarray
    answers: np.ndarray

    def draw(self, rng: np.random.Generator, size: int) -> "Questions":
        """`size` different questions, at random."""
        rows = rng.permutation(len(self.answers))[:size]
        return Questions(self.vision[rows], self.tokens[rows], self.answers[rows])


def parts(data: embedded.VQA, progress: Progress) -> tuple[Questions, Questions]:
    """Looks at every image.

    Args:
      data: From `jeff.data.embedded.load_vqa`.
      progress: Told about the batches of images.

    Returns:
      Questions to calibrate on and held-out questions.
    """
    images = np.concatenate([data.calibration.images, data.test.images])
    features = _features(images, progress)
    split = len(data.calibration.images)

    def part(source: embedded.VQAPart, values: np.ndarray) -> Questions:
        return Questions(values[source.image_index], source.tokens, source.answers)

    return (
        part(data.calibration, features[:split]),
        part(data.test, features[split:]),
    )


def batch(questions: Questions) -> Batch:
    """Questions as a calibration batch with masks of vision and language tokens."""
    tokens = jnp.asarray(questions.tokens)
    return Batch(
        inputs=(jnp.asarray(questions.vision), tokens),
        masks=tiny_vlm.token_masks(tokens),
        targets=jnp.asarray(questions.answers),
    )


def shapes(data: embedded.VQA) -> Batch:
    """One question about nothing, for methods that use no more than shapes."""
    vision = jax.eval_shape(
        tiny_vlm.vision_tokens, pretrained.load_vision(), data.test.images[:1]
    )
    tokens = jnp.asarray(data.test.tokens[:1])
    return Batch(inputs=(jnp.zeros(vision.shape, vision.dtype), tokens))


def _features(images: np.ndarray, progress: Progress, size: int = 50) -> np.ndarray:
    """Vision tokens of images, in batches of one compiled program."""
    count = -(-len(images) // size)
    progress.stage("look at the images", count)
    padding = np.repeat(images[-1:], count * size - len(images), 0)
    padded = np.concatenate([images, padding])
    look = jax.jit(tiny_vlm.vision_tokens)
    vision = pretrained.load_vision()
    seen = []
    for i in range(count):
        seen.append(np.asarray(look(vision, padded[i * size : (i + 1) * size])))
        progress.advance()
    return np.concatenate(seen)[: len(images)]
