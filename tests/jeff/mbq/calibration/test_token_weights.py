import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_reference as ref
from support import mbq_toy

from jeff import mbq as tw

VISION = np.array([[True, True, False, False], [True, False, False, False]])
ANSWER = np.array([[False, False, False, True], [False, False, True, True]])
MASKS = {"vision": jnp.asarray(VISION), "language": jnp.asarray(ANSWER)}


def three_modalities(rng, batch=3, tokens=16):
    """Random disjoint masks of three modalities and of tokens in none, and ratios."""
    kind = rng.integers(0, 4, (batch, tokens))
    kind[0, :3] = 0, 1, 2  # every modality has a token
    names = "audio", "vision", "language"
    masks = {name: jnp.asarray(kind == i) for i, name in enumerate(names)}
    return masks, {name: rng.uniform(0.1, 2.0) for name in names}


def test_ratio_of_the_paper_weighs_vision_tokens():
    got = tw.token_weights(MASKS, {"vision": 0.02, "language": 0.2})
    np.testing.assert_allclose(got, 0.1 * VISION + 1.0 * ANSWER, rtol=1e-6)
    assert got.dtype == jnp.float32


@pytest.mark.parametrize(
    ("mode", "vision", "language"),
    [("uniform", 1.0, 1.0), ("answer", 0.0, 1.0), ("sensitivity", 0.02, 0.2)],
)
def test_other_modes(mode, vision, language):
    got = tw.token_weights(MASKS, {"vision": 0.02, "language": 0.2}, mode=mode)
    np.testing.assert_allclose(got, vision * VISION + language * ANSWER, rtol=1e-6)


def test_ratios_are_weights_of_themselves():
    sensitivity = {"vision": 0.02, "language": 0.2}
    ratios = tw.modality_ratio(sensitivity)
    np.testing.assert_array_equal(
        tw.token_weights(MASKS, ratios), tw.token_weights(MASKS, sensitivity)
    )


def test_any_number_of_modalities_and_another_reference():
    masks, sensitivity = three_modalities(np.random.default_rng(0))
    got = tw.token_weights(masks, sensitivity, reference="audio")
    for name, mask in masks.items():
        want = sensitivity[name] / sensitivity["audio"]
        np.testing.assert_allclose(got[mask], want, rtol=1e-6)
    nowhere = ~(masks["audio"] | masks["vision"] | masks["language"])
    assert nowhere.any() and not got[nowhere].any()


@pytest.mark.parametrize("seed", range(20))
def test_average_over_modalities_gives_each_its_own_mean(seed):
    """``sum w e / n == sum_m r_m mean_m(e)``, the original's normalisation of MSE."""
    rng = np.random.default_rng(seed)
    masks, sensitivity = three_modalities(rng)
    error = rng.exponential(size=(3, 16))
    weights = tw.token_weights(masks, sensitivity, average="modalities")
    n = sum(int(mask.sum()) for mask in masks.values())
    want = sum(
        sensitivity[name] / sensitivity["language"] * error[np.asarray(mask)].mean()
        for name, mask in masks.items()
    )
    np.testing.assert_allclose((np.asarray(weights) * error).sum() / n, want, rtol=1e-5)


def test_parts_of_the_calibration_set_with_counts():
    whole = tw.token_weights(MASKS, mode="uniform", average="modalities")
    counts = {name: mask.sum() for name, mask in MASKS.items()}
    parts = [
        tw.token_weights(
            {name: mask[i : i + 1] for name, mask in MASKS.items()},
            mode="uniform",
            average="modalities",
            counts=counts,
        )
        for i in range(2)
    ]
    np.testing.assert_allclose(jnp.concatenate(parts), whole, rtol=1e-6)


