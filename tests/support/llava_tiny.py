"""The tiny LLaVA-OneVision of tests/golden and what the original computes with it."""

import functools
import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from jeff.io import checkpoint
from jeff.models import llava_onevision, tensors

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FOLDER = GOLDEN / "llava_onevision_tiny"
SITES = {  # ours: the original's, in layer 0 and 1
    f"layers.{i}.{ours}.kernel": f"{i}.{theirs}"
    for i in (0, 1)
    for ours, theirs in (
        ("attention.output", "self_attn.o_proj"),
        ("mlp.down", "mlp.down_proj"),
    )
}


class Case(NamedTuple):
    """A model, its inputs and the stored outputs by name."""

    config: llava_onevision.Config
    params: dict[str, Any]
    inputs: dict[str, np.ndarray]
    stored: dict[str, np.ndarray]
    apply: Any  # apply(params, inputs)

    @property
    def sizes(self):
        """(height, width) of each sample's picture."""
        return [[tuple(size)] for size in self.stored["image_sizes"].tolist()]

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
    config = llava_onevision.config_from_json(read.config)
    named = tensors.renamed(read.tensors, llava_onevision.rename)
    params = tensors.to_params(llava_onevision.tensor_table(config), named)
    with np.load(FOLDER / "io.npz") as file:
        stored = {name: file[name] for name in file.files}
    inputs = llava_onevision.model_inputs(
        stored["input_ids"],
        stored["attention_mask"],
        stored["pixel_values"],
        [[tuple(size)] for size in stored["image_sizes"].tolist()],
        config=config,
    )
    apply = functools.partial(llava_onevision.apply, config=config)
    return Case(config, params, inputs, stored, apply)


@functools.cache
def preprocessed() -> dict[str, Any]:
    """What the original makes of pictures, with its settings under ``meta``."""
    file = GOLDEN / "llava_preprocess.npz"
    if not file.exists():
        pytest.skip(f"golden file {file.name} is absent from tests/golden")
    with np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return {**arrays, "meta": json.loads(bytes(arrays["meta_json"]))}
