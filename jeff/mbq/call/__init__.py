"""One call of a method: arguments checked, tokens weighed, its result's fingerprint."""

__all__ = []
