"""Calibration data, and how strongly the loss reacts to each modality in it."""

__all__ = []
