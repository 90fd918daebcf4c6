"""How many voters are computed at a time, where what they draw or give is stored.

Products with drawn matrices keep a tile of the noise, however many voters there are.
Local reparameterisation and flipout keep the activations of every voter that is
computed at a time, and flipout a matrix of noise for each. So these take some voters,
finish them and go on: as many as fit into an amount of memory that does not grow with
the number of voters.
"""

import math
from collections.abc import Mapping, Sequence

from jeff.dm_bnn.levels import Levels
from jeff.dm_bnn.ways import Ways
from jeff.program.site import Site

__all__ = ["WORDS", "at_a_time", "words_of_voter"]

WORDS = {"cpu": 2**17, "gpu": 2**26, "tpu": 2**26}
"""By JAX backend the words that voters at a time may take: 512 KiB, about what the
cache of a core holds, and 256 MiB, so that an accelerator has much to do at once."""


def words_of_voter(
    levels: Levels, ways: Ways, sites: Sequence[Site], sizes: Mapping[str, int]
) -> int:
    """Words that one voter holds at a time in local reparameterisation or flipout.

    Args:
      levels: The program's.
      ways: How its random leaves are drawn.
      sites: The program's.
      sizes: Of each random leaf, in words.

    Returns:
      What the widest equation behind random weights takes in and gives, the leaves that
      are drawn whole, and for flipout the largest matrix of noise and the input with
      its signs. What it takes to make normal numbers of random words comes on top, a
      few times their number.
    """
    whole = sum(sizes[name] for name in ways.whole)
    noise = [
        math.prod(site.shape) + math.prod(site.x_shape)
        for site in sites
        if ways.sites.get(site.name) == "flipout"
    ]
    return max(1, levels.widest + whole + max(noise, default=0))


def at_a_time(
    voters: Sequence[int], mode: str, chunk: int | None, words: int, backend: str
) -> tuple[int, ...]:
    """Branches of every level that `predict` computes at a time.

    Args:
      voters: Branches at each level.
      mode: Of `predict`.
      chunk: As there.
      words: Of one voter.
      backend: Its name in JAX; an unknown one is taken for a GPU.

    Returns:
      A number per level. In exact modes all. In local reparameterisation and flipout
      all of the deepest levels, as many as then fit of the next one, and one of those
      above; one voter always fits.

    Examples:
      >>> at_a_time((1, 10, 10), "dm", None, 1000, "cpu")
      (1, 10, 10)
      >>> at_a_time((1, 10, 10), "dm", 4, 1000, "cpu")
      (1, 4, 10)
      >>> at_a_time((1, 10, 10), "lrt", None, 3200, "cpu")
      (1, 4, 10)
      >>> at_a_time((1, 10, 10), "lrt", None, 3200, "gpu")
      (1, 10, 10)
    """
    sizes = [*voters]
    if chunk is not None:  # levels below the first run whole, as `predict` says
        first = next((i for i, t in enumerate(voters) if t > 1), 0)
        sizes[first] = min(chunk, voters[first])
    elif mode in ("lrt", "flipout"):
        fit = WORDS.get(backend, WORDS["gpu"]) // words
        for level in reversed(range(len(voters))):
            sizes[level] = _even(voters[level], max(1, fit))
            fit //= sizes[level]
    return tuple(sizes)


def _even(total: int, most: int) -> int:
    """A size that divides the total, if one is near: a remainder is compiled apart."""
    size = min(total, most)
    return next((n for n in range(size, size // 2, -1) if total % n == 0), size)
