"""How many injections, of which faults, and what their outcomes say: numbers only."""

__all__ = []
