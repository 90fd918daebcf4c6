"""Fault campaigns as trials: examples, golden outputs, outcomes, curves by rate."""

__all__ = []
