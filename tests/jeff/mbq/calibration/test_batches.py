import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.mbq import Batch, check_batches
from jeff.mbq.calibration.batches import check_modalities, fits_tokens

VISION = np.array([[True, True, False, False]])
LANGUAGE = np.array([[False, False, False, True]])
MASKS = {"vision": VISION, "language": LANGUAGE}


def batch(x=0.0, masks=MASKS, targets=None):
    return Batch((jnp.full((1, 4, 2), x),), masks, targets)


def test_accepts_batches_of_anything():
    inputs = ({"ids": jnp.arange(3), "key": jax.random.key(0)}, [None, 2.0])
    batches = [Batch(inputs), Batch(inputs)]
    assert check_batches(batches) == tuple(batches)
    half = Batch((jnp.ones(3, jnp.bfloat16), np.ones(2), True))
    assert check_batches(iter([half])) == (half,)


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], ValueError, "batches is empty: calibration needs at least one batch"),
        (batch(), TypeError, "batches must be a sequence of Batch, got a single Batch"),
        (3, TypeError, "batches must be a sequence of Batch, got 3"),
        (None, TypeError, "batches must be a sequence of Batch, got None"),
        ("ab", TypeError, "batches[0] must be a Batch, got str"),
        ([batch(), (1,)], TypeError, "batches[1] must be a Batch, got tuple"),
        ([Batch(jnp.ones(2))], TypeError, "batches[0].inputs must be a tuple, got"),
        (
            [batch(), batch(jnp.nan)],
            ValueError,
            "batches[1].inputs[0] holds a NaN or an infinity",
        ),
        (
            [Batch(({"x": jnp.array([1.0, jnp.inf], jnp.bfloat16)},))],
            ValueError,
            "batches[0].inputs[0]['x'] holds a NaN or an infinity",
        ),
        (
            [batch(targets=[0.0, np.nan])],
            ValueError,
            "batches[0].targets[1] holds a NaN or an infinity",
        ),
        (
            [batch(), Batch((jnp.zeros((1, 5, 2)),), MASKS)],
            ValueError,
            "batches[1].inputs has shapes {'[0]': (1, 5, 2)}, batches[0] has",
        ),
        (
            [batch(), batch(masks={"vision": VISION})],
            ValueError,
            "batches[1].masks has shapes {\"['vision']\": (1, 4)}, batches[0] has",
        ),
        (
            [batch(), batch(masks={m: v[:, :3] for m, v in MASKS.items()})],
            ValueError,
            "batches[1].masks has shapes",
        ),
        (
            [batch(masks={"vision": VISION, "language": LANGUAGE[:, :3]})],
            ValueError,
            "batches[0].masks['language'] must have shape [batch, tokens] "
            "= (1, 4), got (1, 3)",
        ),
        (
            [batch(masks={"vision": VISION, "language": VISION})],
            ValueError,
            "batches[0].masks['language'] overlaps another at (sample, token) (0, 0)",
        ),
        (
            [batch(masks={"vision": VISION.astype(np.int32)})],
            TypeError,
            "batches[0].masks['vision'] must be a boolean array, got int32",
        ),
        (
            [batch(masks={"vision": [[True, False, False, False]]})],
            TypeError,
            "batches[0].masks['vision'] must be a boolean array, got list",
        ),
        (
            [batch(), batch(masks=VISION)],
            TypeError,
            "batches[1].masks must be a dict of masks by modality, got an array of "
            "shape (1, 4)",
        ),
        (
            [batch(masks=[VISION, LANGUAGE])],
            TypeError,
            "batches[0].masks must be a dict of masks by modality, got list",
        ),
        (
            [batch(masks=None)],
            TypeError,
            "batches[0].masks must be a dict of masks by modality, got NoneType",
        ),
        (
            [batch(masks={0: VISION})],
            TypeError,
            "batches[0].masks must be named by modality, got the name 0",
        ),
    ],
)
def test_bad_batches(batches, error, message):
    with pytest.raises(error, match=re.escape(message)) as info:
        check_batches(batches)
    assert "\n" not in str(info.value)


def test_modalities():
    check_modalities([batch()], "vision")
    with pytest.raises(ValueError, match=r"batches\[0\].masks is empty: name the"):
        check_modalities([batch(masks={})])
    message = "reference must be one of the modalities ['language', 'vision'], got 'v'"
    with pytest.raises(ValueError, match=re.escape(message)):
        check_modalities([batch()], "v")


def test_a_modality_needs_a_token_in_some_batch():
    without = batch(masks={"vision": VISION & False, "language": LANGUAGE})
    check_modalities([without, batch()])
    message = "masks['vision'] has no token in any batch; leave the modality out"
    with pytest.raises(ValueError, match=re.escape(message)):
        check_modalities([without, without])


@pytest.mark.parametrize(
    ("shape", "tokens", "fits"),
    [
        ((2, 7, 5), (2, 7), True),
        ((14, 5), (2, 7), True),
        ((1, 2, 1, 7, 5), (2, 7), True),
        ((7, 5), (1, 7), True),
        ((7, 2, 5), (2, 7), False),  # time first
        ((2, 8, 5), (2, 7), False),
        ((2, 7, 3, 5), (2, 7), False),  # heads
        ((4, 1, 5), (2, 2), False),
    ],
)
def test_rows_and_tokens(shape, tokens, fits):
    assert fits_tokens(shape, tokens) is fits
