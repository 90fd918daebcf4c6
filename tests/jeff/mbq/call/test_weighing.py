import re

import numpy as np
import pytest

from jeff.mbq import BalanceConfig, Batch, Group
from jeff.mbq.call.weighing import check_tokens, weigher
from jeff.quantize import QuantConfig

VISION = np.array([[True, True, True, False, False]])
ANSWER = np.array([[False, False, False, True, False]])
BATCH = Batch((), {"vision": VISION, "language": ANSWER})
SEEN = {
    "out": {
        "vision": np.array([0.1, 0.6, 0.0]),
        "language": np.array([0.2, 2.0, 1.0]),
    }
}


def group(inspect="out", y_shape=(1, 5, 8)):
    return Group(
        sites=("in",),
        inspect=inspect,
        y_shape=y_shape,
        region=None,
        targets={},
        sources={},
        share=np.arange(4),
        elementwise=False,
    )


def config(**fields):
    return BalanceConfig(weights=QuantConfig(bits=4), **fields)


@pytest.mark.parametrize(
    ("reweight", "ratios"),
    [("ratio", [0.5, 0.3, 0.0]), ("ratio_floor", [0.5, 0.3, 0.3])],
)
def test_ratios_of_every_block(reweight, ratios):
    weigh = weigher([BATCH], config(reweight=reweight), SEEN)
    for block, ratio in enumerate(ratios):
        tokens, row = weigh(group(), block, BATCH)
        np.testing.assert_allclose(tokens, [[ratio] * 3 + [1.0, 0.0]], rtol=1e-6)
        assert row["language"] == 1.0
        np.testing.assert_allclose(row["vision"], ratio, rtol=1e-6)


def test_weights_without_gradients():
    uniform, row = weigher([BATCH], config(reweight="uniform"), {})(group(), 0, BATCH)
    np.testing.assert_array_equal(uniform, [[1, 1, 1, 1, 0]])
    assert row == {}
    answer, _ = weigher([BATCH], config(reweight="answer"), {})(group(), 0, BATCH)
    np.testing.assert_array_equal(answer, [[0, 0, 0, 1, 0]])
    assert weigher([BATCH], config(reweight="none"), {})(group(), 0, BATCH) == (
        None,
        {},
    )


def test_squared_error_averages_over_the_whole_calibration_set():
    """``n / n_m``: 6 vision and 2 answer tokens in both batches together."""
    fields = {"reweight": "uniform", "loss": "mse"}
    tokens, _ = weigher([BATCH, BATCH], config(**fields), {})(group(), 0, BATCH)
    np.testing.assert_allclose(tokens, [[8 / 6] * 3 + [4.0, 0.0]], rtol=1e-6)


def test_other_reference():
    seen = {"out": {m: g[:2] for m, g in SEEN["out"].items()}}
    weigh = weigher([BATCH], config(reweight="ratio", reference="vision"), seen)
    tokens, _ = weigh(group(), 0, BATCH)
    np.testing.assert_allclose(tokens, [[1.0, 1.0, 1.0, 2.0, 0.0]], rtol=1e-6)
    message = "site 'out': sensitivity of 'vision' must be finite and positive"
    with pytest.raises(ValueError, match=message):  # it is 0 in the last block
        weigher([BATCH], config(reweight="ratio", reference="vision"), SEEN)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_useless_sensitivities_are_refused(bad):
    seen = {"out": {**SEEN["out"], "language": np.array([1.0, bad, 1.0])}}
    with pytest.raises(ValueError, match=r"site 'out'.*index \[1\]; check loss and"):
        weigher([BATCH], config(), seen)


def test_masks_are_held_against_the_inspected_sites():
    check_tokens([BATCH], [group(), group(y_shape=(5, 8))], "language")
    message = (
        "masks must have a token for every row of site 'tower', whose output has "
        "shape (1, 7, 8); got masks of shape (1, 5)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        check_tokens([BATCH], [group(), group("tower", (1, 7, 8))], "language")
    with pytest.raises(ValueError, match="reference must be one of the modalities"):
        check_tokens([BATCH], [group()], "text")
