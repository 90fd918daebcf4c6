"""Data: what ships in the wheel, and packages fetched by name."""

from jeff.data import cifar10, embedded, fetch

__all__ = ["cifar10", "embedded", "fetch"]
