"""The ``quantization_config`` of compressed-tensors: which layer is quantized how.

References:
  compressed-tensors 0.20.0, github vllm-project/compressed-tensors,
  src/compressed_tensors/quantization/{quant_args,quant_config,quant_scheme}.py; targets
  are matched as in src/compressed_tensors/utils/match.py.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jeff.io.name_patterns import patterns, skipped
from jeff.io.named_weights import NOTHING, Scheme
from jeff.io.raw_layers import RawLayers

__all__ = [
    "INT_QUANTIZED",
    "METHOD",
    "PACK_QUANTIZED",
    "LayerScheme",
    "Schemes",
    "settings_of",
]

METHOD = "compressed-tensors"
PACK_QUANTIZED = "pack-quantized"
INT_QUANTIZED = "int-quantized"

_VERSION = "0.20.0"  # whose layouts are written
_LAYOUTS = {
    PACK_QUANTIZED: PACK_QUANTIZED,
    INT_QUANTIZED: INT_QUANTIZED,
    "naive-quantized": INT_QUANTIZED,  # the same arrays
}


class LayerScheme(NamedTuple):
    """How a layer is stored.

    Attributes:
      layout: `PACK_QUANTIZED` or `INT_QUANTIZED`.
      bits: Width of a code, 2 to 8.
      symmetric: Whether there are no zero points.
      padded: Whether streams were written before 0.18.0; ``None`` if nobody says.
    """

    layout: str
    bits: int
    symmetric: bool
    padded: bool | None


def settings_of(
    schemes: Mapping[str, Scheme],
    dense: Sequence[str],
    layout: str,
    activation_bits: int | None,
) -> dict[str, Any]:
    """The settings of a checkpoint that is written.

    Args:
      schemes: How each layer is quantized.
      dense: Names of the parts that are not; the output matrix need not be named.
      layout: `PACK_QUANTIZED` or `INT_QUANTIZED`.
      activation_bits: Width of dynamic activation codes, or ``None``.

    Returns:
      The ``quantization_config``.

    Raises:
      ValueError: If nothing is quantized.

    Examples:
      >>> scheme = Scheme(bits=4, group_size=32, groups=2, symmetric=True)
      >>> made = settings_of({"up": scheme}, [], PACK_QUANTIZED, None)
      >>> made["config_groups"]["group_0"]["weights"]["num_bits"]
      4
      >>> print(*made["ignore"])
      re:(?:.*\\.)?lm_head(?:\\..*)?$
    """
    if not schemes:
        raise ValueError(NOTHING)
    activations = None
    if activation_bits is not None:
        activations = {
            "num_bits": activation_bits,
            "type": "int",
            "symmetric": True,
            "strategy": "token",
            "dynamic": True,
        }
    members: dict[tuple[Any, ...], list[str]] = {}
    for layer, s in sorted(schemes.items()):
        size = None if s.groups == 1 else s.group_size
        members.setdefault((s.bits, s.symmetric, size), []).append(layer)
    groups = {}
    for i, ((bits, symmetric, size), layers) in enumerate(members.items()):
        others = [name for name in schemes if name not in layers]
        # One scheme is that of all linear layers but the ignored ones.
        targets = (
            [f"re:{p}" for p in patterns(layers, others)] if others else ["Linear"]
        )
        groups[f"group_{i}"] = {
            "targets": targets,
            "weights": {
                "num_bits": bits,
                "type": "int",
                "symmetric": symmetric,
                "strategy": "channel" if size is None else "group",
                "group_size": size,
                "dynamic": False,
            },
            "input_activations": activations,
            "output_activations": None,
            "format": layout,
        }
    return {
        "quant_method": METHOD,
        "version": _VERSION,
        "format": layout,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [f"re:{pattern}" for pattern in skipped(dense, schemes)],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


class Schemes:
    """The groups of the settings of a checkpoint that is read."""

    def __init__(self, raw: RawLayers, settings: Mapping[str, Any]):
        """Reads and checks all groups."""
        self._raw = raw
        groups = settings.get("config_groups")
        if not isinstance(groups, dict) or not groups:
            raise raw.settings_error("config_groups is missing or empty")
        version = re.match(r"(\d+)\.(\d+)", str(settings.get("version", "")))
        padded = (
            None if version is None else tuple(map(int, version.groups())) < (0, 18)
        )
        self._groups = []
        widths = set()
        for name, group in groups.items():
            try:
                targets = [str(target) for target in group["targets"]]
                weights, activations = group["weights"], group.get("input_activations")
                layout = group.get("format") or settings["format"]
                bits, symmetric = weights["num_bits"], weights.get("symmetric", True)
                strategy = weights.get("strategy", "group")
            except (KeyError, TypeError, AttributeError) as error:
                raise self._error(name, f"is not complete: {error}") from None
            if layout not in _LAYOUTS:
                known = ", ".join(_LAYOUTS)
                raise self._error(name, f"format is {layout!r}; known are {known}")
            if weights.get("type", "int") != "int" or bits not in range(2, 9):
                kind = f"{weights.get('type', 'int')}{bits}"
                raise self._error(name, f"weights are {kind}; known are int2 to int8")
            if strategy not in ("group", "channel"):
                raise self._error(
                    name, f"strategy is {strategy!r}; known are 'group' and 'channel'"
                )
            scheme = LayerScheme(_LAYOUTS[layout], bits, bool(symmetric), padded)
            self._groups.append((targets, scheme))
            widths.add(self._activation_bits(name, activations))
        if len(widths) > 1:
            raise raw.settings_error("config_groups differ in their input_activations")
        self.activation_bits: int | None = widths.pop()

    def of(self, layer: str) -> LayerScheme:
        """How a layer is stored: by its name, else by a pattern, else by its class.

        Raises:
          ValueError: If no group names it.
        """

        def by_name(target):
            return target == layer

        def by_pattern(target):
            return target.startswith("re:") and re.match(target[3:], layer)

        def by_class(target):
            return target == "Linear"

        for matches in (by_name, by_pattern, by_class):
            for targets, scheme in self._groups:
                if any(matches(target) for target in targets):
                    return scheme
        raise self._raw.settings_error(f"no group of config_groups targets {layer!r}")

    def _activation_bits(self, name: str, activations: Any) -> int | None:
        """Width of dynamic activation codes, if there are any."""
        if activations is None:
            return None
        kind = tuple(activations.get(k) for k in ("type", "strategy", "dynamic"))
        symmetric = activations.get("symmetric", True)
        if kind != ("int", "token", True) or not symmetric:
            raise self._error(
                name,
                f"input_activations are {activations}; only dynamic, symmetric "
                "integers per token can be read",
            )
        return activations["num_bits"]

    def _error(self, group: str, problem: str) -> ValueError:
        return self._raw.settings_error(f"config_groups.{group}: {problem}")
