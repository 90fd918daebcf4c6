"""Balance groups: which linears are scaled together, and folded into what."""

__all__ = []
