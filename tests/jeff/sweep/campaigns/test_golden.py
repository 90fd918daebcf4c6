"""Golden outputs, and data in batches."""

import jax.numpy as jnp
import numpy as np
import pytest
from support import fault_nets

from jeff.quantize import QuantConfig, quantize
from jeff.sweep import examples, golden_outputs
from jeff.sweep.campaigns.batches import in_batches, spread


def test_they_are_the_outputs_whatever_the_batch():
    net = fault_nets.mlp()
    whole = np.asarray(net.apply(net.params, net.data.inputs))
    for batch in (3, 16):
        got = golden_outputs(net.apply, net.params, net.data.inputs, batch=batch)
        assert got.shape == (10, 5)
        np.testing.assert_allclose(got, whole, rtol=1e-5, atol=1e-6)


def test_several_inputs_and_stored_weights():
    w = quantize(jnp.eye(8), QuantConfig(bits=4, group_size=8))
    x, y = np.eye(8, dtype=np.float32), np.ones((8, 1), np.float32)
    data = examples(lambda p, x, y: x @ p["w"] + y, {"w": w}, (x, y), batch=8)
    np.testing.assert_allclose(data.golden, w.decode() + 1, rtol=1e-6)
    np.testing.assert_array_equal(data.labels, np.arange(8))


def test_labels_are_kept_as_int32():
    net = fault_nets.mlp()
    assert net.data.labels.dtype == np.int32
    np.testing.assert_array_equal(net.data.labels, np.arange(10) % 5)


def test_what_is_not_finite_is_refused():
    x = np.zeros((6, 2), np.float32)
    x[[2, 5]] = np.inf, np.nan
    with pytest.raises(ValueError, match="for 2 of 6 examples, first for example 2"):
        golden_outputs(lambda p, x: x, {}, x, batch=4)


@pytest.mark.parametrize(
    ("apply", "error", "match"),
    [
        (lambda p, x: x[0], ValueError, r"logits \[4, classes\], got shape \(2,\)"),
        (lambda p, x: x.sum(), ValueError, r"got shape \(\)"),
        (lambda p, x: {"y": x}, ValueError, "got dict"),
        (lambda p, x: x.argmax(-1)[:, None], TypeError, "floating logits, got int32"),
    ],
)
def test_outputs_must_be_logits(apply, error, match):
    with pytest.raises(error, match=match):
        golden_outputs(apply, {}, np.zeros((4, 2), np.float32), batch=4)


def test_labels_must_fit():
    x = np.eye(3, dtype=np.float32)
    made = lambda labels: examples(lambda p, x: x, {}, x, labels)  # noqa: E731
    with pytest.raises(TypeError, match="labels must be integers, got float"):
        made(np.zeros(3))
    with pytest.raises(ValueError, match=r"labels are \(2,\) for 3 examples"):
        made(np.zeros(2, int))
    with pytest.raises(ValueError, match=r"in \[0, 3\), got 3 for example 1"):
        made(np.array([0, 3, 1]))


def test_batches():
    data = {"a": np.arange(5), "b": np.arange(10).reshape(5, 2)}
    parts = list(in_batches(data, 2))
    assert [count for _, count in parts] == [2, 2, 1]
    np.testing.assert_array_equal(parts[-1][0]["b"], [[8, 9], [8, 9]])
    assert spread((1, 2)) == (1, 2) and spread([1, 2]) == ([1, 2],)
    with pytest.raises(ValueError, match="one leading axis of examples in common"):
        list(in_batches((np.zeros(3), np.zeros(4)), 2))
    with pytest.raises(ValueError, match="one leading axis"):
        list(in_batches(np.float32(1), 2))
    with pytest.raises(ValueError, match="one leading axis"):
        list(in_batches(np.zeros((0, 2)), 2))
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        list(in_batches(np.zeros(3), 0))