def test_layers_come_out_in_front():
    sensitivity = {"vision": jnp.array([0.1, 0.3, 0.0]), "language": jnp.ones(3)}
    got = tw.token_weights(MASKS, sensitivity)
    assert got.shape == (3, 2, 4)
    for layer, ratio in enumerate([0.1, 0.3, 0.0]):
        np.testing.assert_allclose(got[layer], ratio * VISION + ANSWER, rtol=1e-6)
    got = tw.token_weights(MASKS, sensitivity, mode="ratio_floor")
    for layer, ratio in enumerate([0.1, 0.3, 0.1]):
        np.testing.assert_allclose(got[layer], ratio * VISION + ANSWER, rtol=1e-6)


def test_floor_is_the_median_with_numpys_rule_for_even_counts():
    np.testing.assert_allclose(tw.floored([0.5, 0.1, 0.3]), [0.5, 0.3, 0.3])
    np.testing.assert_allclose(tw.floored([0.4, 0.1, 0.2, 0.9]), [0.4, 0.3, 0.3, 0.9])


def test_explicit_floor():
    got = tw.modality_ratio({"vision": [0.1, 0.4], "language": [1.0, 1.0]}, floor=0.2)
    np.testing.assert_allclose(got["vision"], [0.2, 0.4])
    np.testing.assert_allclose(got["language"], [1.0, 1.0])


def test_gradient_means_are_per_sample_first():
    gradient = jnp.array([[1.0, 3.0, 9.0, 5.0], [8.0, 9.0, 1.0, 2.0]])
    got = tw.modality_gradient(gradient, MASKS)
    np.testing.assert_allclose(got["vision"].value, (2.0 + 8.0) / 2)
    np.testing.assert_allclose(got["language"].value, (5.0 + 1.5) / 2)


def test_gradient_means_skip_samples_without_the_modality_and_stream():
    gradient = jnp.arange(24.0).reshape(2, 3, 4)  # two layers, three samples
    text_only = np.zeros((1, 4), bool)
    masks = {
        "vision": np.concatenate([VISION, text_only]),
        "language": np.concatenate([ANSWER, ~text_only]),
    }
    whole = tw.modality_gradient(gradient, masks)
    assert whole["vision"].count == 2 and whole["language"].count == 3
    np.testing.assert_allclose(whole["vision"].value, [(0.5 + 4) / 2, (12.5 + 16) / 2])
    head = tw.modality_gradient(gradient[:, :1], jax.tree.map(lambda m: m[:1], masks))
    tail = tw.modality_gradient(gradient[:, 1:], jax.tree.map(lambda m: m[1:], masks))
    for name, mean in whole.items():
        merged = head[name].merge(tail[name])
        np.testing.assert_allclose(merged.value, mean.value, rtol=1e-6)


@pytest.mark.parametrize("which", ["mha", "gqa"])
def test_original_sensitivities_and_floored_ratios(which):
    meta, z = mbq_toy.load(which)
    params, batch = mbq_toy.make_params(meta), mbq_toy.make_batch(z)
    masks = {"vision": batch["vision_mask"], "language": batch["caption_mask"]}
    grads = mbq_toy.output_gradients(params, batch, mbq_toy.make_taps(params, batch))
    for name, group in (
        ("self_attn.o_proj", "self_attn.q_proj"),
        ("mlp.down_proj", "mlp.gate_proj"),
    ):
        per_token = jnp.stack([jnp.abs(g[name]).mean(axis=-1) for g in grads])
        means = tw.modality_gradient(per_token, masks)
        for i in range(meta["layers"]):
            got = means["vision"].value[i], means["language"].value[i]
            stored = z[f"sens/layers.{i}.{name}/mean_vis_ans"]
            np.testing.assert_allclose(got, stored, rtol=1e-4, atol=1e-12)
        ratio = tw.modality_ratio({n: m.value for n, m in means.items()})["vision"]
        stored = [
            z[f"w3_mae_rw/{layer}.{group}/ratio"] for layer in mbq_toy.layer_names(meta)
        ]
        np.testing.assert_allclose(tw.floored(ratio), stored, rtol=1e-4)


