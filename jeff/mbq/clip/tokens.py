"""Which calibration tokens the clipping search looks at."""

from collections.abc import Sequence

import numpy as np

__all__ = ["Picks", "pick_tokens"]

Picks = tuple[np.ndarray, np.ndarray]


def pick_tokens(kinds: Sequence[np.ndarray], wanted: int) -> list[Picks]:
    """Every so-manieth token of each kind, counted through all batches.

    What is picked does not depend on how the tokens are cut into batches, and every
    batch gets arrays of one size, so that all share a compiled program.

    Args:
      kinds: Per batch, the kind of every token, int ``[R]``: one for all, or one per
        modality; tokens of a negative kind are never picked.
      wanted: About how many of each kind: every ``n // wanted``-th of `n`, so fewer
        than twice as many; all, if there are fewer.

    Returns:
      Per batch ``(index int32 [S], share float32 [S])``: the tokens, and how many each
      stands for; 0 for entries that only fill up.

    Examples:
      Seven tokens of kind 0 in two batches, of which every second one is taken:

      >>> kinds = [np.array([0, 0, 0, -1, 0]), np.array([0, 0, 0, -1, -1])]
      >>> for index, share in pick_tokens(kinds, 3):
      ...     print(index, share)
      [0 2] [2. 2.]
      [0 2] [2. 2.]
    """
    chosen = [np.zeros(k.size, np.float32) for k in kinds]
    for kind in np.unique(np.concatenate(kinds)):
        if kind < 0:
            continue
        total = sum(int((k == kind).sum()) for k in kinds)
        stride, seen = max(1, total // wanted), 0
        for k, shares in zip(kinds, chosen, strict=True):
            at = np.flatnonzero(k == kind)
            shares[at[-seen % stride :: stride]] = stride
            seen += at.size
    size = max(int((shares > 0).sum()) for shares in chosen)
    picks = []
    for shares in chosen:
        index = np.flatnonzero(shares)
        padded = np.zeros(size, np.int32)
        padded[: index.size] = index
        share = np.zeros(size, np.float32)
        share[: index.size] = shares[index]
        picks.append((padded, share))
    return picks
