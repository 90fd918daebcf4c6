"""Simulated hardware: arrays in, arrays and a report in SI units out.

Knows nothing of models, parameter trees or `jeff`. Empty until the first simulator.
"""

__all__: list[str] = []
