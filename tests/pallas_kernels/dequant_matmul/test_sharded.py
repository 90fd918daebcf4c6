"""The partitioned product on four virtual devices."""

SCRIPT = """
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from pallas_kernels import bits as layouts
from pallas_kernels.dequant_matmul import cases, dequant_matmul, reference, sharded
from pallas_kernels.dequant_matmul.operand import Operand

seen = []  # shapes of what each device multiplies


def kernel(x, w, out_dtype):
    # Like the real one, it closes over no array.
    seen.append((x.shape, w.words.shape, w.scale.shape, w.size))
    tiles = w.words.reshape(*w.words.shape[:-2], -1, w.bits, w.stride, w.columns)
    rows = [tiles[..., b, :, :] for b in range(w.bits)]
    codes = jnp.stack([layouts.slot(rows, i, bits=w.bits) for i in range(32)], -3)
    codes = codes.reshape(*w.words.shape[:-2], -1, w.columns)[..., : w.size, :]
    scale = jnp.repeat(w.scale, w.group_size, -2)
    zero = 4.0 if w.zero is None else jnp.repeat(w.zero, w.group_size, -2)
    return (x @ ((codes.astype(jnp.float32) - zero) * scale)).astype(out_dtype)


def product(x, w):
    return sharded.partitioned(kernel, x, w, jnp.dtype("float32"))


def operand(case, arrays):
    return Operand(words=arrays.packed, scale=arrays.scale, zero=arrays.zero,
                   bits=case.bits, stride=case.stride, size=case.size)


mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
base = dict(rows=4, size=256, columns=128, bits=3, group_size=32, stride=2,
            x_dtype="float32", scale_dtype="float32", zero="float32", kernel=False)
CASES = {
    "plain": cases.Case(**base),
    "one group": cases.Case(**{**base, "group_size": 256}),
    "symmetric": cases.Case(**{**base, "zero": None}),
    "no whole tiles": cases.Case(**{**base, "size": 192}),
    "few columns": cases.Case(**{**base, "columns": 32}),
}
SPECS = {
    "columns": (P(), P(None, "a"), (4, 256, 64)),
    "contraction": (P(None, "a"), P("a", None), (4, 128, 128)),
    "contraction of w only": (P(), P("a", None), (4, 128, 128)),
    "contraction over both": (P(), P(("a", "b"), None), (4, 64, 128)),
    "both": (P(), P("a", "b"), (4, 128, 64)),
    "rows": (P("a", None), P(), (2, 256, 128)),
    "rows and columns": (P("a", None), P(None, "b"), (2, 256, 64)),
    "the same axis twice": (P("a", None), P(None, "a"), (4, 256, 64)),
}
multiply = jax.jit(reference.multiply)
MADE = {label: cases.make(case) for label, case in CASES.items()}
for (label, case), (how, (x_spec, w_spec, local)) in itertools.product(
    CASES.items(), SPECS.items()
):
    if label != "plain" and how != "both":  # along K and along N
        continue
    arrays = MADE[label]
    w = operand(case, arrays)
    want = multiply(arrays.x, w)
    def put(a, spec):
        if a.shape[-2] % 4:
            spec = P(None, *spec[1:])
        return jax.device_put(a, NamedSharding(mesh, spec))
    placed = jax.tree.map(lambda a: put(a, w_spec), w)
    x = jax.device_put(arrays.x, NamedSharding(mesh, x_spec))
    seen.clear()
    compiled = jax.jit(product).lower(x, placed).compile()
    y = compiled(x, placed)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-4, err_msg=f"{label} {how}")
    if label == "plain":
        rows, size, columns = local
        assert seen[-1] == ((rows, size), (size * 3 // 32, columns),
                            (size // 32, columns), size), (how, seen)
        text = compiled.as_text()
        assert ("all-reduce(" in text) == ("contraction" in how or how == "both"), how
        assert "all-gather(" not in text or how == "the same axis twice", how

# A stack, and a map over it, sharded by its matrices.
case = cases.Case(**base, stack=4)
arrays = cases.make(case)
w = operand(case, arrays)
spread = NamedSharding(mesh, P("a"))
placed = jax.device_put(w, spread)
seen.clear()
y = jax.jit(product)(jax.device_put(arrays.x, spread), placed)
np.testing.assert_allclose(y, multiply(arrays.x, w), rtol=1e-5, atol=1e-4)
assert seen[-1][0] == (2, 4, 256), seen

# Inside shard_map arrays are shards already.
case = CASES["plain"]
arrays = cases.make(case)
w = operand(case, arrays)
inside = jax.shard_map(product, mesh=mesh, in_specs=(P(), P(None, "a")),
                       out_specs=P(None, "a"))
want = multiply(arrays.x, w)
np.testing.assert_allclose(jax.jit(inside)(arrays.x, w), want, rtol=1e-5, atol=1e-4)
# The real kernel is wrapped too.
case = cases.CASES["w3 m1"]
arrays = cases.make(case)
run = jax.jit(lambda *a: dequant_matmul(*a, bits=3, group_size=128,
                                        implementation="mosaic_gpu"))
placed = jax.device_put(arrays, NamedSharding(mesh, P(None, "a")))
text = run.trace(*placed).lower(lowering_platforms=("cuda",)).as_text()
assert "CustomSPMDPartitioning" in text
print("equal on", len(jax.devices()), "devices")
"""


def test_every_device_multiplies_its_shards(python):
    flags = "--xla_force_host_platform_device_count=4"
    done = python("-c", SCRIPT, env={"XLA_FLAGS": flags})
    assert done.returncode == 0, done.stderr[-3000:]
    assert "equal on 4 devices" in done.stdout
