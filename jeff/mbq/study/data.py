"""Questions for ``jeff run mbq``: easy-VQA as the embedded decoder takes it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff.data import embedded
from jeff.evaluate import Progress
from jeff.mbq.calibration.batches import Batch
from jeff.models import pretrained, tiny_vlm

__all__ = ["Questions", "batch", "parts", "shapes"]


class Questions(NamedTuple):
    """Questions with the vision tokens of their images.

    Attributes:
      vision: float32 ``[questions, vision tokens, features]``.
      tokens: int32 ``[questions, words]``.
      answers: int32 ``[questions]``.

    Examples:
      >>> few = Questions(np.zeros((5, 16, 112)), np.zeros((5, 9)), np.arange(5))
      >>> few.draw(np.random.default_rng(0), 2).answers.shape
      (2,)
    """

    vision: np.ndarray
    tokens: np.ndarray
    answers: np.ndarray

    def draw(self, rng: np.random.Generator, size: int) -> "Questions":
        """Different questions at random.

        Args:
          rng: Source of the draw.
          size: How many; all of them if there are fewer.

        Returns:
          The questions.
        """
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
    """Questions as a calibration batch with masks of vision and language tokens.

    Args:
      questions: The questions.

    Returns:
      One batch; padding is in no mask.

    Examples:
      >>> tokens = np.array([[0, 0, 0, 0, 20, 14, 9, 24, 23]])
      >>> made = batch(Questions(np.zeros((1, 16, 112)), tokens, np.array([12])))
      >>> {name: int(mask.sum()) for name, mask in made.masks.items()}
      {'vision': 16, 'language': 5}
    """
    tokens = jnp.asarray(questions.tokens)
    return Batch(
        inputs=(jnp.asarray(questions.vision), tokens),
        masks=tiny_vlm.token_masks(tokens),
        targets=jnp.asarray(questions.answers),
    )


def shapes(data: embedded.VQA) -> Batch:
    """One question about nothing, for methods that use no more than shapes.

    Args:
      data: From `jeff.data.embedded.load_vqa`.

    Returns:
      A batch of one sample, without masks.

    Examples:
      >>> [x.shape for x in shapes(embedded.load_vqa()).inputs]
      [(1, 16, 112), (1, 9)]
    """
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
