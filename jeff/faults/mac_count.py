"""How many multiplications stand behind one output, and how likely one is faulty.

With a probability ``p_m`` per multiplication and n_mac multiplications per output,
``p_l = 1 - (1 - p_m)^n_mac``. An adder tree that sums P input channels at once has
``n_mac = P``, and its multipliers are used for ``ceil(channels / P) * window`` steps.

References:
  FTT-NAS, arXiv 2003.10375, section on feature faults; adder trees as in its program.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jeff.faults import rates
from jeff.program import Site

__all__ = ["MacCount", "check_count", "conv_macs", "mac_fault_rate", "site_macs"]


class MacCount(NamedTuple):
    """Multiplications behind one output.

    Attributes:
      macs: How many enter the fault rate (n_mac, or those of one adder tree).
      accumulations: How many times a faulty element is used for one output.
    """

    macs: int
    accumulations: int


def mac_fault_rate(rate: Any, macs: int) -> Any:
    """Probability that at least one of `macs` multiplications is faulty.

    Computed as ``-expm1(macs * log1p(-rate))``, exact also for tiny rates.

    Args:
      rate: Probability per multiplication in [0, 1]; may be traced.
      macs: Multiplications per output, at least 1.

    Returns:
      The probability, float32.

    Raises:
      TypeError: If `rate` is no real number.
      ValueError: If an argument is out of its range.

    Examples:
      >>> print(round(float(mac_fault_rate(1e-4, 576)), 4))
      0.056
    """
    rate = rates.checked_rate("rate", rate)
    check_count("macs", macs)
    if rates.is_known(rate):
        p = float(rate)
        return np.float32(1.0 if p == 1 else -math.expm1(macs * math.log1p(-p)))
    return -jnp.expm1(macs * jnp.log1p(-rate))


def conv_macs(
    kernel: tuple[int, ...],
    input_channels: int,
    *,
    groups: int = 1,
    tree_width: int | None = None,
) -> MacCount:
    """Multiplications per output of a convolution.

    Args:
      kernel: Window sizes, such as ``(k_h, k_w)``.
      input_channels: Channels of the input, all groups together.
      groups: Feature groups; `input_channels` for a depthwise convolution.
      tree_width: Input channels that one adder tree sums in parallel; its
        multipliers are used for ``ceil(channels / tree_width) * k_h * k_w`` steps.
        ``None``: a multiplier for every multiplication.

    Returns:
      Counts for `mibb`.

    Raises:
      ValueError: If a size is below 1 or `groups` does not divide the channels.

    Examples:
      >>> conv_macs((3, 3), 64), conv_macs((3, 3), 64, tree_width=16)
      (MacCount(macs=576, accumulations=1), MacCount(macs=16, accumulations=36))
      >>> conv_macs((3, 3), 64, groups=64, tree_width=16)
      MacCount(macs=1, accumulations=9)
    """
    for size in kernel:
        check_count("kernel", size)
    check_count("input_channels", input_channels)
    check_count("groups", groups)
    if input_channels % groups:
        raise ValueError(f"groups={groups} does not divide {input_channels=}")
    window, channels = math.prod(kernel), input_channels // groups
    if tree_width is None:
        return MacCount(channels * window, 1)
    check_count("tree_width", tree_width)
    if groups == input_channels > 1:
        return MacCount(1, window)
    return MacCount(tree_width, -(-channels // tree_width) * window)


def site_macs(site: Site, *, tree_width: int | None = None) -> MacCount:
    """Multiplications per output of a site.

    Args:
      site: A product or convolution, as `jeff.sites` lists it or a rule gets it, or a
        mark that was told its `macs`.
      tree_width: As in `conv_macs`; a product is a convolution with a window of 1.

    Returns:
      Counts for `mibb`. A transposed convolution counts its whole window, products
      with inserted zeros included.

    Raises:
      ValueError: If the site is a look-up, a mark without `macs`, or a mark and there
        is a `tree_width` (it knows no channels and no window); or if `tree_width` is
        below 1.

    Examples:
      >>> import jeff
      >>> (site,) = jeff.sites(lambda w, x: x @ w, jnp.ones((64, 8)), jnp.ones((1, 64)))
      >>> site_macs(site), site_macs(site, tree_width=16)
      (MacCount(macs=64, accumulations=1), MacCount(macs=16, accumulations=4))
    """
    if site.kind == "lookup":
        raise ValueError(f"site {site.name!r} is a look-up, which multiplies nothing")
    if site.kind == "mark":
        return _mark_macs(site, tree_width)
    window = site.window
    channels = site.shape[-2] // math.prod(window) * site.groups
    return conv_macs(window, channels, groups=site.groups, tree_width=tree_width)


def _mark_macs(site: Site, tree_width: int | None) -> MacCount:
    if site.marked_macs is None:
        raise ValueError(
            f"mark {site.name!r} does not say how many multiplications stand behind an "
            f"element: write jeff.mark({site.leaf!r}, y, macs=...)"
        )
    if tree_width is not None:
        raise ValueError(
            f"mark {site.name!r} knows neither channels nor window, which tree_width "
            "needs: give on_features a function of the site with mibb(rate, "
            "**conv_macs(kernel, channels, tree_width=...)._asdict())"
        )
    return MacCount(site.marked_macs, 1)


def check_count(name: str, value: int) -> None:
    """Refuses what is no positive integer.

    Args:
      name: The argument's name, for messages.
      value: What was given.

    Raises:
      ValueError: If it is no integer of at least 1, or a bool.

    Examples:
      >>> check_count("macs", 9)
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
