"""Data: what ships in the wheel, and packages fetched by name."""

from jeff.data import embedded, fetch

__all__ = ["embedded", "fetch"]
