import jax
import jax.numpy as jnp
import numpy as np

from jeff.mbq.running_mean import RunningMean


def test_merging_is_a_mean_over_everything_and_traceable():
    x = jnp.arange(12.0).reshape(4, 3)

    def step(mean, row):
        return mean.merge(RunningMean(row, jnp.float32(1))), None

    start = RunningMean(jnp.zeros(3), jnp.float32(0))
    mean, _ = jax.lax.scan(step, start, x)
    np.testing.assert_allclose(mean.value, x.mean(axis=0), rtol=1e-6)


def test_of_nothing_is_nan():
    assert jnp.isnan(RunningMean(jnp.float32(0), jnp.float32(0)).value)
