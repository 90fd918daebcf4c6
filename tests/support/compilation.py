"""How programs are compiled while the tests run."""

import os

import jax

__all__ = ["compile_quickly"]


def compile_quickly() -> None:
    """Has XLA optimize little: most programs of a test are compiled to run once.

    Halves the time of tests that mostly compile. The programs mean the same, in other
    last digits, so a test that compares bits compares programs compiled alike. Read by
    JAX and XLA before they first compile, here and in the processes that a test starts.
    `JEFF_TEST_OPTIMIZE=1` leaves both as a user finds them.
    """
    if os.environ.get("JEFF_TEST_OPTIMIZE"):
        return
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    jax.config.update("jax_disable_most_optimizations", True)
    flag = "--xla_cpu_use_fusion_emitters=false"
    flags = os.environ.get("XLA_FLAGS", "")
    known = jax.__version_info__[:2] == (0, 10)  # XLA ends at a flag it does not know
    if known and flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
