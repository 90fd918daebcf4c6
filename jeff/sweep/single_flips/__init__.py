"""Campaigns of one flipped bit at a time: all of them, by site, by leaf and bit."""

__all__ = []
