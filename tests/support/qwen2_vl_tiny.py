"""The tiny Qwen2-VL checkpoint of tests/golden and what the original computes."""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from jeff.io import checkpoint
from jeff.models import qwen2_vl, tensors

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "qwen2_vl_tiny"


class Case(NamedTuple):
    """A model, its inputs and the stored outputs by name."""

    config: qwen2_vl.Config
    params: dict[str, Any]
    inputs: dict[str, np.ndarray]
    stored: dict[str, np.ndarray]
    apply: Any  # apply(params, inputs)

    def loss(self, logits, labels):
        """Mean over the labelled tokens of the batch, as the original has it."""
        scores = jax.nn.log_softmax(logits[:, :-1])
        labels = labels[:, 1:]
        picked = jax.numpy.take_along_axis(scores, abs(labels)[..., None] % 160, -1)
        return -picked[..., 0].mean(where=labels != -100)


@functools.cache
def load() -> Case:
    """Reads the fixture once a process; skips the test where it is absent."""
    if not FOLDER.exists():
        pytest.skip(f"golden folder {FOLDER.name} is absent from tests/golden")
    read = checkpoint.read_checkpoint(FOLDER)
    config = qwen2_vl.config_from_json(read.config)
    named = tensors.renamed(read.tensors, qwen2_vl.rename)
    params = tensors.to_params(qwen2_vl.tensor_table(config), named)
    with np.load(FOLDER / "io.npz") as file:
        stored = {name: file[name] for name in file.files}
    inputs = qwen2_vl.model_inputs(
        stored["input_ids"],
        stored["attention_mask"],
        stored["pixel_values"],
        stored["image_grid_thw"],
        config=config,
    )
    apply = functools.partial(qwen2_vl.apply, config=config)
    return Case(config, params, inputs, stored, apply)
