"""Runs a planned sweep: its units on devices, in folders and among processes."""

__all__ = []
