"""What the result of a call depends on, short enough to be written down."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff import io, tree
from jeff.mbq.calibration.batches import Batch
from jeff.mbq.call.job import Job
from jeff.mbq.groups.spec import GroupSpec
from jeff.program import trace
from jeff.program.checksum import checksum, described, program_checksum

__all__ = ["fingerprint"]

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
      >>> from jeff.mbq.call.job import start
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
    found |= io.numerics()
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
        found[f"params.{name}"] = described(leaf)
    found["batches"] = len(job.batches)
    for i, batch in enumerate(job.batches):
        for field in Batch._fields:
            found[f"batches[{i}].{field}"] = checksum(getattr(batch, field))
    return found
