"""The zoo: a table of small named models on which the program core is tested.

``zoo.NAMES`` lists the cases, ``zoo.build(name)`` makes one (once per process), and
``zoo.params()`` is what to hand to ``pytest.mark.parametrize("name", ...)``: a
framework that is not installed shows up as one skipped case.
"""

import functools
import importlib
import importlib.util

import pytest

from support.case import Case

__all__ = ["NAMES", "Case", "build", "params"]

_MODULES = (  # module of cases, package it needs
    ("zoo_plain", "jax"),
    ("zoo_lookup", "jax"),
    ("zoo_conv", "jax"),
    ("zoo_derived", "jax"),
    ("zoo_control", "jax"),
    ("zoo_nnx", "flax"),
    ("zoo_linen", "flax"),
    ("zoo_haiku", "haiku"),
    ("zoo_equinox", "equinox"),
)

_BUILDERS = {}
_ABSENT = []
for _module, _package in _MODULES:
    if importlib.util.find_spec(_package) is None:
        _ABSENT.append((_module, _package))
    else:
        _BUILDERS.update(importlib.import_module(f"support.{_module}").CASES)

NAMES = tuple(_BUILDERS)


@functools.cache
def build(name: str) -> Case:
    """The case called `name`."""
    return _BUILDERS[name]()


def params(*marks: str, without: tuple[str, ...] = ()) -> list:
    """Names for ``parametrize``: the cases with all of `marks`, none of `without`."""
    chosen = [
        name
        for name in NAMES
        if not (marks or without)
        or (build(name).marks.issuperset(marks) and not build(name).marks & {*without})
    ]
    absent = [
        pytest.param(module, marks=pytest.mark.skip(reason=f"{package} is absent"))
        for module, package in _ABSENT
    ]
    return [*chosen, *absent]
