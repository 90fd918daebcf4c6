"""A fault study: a fault model by name, its curve and its map, and the report."""

__all__ = []
