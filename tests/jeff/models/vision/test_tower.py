"""Random parameters of towers: variance one over the inputs, by names."""

import jax
import numpy as np

from jeff.models.tensors import Tensor
from jeff.models.vision import tower


def test_draws_have_variance_one_over_the_inputs():
    table = [
        Tensor("vision.patch.kernel", "patch", (64, 3, 4, 4)),
        *tower.linear_rows("vision.up", "up", 16, 256),
        *tower.norm_rows("vision.norm", "norm", 8),
    ]
    draw = jax.jit(lambda key: tower.random_params(key, table, inputs=inputs))
    inputs = {"patch.kernel": 48}
    vision = draw(jax.random.key(0))["vision"]
    # 3072 and 4096 draws: the deviation is known to 1 / sqrt(2 n), or 1.3 and 1.1 %
    np.testing.assert_allclose(np.std(vision["patch"]["kernel"]), 48**-0.5, rtol=0.05)
    np.testing.assert_allclose(np.std(vision["up"]["kernel"]), 0.25, rtol=0.05)
    assert not vision["up"]["bias"].any() and not vision["norm"]["bias"].any()
    assert (vision["norm"]["scale"] == 1).all()
    alone = tower.random_params(
        jax.random.key(0), table[1:], inputs=inputs, dtype=np.float32
    )
    np.testing.assert_array_equal(
        alone["vision"]["up"]["kernel"], vision["up"]["kernel"]
    )
