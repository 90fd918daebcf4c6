"""The repeated blocks of a program: which, what enters them, what they become.

The record of a finished block, and the store that keeps it on the disk, are here too.
"""

__all__ = []
