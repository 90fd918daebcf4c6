"""jeff: methods for cheaper networks and in-memory hardware, on any JAX program."""

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
    "merge",
    "rewrite",
    "sites",
    "tap",
    "tap_cotangents",
    "trainable",
]
