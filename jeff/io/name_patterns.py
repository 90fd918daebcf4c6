"""What is not quantized, in the words by which other programs know parts of a model."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jeff.io.named_weights import layer_name, quantized
from jeff.quantize import QTensor

__all__ = ["dense_parts", "has_head", "patterns", "shortest_tail", "skipped"]

_HEAD = "lm_head"


def dense_parts(tensors: Mapping[str, Any]) -> tuple[str, ...]:
    """The largest parts of a model that have dense layers and no quantized one, sorted.

    A layer is dense if its weight is a dense matrix. A part never ends in a number.

    Examples:
      >>> from jeff.quantize import QuantConfig, quantize
      >>> import jax.numpy as jnp
      >>> dense = jnp.ones((8, 32))
      >>> q = quantize(dense.T, QuantConfig(bits=4))
      >>> names = ["vision.layers.0.fc", "vision.layers.1.fc", "model.layers.0.fc"]
      >>> tensors = {f"{name}.weight": dense for name in names}
      >>> dense_parts({**tensors, "model.layers.1.fc.weight": q})
      ('model.layers.0.fc', 'vision')
    """
    names = [layer_name(name) for name, _ in quantized(tensors)]
    parts = set()
    for name, tensor in tensors.items():
        layer = name.removesuffix(".weight")
        if layer == name or isinstance(tensor, QTensor) or len(tensor.shape) != 2:
            continue
        words = layer.split(".")
        for count in range(1, len(words) + 1):
            part = ".".join(words[:count])
            inside = any(f"{n}.".startswith(f"{part}.") for n in names)
            if not inside and not words[count - 1].isdigit():
                parts.add(part)
                break
    return tuple(sorted(parts))


def has_head(layers: Iterable[str]) -> bool:
    """Whether the output matrix is among some layers.

    Examples:
      >>> has_head(["model.lm_head"]), has_head(["model.layers.0.fc"])
      (True, False)
    """
    return any(layer.split(".")[-1] == _HEAD for layer in layers)


def skipped(parts: Iterable[str], layers: Iterable[str]) -> list[str]:
    """`patterns` for what programs must leave dense, the output matrix included.

    The file of a model whose output matrix is that of its embedding has no tensor for
    it, but programs make a layer of it all the same and quantize what is not named.

    Args:
      parts: The dense parts of which there are tensors.
      layers: The quantized layers.

    Returns:
      The expressions.

    Examples:
      >>> print(*skipped([], ["model.layers.0.up"]))
      (?:.*\\.)?lm_head(?:\\..*)?$
      >>> skipped([], ["lm_head"])
      []
    """
    layers = list(layers)
    head = [] if has_head(layers) else [_HEAD]
    return patterns([*parts, *head], layers)


def shortest_tail(
    name: str, others: Iterable[str], matches: Callable[[str, str], bool]
) -> str:
    """The end of a name, as few of its words as tell it from other names.

    Programs give the same part of a model other prefixes (``visual`` of a file is
    ``model.visual`` in transformers 5), so the end is what to know it by.

    Args:
      name: Words with dots between them.
      others: Names that are not to be matched.
      matches: Whether an end of a name is taken for an other name.

    Returns:
      The end; the whole name if no end will do.

    Examples:
      >>> shortest_tail("a.0.up", ["a.1.up"], lambda tail, other: tail in other)
      '0.up'
    """
    words, others = name.split("."), list(others)
    for count in range(1, len(words)):
        tail = ".".join(words[-count:])
        if not any(matches(tail, other) for other in others):
            return tail
    return name


def patterns(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Regular expressions for parts of a model, whatever their prefix, sorted.

    Args:
      names: The parts.
      others: Names of the layers that must not be matched.

    Returns:
      Expressions that match a whole name of such a part, or of a layer in it.

    Examples:
      >>> print(*patterns(["visual", "model.layers.0.up"], ["model.layers.1.up"]))
      (?:.*\\.)?0\\.up(?:\\..*)?$ (?:.*\\.)?visual(?:\\..*)?$
    """
    others = list(others)

    def pattern(tail):
        return rf"(?:.*\.)?{re.escape(tail)}(?:\..*)?$"

    def matches(tail, other):
        return re.match(pattern(tail), other) is not None

    return sorted({pattern(shortest_tail(name, others, matches)) for name in names})
