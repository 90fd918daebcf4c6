"""What the result of a call depends on, short enough to be written down."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff import tree
from jeff.mbq.calibration import Batch
from jeff.mbq.group_spec import GroupSpec
from jeff.mbq.job import Job

__all__ = ["checksum", "fingerprint"]

_FORMAT = 1  # of the files of `BlockStore`


def fingerprint(
    method: str, job: Job, specs: Sequence[GroupSpec] | None
) -> dict[str, Any]:
    """What the result of a method depends on, its functions apart.

    Args:
      method: Name of the method.
      job: The checked call.
      specs: Groups named by hand.

    Returns:
      JSON values by name: every setting, which sites are quantized, groups and clipped
      in which block, and a checksum of every leaf and batch.

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
    found = {"format": _FORMAT, "method": method}
    for name, value in dataclasses.asdict(job.config).items():
        if isinstance(value, dict):
            found |= {f"config.{name}.{n}": v for n, v in value.items()}
        else:
            found[f"config.{name}"] = value
    found["groups"] = None if specs is None else [repr(s) for s in specs]
    for number, (stack, plans) in enumerate(job.stacks):
        for block, plan in enumerate(plans):
            if plan is None:
                continue
            what = {
                "sites": [
                    stack.names[block][n] for n in stack.sites if n in plan.sites
                ],
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
    """
    state = hashlib.blake2b(digest_size=8)
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        state.update(jax.tree_util.keystr(path).encode())
        if not hasattr(leaf, "dtype"):
            state.update(repr(leaf).encode())
            continue
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf, order="C")
        state.update(f"{array.dtype.name}{array.shape}".encode())
        state.update(array.reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def _described(leaf: Any) -> str:
    """Type and checksum of a leaf of the params."""
    dtype, shape = getattr(leaf, "dtype", type(leaf)), list(np.shape(leaf))
    return f"{dtype}{shape} {checksum(leaf)}"
