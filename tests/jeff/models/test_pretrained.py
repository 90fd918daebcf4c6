"""The trained network on real images, from pixels to answers."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jeff
from jeff import is_stored
from jeff.data import embedded
from jeff.models import efficientnet, pretrained, tiny_vlm
from jeff.quantize import QuantConfig, fused, matmul, quantize

RECORD = pathlib.Path(__file__).parents[3] / "benchmarks" / "records" / "tiny_vlm.json"
IMAGES = 24


@pytest.fixture(scope="module")
def questions():
    """All questions about the first test images, with their vision tokens."""
    data = embedded.load_vqa().test
    rows = data.image_index < IMAGES
    vision = pretrained.vqa_features(data.images[:IMAGES])
    return vision[data.image_index[rows]], data.tokens[rows], data.answers[rows]


def test_reaches_the_recorded_accuracy(questions):
    """Within 4 binomial standard errors of the value on all test questions."""
    if not RECORD.exists():
        pytest.skip("benchmarks/records is not beside the tests")
    measures = json.loads(RECORD.read_text())["measures"]
    (recorded,) = (m["value"] for m in measures if m["name"] == "accuracy.float16")
    vision, tokens, answers = questions
    assert len(answers) >= 200
    scores = jax.jit(pretrained.load_tiny_vlm().__call__)(vision, tokens)
    accuracy = (np.asarray(scores).argmax(axis=-1) == answers).mean()
    error = np.sqrt(recorded * (1 - recorded) / len(answers))
    assert recorded >= 0.92
    assert abs(accuracy - recorded) < 4 * error


def test_without_the_image_the_answers_are_wrong(questions):
    vision, tokens, answers = questions
    model = jax.jit(pretrained.load_tiny_vlm().__call__)
    blind = model(jnp.zeros_like(vision), tokens)
    assert (np.asarray(blind).argmax(axis=-1) == answers).mean() < 0.75


def test_batches_do_not_change_the_features():
    images = embedded.load_vqa().test.images[:17]  # one more than a batch
    together = pretrained.vqa_features(images)
    assert together.shape == (17, 16, 112) and together.dtype == jnp.float32
    alone = pretrained.vqa_features(images[16:])
    np.testing.assert_allclose(together[16:], alone, rtol=1e-3, atol=1e-3)


def test_features_are_standardised_over_training_images():
    """1,600 tokens: the mean of a channel is near 0 and its spread near 1."""
    vision = pretrained.vqa_features(embedded.load_vqa().calibration.images[:100])
    assert float(jnp.abs(vision.mean(axis=(0, 1))).mean()) < 0.1
    assert 0.9 < float(vision.std(axis=(0, 1)).mean()) < 1.1


def test_tokens_are_averages_of_the_encoder_map():
    params = pretrained.load_vision()
    images = jnp.asarray(embedded.load_vqa().test.images[:1])
    tokens = jax.jit(tiny_vlm.vision_tokens)(params, images)
    x = efficientnet.preprocess(images, size=128)
    run = jax.jit(lambda p, x: efficientnet.features(p, x, stage=5))
    grid = run(params["encoder"], x)[0]  # [8, 8, 112]
    expected = grid[2:4, 6:8].mean(axis=(0, 1))  # second row, last column
    expected = (expected - params["tokens"]["mean"]) / params["tokens"]["std"]
    np.testing.assert_allclose(tokens[0, 7], expected, rtol=1e-3, atol=1e-3)


def test_weights_that_do_not_fit_are_named(monkeypatch):
    arrays = embedded.load_weights("tiny_vlm")
    arrays["head.kernel"] = arrays["head.kernel"][:, :5]
    monkeypatch.setattr(embedded, "load_weights", lambda name: arrays)
    with pytest.raises(ValueError, match=r"does not fit the module: head\.kernel"):
        pretrained.load_tiny_vlm()


def test_bad_images_are_named():
    with pytest.raises(ValueError, match="images is empty"):
        pretrained.vqa_features(np.zeros((0, 64, 64, 3), np.uint8))
    with pytest.raises(TypeError, match="images must be uint8, got float32"):
        pretrained.vqa_features(np.zeros((1, 64, 64, 3), np.float32))
    with pytest.raises(ValueError, match=r"images must be \[batch, height, width, 3\]"):
        pretrained.vqa_features(np.zeros((1, 64, 64, 1), np.uint8))


def test_packed_layers_answer_by_every_product(questions):
    """Real weights of 3 bits: decoded first, multiplied packed, and by the kernel."""
    vision, tokens, answers = (a[:64] for a in questions)
    apply, params = jeff.functional(pretrained.load_tiny_vlm())
    config = QuantConfig(bits=3, group_size=64, zero_point="int_incl_zero")
    packed = jax.tree.map(
        lambda w: quantize(w, config, stride=16) if w.ndim == 3 else w, params
    )
    stored = [w for w in jax.tree.leaves(packed, is_leaf=is_stored) if is_stored(w)]
    assert len(stored) == 7  # all products of the layers
    decoded = jax.jit(jeff.rewrite(apply))(packed, vision, tokens)
    fused_too = jax.jit(jeff.rewrite(apply, fused))(packed, vision, tokens)
    np.testing.assert_allclose(fused_too, decoded, atol=2e-3)
    right = np.asarray(fused_too).argmax(axis=-1) == answers
    assert right.mean() > 0.8
    kernel = functools.partial(fused, implementation="mosaic_gpu")
    lowered = (
        jax.jit(jeff.rewrite(apply, kernel))
        .trace(packed, vision[:4], tokens[:4])
        .lower(lowering_platforms=("cuda",))
    )
    assert "mosaic_gpu_v2" in lowered.as_text()
    (down,) = jax.tree.leaves(params["layers"]["mlp"]["down"])
    down = down[0]
    w, x = quantize(down, config, stride=16), jnp.asarray(down[:, :4].T)
    np.testing.assert_allclose(
        matmul(x, w, implementation="interpret"), x @ w.decode(), atol=1e-5
    )
