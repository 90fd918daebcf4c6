"""The decoder on its own, at random weights: masks, padding, stacking, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jeff import tree
from jeff.models import tiny_vlm

QUESTIONS = ["is a red shape present?", "what is the color of the circle?"]


@pytest.fixture(scope="module")
def model():
    config = tiny_vlm.TinyVLMConfig(layers=2)
    return nnx.jit(lambda: tiny_vlm.TinyVLM(config, rngs=nnx.Rngs(0)))()


@pytest.fixture(scope="module")
def inputs():
    vision = jax.random.normal(jax.random.key(1), (2, 16, 112))
    return vision, tiny_vlm.tokenize(QUESTIONS)


@jax.jit
def run(model, vision, tokens):
    return model(vision, tokens)


@jax.jit
def run_everywhere(model, vision, tokens):
    return model(vision, tokens, all_positions=True)


def plain_forward(params, vision, tokens, heads=4):
    """The same network in NumPy, one example and one head at a time."""

    def norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale

    words = tokens[tokens != tiny_vlm.PAD]
    v = vision @ params["projector.kernel"] + params["projector.bias"]
    v = v + params["vision_position"]
    w = params["embed.embedding"][words] + params["word_position"][-len(words) :]
    x, image = np.concatenate([v, w]), len(v)
    n, width = x.shape
    allowed = np.tril(np.ones((n, n), bool))
    allowed[:, :image] = True
    for i in range(len(params["layers.attention_norm.scale"])):
        p = {k[7:]: a[i] for k, a in params.items() if k.startswith("layers.")}
        h = norm(x, p["attention_norm.scale"])
        q, k, u = (h @ p[f"attention.{s}.kernel"] for s in ("query", "key", "value"))
        y, d = np.zeros_like(x), width // heads
        for j in range(heads):
            part = slice(j * d, (j + 1) * d)
            scores = np.where(allowed, q[:, part] @ k[:, part].T / np.sqrt(d), -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            y[:, part] = weights / weights.sum(-1, keepdims=True) @ u[:, part]
        x = x + y @ p["attention.output.kernel"]
        h = norm(x, p["mlp_norm.scale"])
        gate = h @ p["mlp.gate.kernel"]
        h = gate / (1 + np.exp(-gate)) * (h @ p["mlp.up.kernel"])
        x = x + h @ p["mlp.down.kernel"]
    return norm(x, params["norm.scale"]) @ params["head.kernel"]


def test_agrees_with_a_plain_forward(model, inputs):
    leaves, _ = tree.flatten(nnx.state(model))
    params = {n: np.asarray(leaf, np.float64) for n, leaf in leaves.items()}
    vision, tokens = map(np.asarray, inputs)
    scores = model(*inputs)
    everywhere = run_everywhere(model, *inputs)
    for i in range(len(QUESTIONS)):
        expected = plain_forward(params, vision[i], tokens[i])
        np.testing.assert_allclose(scores[i], expected[-1], rtol=2e-4, atol=2e-5)
        kept = np.r_[:16, 16 + np.flatnonzero(tokens[i])]
        np.testing.assert_allclose(everywhere[i][kept], expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("row", [0, 1])
def test_padding_does_not_change_the_answer(model, inputs, row):
    vision, tokens = (x[row : row + 1] for x in inputs)
    words = len(QUESTIONS[row].split())
    padded = run(model, vision, tokens)
    alone = run(model, vision, tokens[:, -words:])
    np.testing.assert_allclose(padded, alone, rtol=1e-4, atol=1e-5)


def test_words_are_causal_and_images_see_only_images(model, inputs):
    vision, tokens = inputs
    scores = run_everywhere(model, vision, tokens)
    later = run_everywhere(model, vision, tokens.at[:, -1].set(1))
    np.testing.assert_allclose(later[:, :-1], scores[:, :-1], rtol=1e-5, atol=1e-6)
    assert np.abs(later[:, -1] - scores[:, -1]).max() > 1e-2
    other = run_everywhere(model, vision.at[:, -1].add(1.0), tokens)
    assert (np.abs(other - scores).max(axis=-1) > 1e-6).all()  # also earlier tokens


def test_layers_are_stacked_and_paths_read_well(model):
    leaves, _ = tree.flatten(nnx.state(model))
    assert leaves["layers.attention.query.kernel"].shape == (2, 128, 128)
    assert leaves["layers.mlp.down.kernel"].shape == (2, 256, 128)
    first, second = leaves["layers.mlp.up.kernel"]
    assert not np.allclose(first, second)


def test_full_size_has_the_weights_of_the_recipe():
    shapes = nnx.eval_shape(
        lambda: tiny_vlm.TinyVLM(tiny_vlm.TinyVLMConfig(), rngs=nnx.Rngs(0))
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(shapes))) == 681_344


def test_jit_vmap_and_grad(model, inputs):
    graph, state = nnx.split(model)
    traces = []

    @jax.jit
    def apply(state, vision, tokens):
        traces.append(1)
        return nnx.merge(graph, state)(vision, tokens)

    scores = apply(state, *inputs)
    apply(jax.tree.map(lambda x: 2 * x, state), *inputs)
    assert len(traces) == 1
    np.testing.assert_allclose(scores, model(*inputs), rtol=1e-4, atol=1e-5)
    # The parameters of `model` are closed over, not arguments.
    single = jax.jit(jax.vmap(lambda v, t: model(v[None], t[None])[0]))(*inputs)
    np.testing.assert_allclose(single, scores, rtol=1e-4, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda s: apply(s, *inputs).sum()))(state)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient))


def test_masks_cover_all_positions_but_padding():
    tokens = tiny_vlm.tokenize(QUESTIONS)
    masks = tiny_vlm.token_masks(tokens)
    vision, language = masks["vision"], masks["language"]
    assert vision.shape == language.shape == (2, 25) and vision.dtype == bool
    assert not (vision & language).any()
    np.testing.assert_array_equal(vision.sum(axis=1), [16, 16])
    np.testing.assert_array_equal(language.sum(axis=1), [5, 7])
    np.testing.assert_array_equal(~(vision | language)[:, 16:], tokens == tiny_vlm.PAD)


@pytest.mark.parametrize(
    ("vision", "tokens", "message"),
    [
        ((1, 15, 112), (1, 9), r"vision must be \(1, 16, 112\), got \(1, 15, 112\)"),
        ((2, 16, 112), (1, 9), r"vision must be \(1, 16, 112\), got \(2, 16, 112\)"),
        ((1, 16, 112), (1, 10), r"tokens must be \[batch, 1\.\.9\], got \(1, 10\)"),
        ((1, 16, 112), (1, 0), r"got \(1, 0\)"),
    ],
)
def test_bad_shapes_are_named(model, vision, tokens, message):
    with pytest.raises(ValueError, match=message):
        model(jnp.zeros(vision), jnp.zeros(tokens, jnp.int32))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"layers": 0}, "layers must be a positive int, got 0"),
        ({"width": 1.5}, "width must be a positive int, got 1.5"),
        ({"heads": 3}, "heads must divide width 128: 3"),
    ],
)
def test_bad_sizes_are_named(field, message):
    with pytest.raises(ValueError, match=message):
        tiny_vlm.TinyVLMConfig(**field)
