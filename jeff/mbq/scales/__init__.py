"""Balance scales: the candidates and formulas, and the search among them."""

__all__ = []
