"""Which implementation of an operation runs."""

from collections.abc import Callable, Sequence

__all__ = ["IMPLEMENTATIONS", "chosen"]

IMPLEMENTATIONS = ("reference", "xla", "mosaic_gpu", "interpret")
"""Names that `implementation` takes: the operation as one would write it down; what
runs anywhere; the kernel for GPUs; and the same kernel in the Pallas interpreter."""


def chosen(
    implementation: str | Sequence[str], why_not: Callable[[str], str | None]
) -> str:
    """The first of some implementations that can do a case.

    Args:
      implementation: A name of `IMPLEMENTATIONS`, or several to try in order.
      why_not: Why an implementation cannot do it; ``None`` if it can.

    Returns:
      Its name.

    Raises:
      ValueError: If a name is unknown, or there is none.
      NotImplementedError: If the one that was named cannot do it.
      ExceptionGroup: Of such errors, if none of several can.

    Examples:
      >>> chosen(("mosaic_gpu", "xla"), {"mosaic_gpu": "no GPU", "xla": None}.get)
      'xla'
    """
    names = (implementation,) if isinstance(implementation, str) else implementation
    unknown = [name for name in names if name not in IMPLEMENTATIONS]
    if unknown or not names:
        raise ValueError(
            f"implementation must be of {IMPLEMENTATIONS}, got {implementation!r}"
        )
    errors = []
    for name in names:
        reason = why_not(name)
        if reason is None:
            return name
        errors.append(NotImplementedError(f"{name}: {reason}"))
    if len(errors) == 1:
        raise errors[0]
    raise ExceptionGroup("no implementation can do this product", errors)
