import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.mbq import token_weights
from jeff.mbq.calibration import masks


def test_disjoint_masks_pass_also_when_traced():
    vision = jnp.array([[True, False]])
    masks.check_masks({"vision": vision, "language": ~vision}, (1, 2))

    @jax.jit
    def shape_only(mask):
        assert masks.is_traced(mask)
        masks.check_masks({"vision": mask, "language": mask})  # values are unknown
        return mask

    np.testing.assert_array_equal(shape_only(vision), vision)


@pytest.mark.parametrize("masks_given", [np.ones((1, 2), bool), [True], None, 3])
def test_masks_that_are_no_dict_are_said(masks_given):
    for check in (masks.check_masks, token_weights):
        with pytest.raises(TypeError, match="masks must be a dict of masks"):
            check(masks_given)


def test_shapes_are_checked_while_tracing():
    with pytest.raises(ValueError, match=r"= \(1, 3\), got \(1, 2\)"):
        jax.eval_shape(
            lambda mask: masks.check_masks({"vision": mask}, (1, 3)),
            jax.ShapeDtypeStruct((1, 2), bool),
        )
