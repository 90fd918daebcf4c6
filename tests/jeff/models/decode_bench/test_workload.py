import dataclasses

import jax
import pytest

from jeff.models.decode_bench import weights, workload


def test_shapes_are_those_of_the_published_models():
    """Weights of Qwen2-7B's language model and SmolLM2-135M, embedding counted once.

    Their model cards say 7.6 and 0.135 billion.
    """
    counts = {}
    for name in ("llava_onevision_7b", "smollm2_135m"):
        tree = weights._spec(workload.DECODERS[name])
        layer = sum(a.size for a in jax.tree.leaves(tree.pop("layers")))
        rest = sum(a.size for a in jax.tree.leaves(tree))
        counts[name] = workload.DECODERS[name].layers * layer + rest
    assert counts == {"llava_onevision_7b": 7615616512, "smollm2_135m": 134515008}


def test_packed_layers_are_never_dense():
    """Shapes alone: a 7B decoder in 3 bits is compiled for 3 GB, not for 26."""
    config = workload.DECODERS["llava_onevision_7b"]
    spec = jax.eval_shape(
        lambda: weights.layers(0, config, workload.SCHEMES["w3"], dtype="bfloat16")
    )
    stored = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(spec))
    matrices = 28 * (2 * 3584 * (3584 + 512) + 3 * 3584 * 18944)
    # 3 bits, and per 128 weights a scale of 16 bits and a zero point of 8
    assert stored == matrices * (3 + 24 / 128) / 8 + 28 * 2 * (2 * 3584 + 3584 + 1024)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": ()}, "weights must not be empty"),
        ({"prefill_weights": ("w5",)}, "prefill_weights must be of dense, w2"),
        ({"batches": (1, 0)}, "batches must be positive, got 0"),
        ({"repeats": 0}, "repeats must be positive, got 0"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        workload.Settings(**changes)


def test_matrices_must_fill_words():
    odd = dataclasses.replace(workload.DECODERS["toy"], hidden=50)
    with pytest.raises(ValueError, match="toy has matrices of 32 and 50 rows"):
        workload.Settings(decoders=(("toy", odd),))
