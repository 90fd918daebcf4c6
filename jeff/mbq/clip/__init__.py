"""AWQ's search for the range beyond which weights are clipped before rounding."""

__all__ = []
