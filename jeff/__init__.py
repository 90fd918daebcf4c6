"""jeff: methods for cheaper networks and in-memory hardware, on any JAX program.

Names are imported when they are first asked for: ``import jeff`` itself is instant, and
the command line starts without waiting for JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jeff.base import (
        Calibrator,
        FaultModel,
        Operation,
        Rule,
        Searcher,
        StoredWeight,
        decoded,
        is_stored,
    )
    from jeff.program import (
        after,
        before,
        blocks,
        count,
        cut,
        functional,
        functional_with_state,
        mark,
        merge,
        rewrite,
        sites,
        tap,
        tap_cotangents,
        trainable,
    )

# The one place of the version: pyproject.toml reads it from here.
__version__ = "0.1.0"

__all__ = [
    "Calibrator",
    "FaultModel",
    "Operation",
    "Rule",
    "Searcher",
    "StoredWeight",
    "__version__",
    "after",
    "before",
    "blocks",
    "count",
    "cut",
    "decoded",
    "functional",
    "functional_with_state",
    "is_stored",
    "mark",
    "merge",
    "rewrite",
    "sites",
    "tap",
    "tap_cotangents",
    "trainable",
]

_MODULES = ("base", "program", "tree")  # come with the package, as its names do


def __getattr__(name: str) -> Any:
    """A public name, or one of the modules they come from."""
    if name not in __all__ and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = {m: importlib.import_module(f"{__name__}.{m}") for m in _MODULES}
    if name in modules:
        return modules[name]
    home = "base" if name in modules["base"].__all__ else "program"
    value = globals()[name] = getattr(modules[home], name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