@pytest.mark.parametrize("layers", range(1, 8))
def test_floored_ratios_match_the_reference(layers):
    rng = np.random.default_rng(layers)
    vision, language = rng.uniform(0.01, 1.0, (2, layers))
    got = tw.floored(
        tw.modality_ratio({"vision": vision, "language": language})["vision"]
    )
    np.testing.assert_allclose(got, ref.floored_ratios(vision, language), rtol=1e-6)


def test_jit_vmap_and_no_retrace():
    @chex.assert_max_traces(1)
    def weights(masks, sensitivity):
        return tw.token_weights(masks, sensitivity, average="modalities")

    fast = jax.jit(weights)
    for vision in (0.1, 0.4):
        sensitivity = {"vision": jnp.float32(vision), "language": jnp.float32(0.8)}
        want = tw.token_weights(MASKS, sensitivity, average="modalities")
        np.testing.assert_allclose(fast(MASKS, sensitivity), want, rtol=1e-6)
    vision = jnp.array([0.1, 0.4])
    got = jax.vmap(lambda v: tw.token_weights(MASKS, {"vision": v, "language": 1.0}))(
        vision
    )
    want = tw.token_weights(MASKS, {"vision": vision, "language": 1.0})
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"masks": {}}, ValueError, "at least one modality"),
        ({"masks": {"language": ANSWER.astype(np.int32)}}, TypeError, "int32"),
        ({"masks": {"language": ANSWER[0]}}, ValueError, r"got \(4,\)"),
        (
            {"masks": {"vision": VISION[:, :3], "language": ANSWER}},
            ValueError,
            r"masks\['language'\].*\(2, 3\), got \(2, 4\)",
        ),
        (
            {"masks": {"vision": ~ANSWER, "language": VISION}},
            ValueError,
            r"masks\['language'\] overlaps another at \(sample, token\) \(0, 0\)",
        ),
        (
            {"masks": {"vision": np.zeros_like(VISION), "language": ANSWER}},
            ValueError,
            r"masks\['vision'\] has no token",
        ),
        (
            {"counts": {"vision": 0, "language": 3}},
            ValueError,
            r"counts\['vision'\] has no token",
        ),
        ({"counts": {"vision": 3}}, ValueError, r"counts must have the modalities"),
        ({"sensitivity": None}, ValueError, "'ratio' needs a sensitivity"),
        ({"sensitivity": {"vision": 1.0}}, ValueError, "sensitivity must have"),
        (
            {"sensitivity": {"vision": 1.0, "language": 0.0}},
            ValueError,
            "'language' must be finite and positive, got 0.0",
        ),
        (
            {"sensitivity": {"vision": [0.1, np.nan], "language": [1.0, 1.0]}},
            ValueError,
            r"'vision' must be finite and not negative, got nan at index \[1\]",
        ),
        ({"mode": "median"}, ValueError, "got 'median'"),
        ({"mode": "ratio_floor"}, ValueError, "axis of layers"),
        ({"average": "all"}, ValueError, "got 'all'"),
        ({"reference": "text"}, ValueError, "got 'text'"),
    ],
)
def test_bad_input(change, error, message):
    settings = {
        "masks": MASKS,
        "sensitivity": {"vision": 0.1, "language": 1.0},
    } | change
    with pytest.raises(error, match=message):
        tw.token_weights(settings.pop("masks"), settings.pop("sensitivity"), **settings)


def test_bad_gradient_shape_and_floor():
    with pytest.raises(ValueError, match=r"= \(2, 5\), got \(2, 4\)"):
        tw.modality_gradient(jnp.ones((2, 5)), MASKS)
    with pytest.raises(ValueError, match=r"got shape \(0,\)"):
        tw.floored(jnp.ones(0))
    with pytest.raises(ValueError, match="got 'text'"):
        tw.modality_ratio({"vision": 1.0, "language": 1.0}, reference="text")
