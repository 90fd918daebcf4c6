"""Weights and activations to what they are stored and computed as."""

__all__ = []
