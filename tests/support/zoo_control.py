"""Small programs with loops, branches and named axes, written with nothing but JAX."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from support.case import Case, normal

__all__ = ["CASES"]

D = 16
LAYERS = 3


def scan_layers() -> Case:
    """Stacked layers as the scanned-over argument, with an output per layer."""
    params = {
        "layers": {"up": normal(0, LAYERS, D, 24), "down": normal(1, LAYERS, 24, D)},
        "head": normal(2, D, 8),
    }

    def apply(params, x):
        def layer(x, p):
            x = x + jax.nn.relu(x @ p["up"]) @ p["down"]
            return x, jnp.mean(x, axis=-1)

        x, means = lax.scan(layer, x, params["layers"])
        return x @ params["head"], means

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"layers.up": 1, "layers.down": 1, "head": 1},
        marks=frozenset({"scan"}),
    )


def scan_reverse_last_axis() -> Case:
    """A reversed scan over weights whose stack axis is the second of three."""
    params = {"w": normal(0, D, LAYERS, D)}  # [K, L, N]

    def apply(params, x):
        stacked = jnp.moveaxis(params["w"], 1, 0)
        return lax.scan(
            lambda x, w: (jnp.tanh(x @ w), None), x, stacked, reverse=True, unroll=2
        )[0]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"w": 1},
        marks=frozenset({"scan", "transposed_stack"}),
    )


def scan_nested() -> Case:
    """A scan over groups of layers around a scan over the layers of a group."""
    params = {"w": normal(0, 2, LAYERS, D, D)}

    def apply(params, x):
        def layer(x, w):
            return jnp.tanh(x @ w), None

        def group(x, w):
            return lax.scan(layer, x, w)[0], None

        return lax.scan(group, x, params["w"])[0]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"w": 1},
        marks=frozenset({"scan", "nested_scan"}),
    )


def recurrent() -> Case:
    """A recurrence over time: the weights are constants of the scan."""
    params = {"input": normal(0, 8, D), "state": normal(1, D, D)}

    def apply(params, x):
        def step(h, x_t):
            h = jnp.tanh(x_t @ params["input"] + h @ params["state"])
            return h, h

        return lax.scan(step, jnp.zeros((2, D)), x)[1]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 5, 2, 8),),
        linears={"input": 1, "state": 1},
        marks=frozenset({"scan", "scan_const"}),
    )


def fori_slices() -> Case:
    """A ``fori_loop`` (a scan, since its bounds are static) slicing stacked weights."""
    params = {"w": normal(0, LAYERS, D, D)}

    def apply(params, x):
        def body(i, x):
            w = lax.dynamic_index_in_dim(params["w"], i, keepdims=False)
            return jnp.tanh(x @ w)

        return lax.fori_loop(0, LAYERS, body, x)

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"w": 1},
        marks=frozenset({"scan", "gathered"}),
    )


def while_slices() -> Case:
    """A ``while_loop`` with a static bound, slicing stacked weights by its counter."""
    params = {"w": normal(0, LAYERS, D, D)}

    def apply(params, x):
        def body(carry):
            i, x = carry
            w = lax.dynamic_slice_in_dim(params["w"], i, 1)[0]
            return i + 1, jnp.tanh(x @ w)

        return lax.while_loop(lambda c: c[0] < LAYERS, body, (jnp.int32(0), x))[1]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"w": 1},
        differentiable=False,
        marks=frozenset({"while", "gathered"}),
    )


def while_converging() -> Case:
    """A ``while_loop`` that stops by a test on its data."""
    params = {"w": normal(0, D, D)}

    def apply(params, x):
        def unsettled(carry):
            i, x = carry
            return (i < 50) & (jnp.max(jnp.abs(x)) > 0.1)

        def body(carry):
            i, x = carry
            return i + 1, 0.5 * jnp.tanh(x @ params["w"])

        return lax.while_loop(unsettled, body, (jnp.int32(0), x))

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"w": 1},
        differentiable=False,
        marks=frozenset({"while"}),
    )


def cond_branches() -> Case:
    """Two branches: one product in the first, two in the second, one leaf shared."""
    params = {"a": normal(0, D, D), "b": normal(1, D, D)}

    def apply(params, x, flag):
        return lax.cond(
            flag,
            lambda x: jnp.tanh(x @ params["a"]),
            lambda x: jax.nn.relu(x @ params["a"]) @ params["b"],
            x,
        )

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D), jnp.array(False)),
        linears={"a": 2, "b": 1},
        marks=frozenset({"cond"}),
    )


def switch_in_scan() -> Case:
    """A scan whose layers choose one of three branches by their index."""
    params = {"w": normal(0, LAYERS, D, D), "extra": normal(1, D, D)}

    def apply(params, x):
        def layer(x, xs):
            w, i = xs
            branches = (
                lambda x: x @ w,
                lambda x: jnp.tanh(x @ w),
                lambda x: (x @ w) @ params["extra"],
            )
            return lax.switch(i, branches, x), None

        return lax.scan(layer, x, (params["w"], jnp.arange(LAYERS)))[0]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"w": 3, "extra": 1},
        marks=frozenset({"scan", "cond"}),
    )


def psum_open() -> Case:
    """A sum over an axis that whoever calls the program has to name."""
    params = {"w": normal(0, D, D)}

    def apply(params, x):
        y = x @ params["w"]
        return y / lax.psum(jnp.float32(1), "i") + lax.psum(y, "i")

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"w": 1},
        axis_sizes={"i": 2},
        marks=frozenset({"named_axis"}),
    )


def psum_inside() -> Case:
    """Batch statistics over a named axis that the program itself binds by vmap."""
    params = {"w": normal(0, D, D)}

    def apply(params, x):
        def one(v):
            y = v @ params["w"]
            return y - lax.pmean(y, "batch")

        return jax.vmap(one, axis_name="batch")(x)

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"w": 1},
        marks=frozenset({"vmap"}),
    )


def shard_map_inside() -> Case:
    """A product under ``shard_map`` on one device, its contraction summed over."""
    params = {"w": normal(0, D, D), "after": normal(1, D, D)}
    mesh = jax.make_mesh(
        (1,), ("model",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1]
    )
    spec = PartitionSpec

    @jax.jit
    def partial_product(x, w):
        def local(x, w):
            return lax.psum(x @ w, "model")

        return jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(spec(None, "model"), spec("model", None)),
            out_specs=spec(),
        )(x, w)

    def apply(params, x):
        return jnp.tanh(partial_product(x, params["w"])) @ params["after"]

    return Case(
        apply=apply,
        params=params,
        inputs=(normal(3, 4, D),),
        linears={"w": 1, "after": 1},
        marks=frozenset({"shard_map"}),
    )


CASES = {
    f"plain_{fn.__name__}": fn
    for fn in (
        scan_layers,
        scan_reverse_last_axis,
        scan_nested,
        recurrent,
        fori_slices,
        while_slices,
        while_converging,
        cond_branches,
        switch_in_scan,
        psum_open,
        psum_inside,
        shard_map_inside,
    )
}
