"""Vision towers and what is before them: pictures, norms, SigLIP."""

__all__ = []
