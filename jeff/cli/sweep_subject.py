"""The network that ``jeff sweep`` names, with its examples."""

import os
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from jeff.cli.arguments import Sweep
from jeff.cli.errors import BadInput, nearest, one_line
from jeff.cli.sites import load_program
from jeff.io import fill_params, read_arrays
from jeff.models.embedded_classifiers import CLASSIFIERS, load_classifier

__all__ = ["Network", "network"]


class Network(NamedTuple):
    """A program with examples.

    Attributes:
      apply: ``apply(params, *inputs)``.
      params: Its params.
      inputs: An array ``[examples, ...]``, or a tuple of them.
      labels: Integers ``[examples]``, or ``None``: its own answers are right.
      about: A sentence for the report.
    """

    apply: Any
    params: Any
    inputs: Any
    labels: np.ndarray | None
    about: str


def network(command: Sweep) -> Network:
    """Finds and reads it.

    Args:
      command: The arguments.

    Returns:
      The network.

    Raises:
      BadInput: If there is no such network, or a file or an option does not fit.
      RunFailed: If the user's function fails.
    """
    if ":" in command.model:
        return _users(command)
    if command.model not in CLASSIFIERS:
        known = nearest(command.model, CLASSIFIERS)
        raise BadInput(
            f"argument MODEL: no network {command.model!r} and not of the form "
            f"module:function; {known}"
        )
    for name in ("params", "data"):
        if getattr(command, name) is not None:
            raise BadInput(
                f"argument --{name}: is for MODULE:FUNCTION, {command.model} has its "
                "own"
            )
    try:
        found = load_classifier(command.model, command.images, seed=command.seed)
    except (ImportError, OSError, ValueError) as error:
        raise BadInput(f"{command.model}: {one_line(error)}") from error
    return Network(*found)


def _users(command: Sweep) -> Network:
    apply, params, *inputs = load_program(command.model)
    if command.params is not None:
        try:
            params = fill_params(params, read_arrays(command.params))
        except ValueError as error:
            raise BadInput(f"argument --params: {one_line(error)}") from error
    name = command.model
    if command.data is not None:
        try:
            values, labels = _examples(command.data)
        except ValueError as error:
            raise BadInput(f"argument --data: {one_line(error)}") from error
        values = jax.tree.map(lambda a: a[: command.images], values)
        labels = labels[: command.images]
        about = f"{name} on {len(labels)} examples of {command.data.name}."
        return Network(apply, params, values, labels, about)
    if not inputs:
        raise BadInput(f"argument --data: {name} returns no inputs: give a file")
    values = inputs[0] if len(inputs) == 1 else tuple(inputs)
    about = f"{name} on its own inputs; what it answers without faults counts as right."
    return Network(apply, params, values, None, about)


def _examples(file: pathlib.Path) -> tuple[Any, np.ndarray]:
    """Inputs and labels of a file, checked."""
    arrays = read_arrays(file)
    several = sorted(
        (n for n in arrays if n.startswith("inputs.") and n[7:].isdecimal()),
        key=lambda n: int(n[7:]),
    )
    names = ["inputs"] if "inputs" in arrays else several
    if not names or "labels" not in arrays:
        raise ValueError(
            f"{os.fspath(file)} must hold inputs (or inputs.0, inputs.1 ...) and "
            f"labels, it holds {', '.join(sorted(arrays)) or 'nothing'}"
        )
    labels = arrays["labels"]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{os.fspath(file)}: labels must be integers [examples], they are "
            f"{labels.dtype} {list(labels.shape)}"
        )
    for name in names:
        shape = arrays[name].shape
        if not shape or shape[0] != len(labels):
            raise ValueError(
                f"{os.fspath(file)}: {name} is {list(shape)} for {len(labels)} labels"
            )
    if not len(labels):
        raise ValueError(f"{os.fspath(file)}: there are no examples in it")
    values = tuple(arrays[name] for name in names)
    return (values[0] if names == ["inputs"] else values), labels
