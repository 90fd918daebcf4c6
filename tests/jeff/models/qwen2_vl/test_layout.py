"""Positions and index arrays, against the original and by hand."""

import numpy as np
import pytest
from support import qwen2_vl_tiny

from jeff.models import qwen2_vl

IMAGE, VIDEO = 158, 159


@pytest.fixture(scope="module")
def case():
    return qwen2_vl_tiny.load()


def test_positions_are_the_originals(case):
    np.testing.assert_array_equal(case.inputs["positions"], case.stored["position_ids"])


def test_two_pictures_side_by_side_and_padding_on_the_right(case):
    """2x1 features, then 1x3, with no word between; by hand, from section 2.1."""
    tokens = np.array([[1] + [IMAGE] * 5 + [2, 0]])
    grids = [[1, 4, 2], [1, 2, 6]]
    got = qwen2_vl.layout(tokens, tokens > 0, grids, config=case.config)
    np.testing.assert_array_equal(
        got["positions"][:, 0],
        [
            [0, 1, 1, 3, 3, 3, 6, 0],
            [0, 1, 2, 3, 3, 3, 6, 0],
            [0, 1, 1, 3, 4, 5, 6, 0],
        ],
    )
    np.testing.assert_array_equal(got["feature_index"], [[-1, 0, 1, 2, 3, 4, -1, -1]])


def test_patches_come_square_by_square(case):
    """The order in which the processor writes them, and a feature is four of them."""
    position, segment = qwen2_vl.patch_layout([[1, 4, 4], [1, 2, 2]], patches=24)
    assert position[:8].tolist() == [
        [0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]
    ]  # fmt: skip
    assert position[8].tolist() == [2, 0]
    assert segment.tolist() == [0] * 16 + [1] * 4 + [-1] * 4


GOOD = {"tokens": [[1, IMAGE, 2]], "valid": [[1, 1, 1]], "grids": [[1, 2, 2]]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grids": []}, "0 pictures need 0 image tokens, the prompt has 1"),
        ({"grids": [[1, 2, 4]]}, "1 pictures need 2 image tokens, the prompt has 1"),
        ({"grids": [[1, 2, 3]]}, "must be divisible by 2"),
        ({"grids": [[2, 2, 2]]}, "videos are not supported"),
        ({"grids": [[1, 0, 2]]}, "sizes must be positive"),
        ({"grids": [1, 2, 2]}, "must have shape"),
        ({"tokens": [[1, VIDEO, 2]]}, "video_token 159: videos are not supported"),
        ({"tokens": [[1, IMAGE, 160]]}, r"tokens must be in \[0, 160\)"),
        ({"valid": [[0, 0, 0]]}, "the prompt is empty"),
        ({"valid": [[1, 1]]}, "one shape"),
        ({"patches": 6}, "patches must be a multiple of 4 and at least 4"),
        ({"pixels": np.zeros((4, 588))}, "pixels must have shape"),
        (
            {"tokens": [[IMAGE, 1, IMAGE]], "grids": [[1, 2, 4]]},
            "1 image tokens in a row where a picture needs 2",
        ),
    ],
)
def test_what_does_not_fit_is_said(case, changes, words):
    given = {"pixels": np.zeros((4, 1176)), **GOOD, **changes}
    with pytest.raises(ValueError, match=words):
        qwen2_vl.model_inputs(**given, config=case.config)


def test_only_integers(case):
    with pytest.raises(TypeError, match="grids must be integers"):
        qwen2_vl.check_grids([[1.0, 2.0, 2.0]])
    with pytest.raises(TypeError, match="tokens must be integers"):
        qwen2_vl.layout([[1.0]], [[1]], [], config=case.config)
