"""What a sweep is of, and how it is best computed.

Arguments are checked, programs traced and compiled as units, and sizes chosen; no trial
runs here.
"""

__all__ = []
