"""The same key draws the same faults on one device and on four."""

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from jeff import dm_bnn
from jeff.faults import adsaf_cells, bit_flip, lognormal, on_weights
from jeff.faults.words import bit_words

assert jax.device_count() == 4
params = {"a": jnp.ones((64, 40)), "b": jnp.ones(12, jnp.bfloat16)}
model = on_weights(bit_flip(0.002))
keys = jax.random.split(jax.random.key(0), 4)
sample = lambda key: model.sample(key, params)
expected = jax.jit(lambda keys: jax.lax.map(sample, keys))(keys)
assert (np.asarray(expected.leaves["a"].word) != 0).sum() > 100
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("keys",))
mapped = jax.shard_map(jax.vmap(sample), mesh=mesh, in_specs=P("keys"),
                       out_specs=P("keys"), check_vma=False)
whole = NamedSharding(mesh, P("keys"))
one = jax.jit(lambda key: sample(key).leaves["a"].word, out_shardings=whole)
for name in expected.leaves:
    e = np.asarray(expected.leaves[name].word)
    assert (np.asarray(jax.jit(mapped)(keys).leaves[name].word) == e).all()
assert (np.asarray(one(keys[2])) == np.asarray(expected.leaves["a"].word[2])).all()
# What varies over the mesh is checked here: dense words, values, noise, voters' draws.
for draw in (
    lambda key: bit_words(key, 0.2, (7,), bits=8, method="dense").word,
    lambda key: bit_words(key, 0.25, (7,), bits=8, method="bit_plane").word,
    lambda key: adsaf_cells(0.3).sample(key, jnp.ones(9)),
    lambda key: lognormal(0.3).sample(key, jnp.ones(9)),
    lambda key: dm_bnn.normal16(key, 9),
):
    expected = jax.jit(lambda keys: jax.lax.map(draw, keys))(keys)
    mapped = jax.shard_map(jax.vmap(draw), mesh=mesh, in_specs=P("keys"),
                           out_specs=P("keys"))
    for a, b in zip(*map(jax.tree.leaves, (jax.jit(mapped)(keys), expected))):
        np.testing.assert_allclose(a, b, rtol=1e-6)
print("equal")
"""


def test_four_devices_draw_what_one_draws(python):
    flags = "--xla_force_host_platform_device_count=4"
    done = python("-c", SCRIPT, env={"XLA_FLAGS": flags})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal\n"
