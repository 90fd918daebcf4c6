"""All that the numbers of a sweep depend on, short enough to be written down."""

import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jeff import io, tree
from jeff.program.checksum import checksum, described
from jeff.sweep.planning.arguments import Sweep
from jeff.sweep.planning.choose import Prepared

__all__ = ["differences", "rule_of", "settings_of"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_LONG = 100  # characters of a setting that are shown whole
_VERSIONS = ("jeff", "jax", "jaxlib")


def settings_of(sweep: Sweep, prepared: Prepared, device: Any) -> dict[str, Any]:
    """Settings of a sweep; who computes it (chunks, devices, processes) is not in them.

    Args:
      sweep: The sweep.
      prepared: Its plan and traced programs.
      device: A device of those that compute, which are of one kind.

    Returns:
      JSON values by name: versions, the kind of device (on CPUs with the processor and
      the number of cores, on which the last digits of sums depend), settings of the
      compiler, what is swept, the plan's sizes, and
      checksums of the traced programs (with all arrays they captured), of every array
      of the data and of the designs. A stopping rule is not there: it says how many
      units there will be, and changes none of them.
    """
    plan, values = prepared.plan, io.versions()
    found: dict[str, Any] = {f"versions.{n}": values[n] for n in _VERSIONS}
    found |= io.numerics(device)
    if device.platform == "cpu":  # loops are cut into so many parts
        found["cores"] = _cores()
    found["threefry_partitionable"] = bool(
        jax.config.values["jax_threefry_partitionable"]
    )
    found["key"] = f"{jax.random.key_impl(sweep.key)} {checksum(sweep.key)}"
    found["rates"] = [float(r) for r in sweep.rates]
    found["trials"], found["designs"] = sweep.trials, sweep.design_count
    found["examples"] = sweep.examples
    found |= {"group": plan.group, "unit": plan.unit, "batch": plan.batch}
    found |= prepared.checksums()
    for kind in ("data", "designs"):
        for name, leaf in _leaves(getattr(sweep, kind)).items():
            found[".".join(filter(None, (f"{kind}", name)))] = described(leaf)
    return found


def rule_of(stop: Any) -> str | None:
    """A stopping rule in words, by which processes of one sweep are compared.

    Args:
      stop: The rule, or ``None``.

    Returns:
      As it prints, without addresses: functions of one name look alike.

    Examples:
      >>> rule_of(settings_of)
      '<function settings_of>'
    """
    return None if stop is None else _ADDRESS.sub("", repr(stop))


def _cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any], here: str, there: str
) -> list[str]:
    """Every setting that is not the same, with both values.

    Args:
      one: Settings by name.
      other: Other settings.
      here: What to call the place of the first.
      there: What to call the place of the second.

    Returns:
      A phrase for each.

    Examples:
      >>> differences({"unit": 8, "batch": 64}, {"unit": 4, "batch": 64}, "old", "new")
      ['unit: 8 old, 4 new']
    """
    return [
        f"{name}: {_shown(one.get(name))} {here}, {_shown(other.get(name))} {there}"
        for name in {**one, **other}
        if one.get(name) != other.get(name)
    ]


def _shown(value: Any) -> str:
    text = repr(value)
    if len(text) <= _LONG:
        return text
    return f"{text[: _LONG // 2]} ... {text[-_LONG // 3 :]}"


def _leaves(value: Any) -> dict[str, np.ndarray]:
    return {} if value is None else tree.flatten(value)[0]
