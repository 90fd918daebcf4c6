"""What the result of a call depends on, short enough to be written down."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff import io, tree
from jeff.mbq.calibration import Batch
from jeff.mbq.group_spec import GroupSpec
from jeff.mbq.job import Job
from jeff.mbq.program_checksum import program_checksum
from jeff.program import trace

__all__ = ["checksum", "fingerprint"]

_FORMAT = 2  # of the files of `BlockStore`


def fingerprint(
    method: str,
    job: Job,
    specs: Sequence[GroupSpec] | None,
    loss: Callable[[Any, Any], jax.Array] | None = None,
) -> dict[str, Any]:
    """What the result of a method depends on.

    Args:
      method: Name of the method.
      job: The checked call.
      specs: Groups named by hand.
      loss: The loss whose gradients weigh tokens, if they do.

    Returns:
      JSON values by name: versions, the device and its default precision, every
      setting, which sites are quantized, grouped and clipped in which block, and
      checksums of the program, the loss, and every leaf and batch.

    Examples:
      >>> from jeff import mbq
      >>> from jeff.mbq.job import start
      >>> from jeff.quantize import QuantConfig
      >>> apply, params = lambda p, x: x @ p["w"], {"w": jnp.eye(32)}
      >>> config = mbq.BalanceConfig(weights=QuantConfig(bits=4, group_size=32))
      >>> job = start(apply, params, [Batch((jnp.ones((1, 32)),))], config, None, None)
      >>> found = fingerprint("rtn", job, None)
      >>> found["method"], found["config.weights.bits"], found["params.w"]
      ('rtn', 4, 'float32[32, 32] be26a7ca8d6c641b')
    """
    found: dict[str, Any] = {"format": _FORMAT, "method": method}
    found |= {f"versions.{n}": v for n, v in io.versions().items()}
    found |= _computed_by()
    for name, value in dataclasses.asdict(job.config).items():
        if isinstance(value, dict):
            found |= {f"config.{name}.{n}": v for n, v in value.items()}
        else:
            found[f"config.{name}"] = value
    found["groups"] = None if specs is None else [repr(s) for s in specs]
    inputs = job.batches[0].inputs
    traced = trace.tracer_of(job.apply).trace(job.params, inputs, {})
    found["program"] = program_checksum(traced.jaxpr)
    if loss is not None:
        outputs = jax.tree.unflatten(traced.out_tree, traced.jaxpr.out_avals)
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), outputs)
        targets = jax.tree.map(jnp.asarray, job.batches[0].targets)
        found["loss"] = program_checksum(jax.make_jaxpr(loss)(shapes, targets))
    for number, (stack, plans) in enumerate(job.stacks):
        for block, plan in enumerate(plans):
            if plan is None:
                continue
            what = {
                "sites": [
                    stack.names[block][n] for n in stack.sites if n in plan.sites
                ],
                "groups": [(g.sites, g.inspect, g.fold) for g in plan.groups],
                "clipped": sorted(plan.clipped),
            }
            found[f"stacks[{number}].blocks[{block}]"] = checksum(repr(what))
    for name, leaf in tree.flatten(job.params)[0].items():
        found[f"params.{name}"] = _described(leaf)
    found["batches"] = len(job.batches)
    for i, batch in enumerate(job.batches):
        for field in Batch._fields:
            found[f"batches[{i}].{field}"] = checksum(getattr(batch, field))
    return found


def checksum(value: Any) -> str:
    """A short checksum of a pytree: its structure, dtypes, shapes and numbers.

    Arrays count as JAX would take them: without 64-bit types, float64 is float32.

    Args:
      value: Any pytree of arrays and plain values; arrays are taken to the host one by
        one.

    Returns:
      16 hexadecimal digits.

    Examples:
      >>> checksum(jnp.arange(3)) == checksum(np.arange(3, dtype=np.int32))
      True
      >>> checksum(jnp.arange(3)) == checksum(np.arange(3, dtype=np.int16))
      False
      >>> checksum(np.ones(3)) == checksum(jnp.ones(3))  # float64 becomes float32
      True
    """
    state = hashlib.blake2b(digest_size=8)
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        state.update(jax.tree_util.keystr(path).encode())
        if not hasattr(leaf, "dtype"):
            state.update(repr(leaf).encode())
            continue
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            leaf = jax.random.key_data(leaf)
        if not isinstance(leaf, jax.Array):  # as the program will see it
            leaf = np.asarray(leaf)
            with np.errstate(over="ignore"):
                leaf = leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype))
        array = np.asarray(leaf, order="C")
        state.update(f"{array.dtype.name}{array.shape}".encode())
        state.update(array.reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def _computed_by() -> dict[str, str | bool]:
    """The kind of device, and the settings of JAX that decide last digits."""
    default = jax.devices()[0]
    return {
        "device": f"{default.platform} {default.device_kind}",
        "matmul_precision": str(jax.config.values["jax_default_matmul_precision"]),
        "x64": jax.dtypes.canonicalize_dtype(np.float64) == np.float64,
    }


def _described(leaf: Any) -> str:
    """Type and checksum of a leaf of the params."""
    dtype, shape = getattr(leaf, "dtype", type(leaf)), list(np.shape(leaf))
    return f"{dtype}{shape} {checksum(leaf)}"
