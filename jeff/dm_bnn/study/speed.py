"""How long one input takes in each mode, and whether modes give the same voters."""

import concurrent.futures
import time
from typing import NamedTuple

import jax
import numpy as np

from jeff import prng
from jeff.dm_bnn.predict import predict
from jeff.dm_bnn.study.settings import DMBNNSettings
from jeff.dm_bnn.study.subject import QUICK, Subject
from jeff.evaluate import Progress
from jeff.models import digits_mlp

__all__ = ["Speed", "measure"]

_COMPILERS = 2  # programs compiled at a time


class Speed(NamedTuple):
    """Times and the largest difference.

    Attributes:
      seconds: Of every call, by program, ``[repeats]``: ``"naive"``, ``"hybrid"`` and
        ``"lrt"`` draw independent voters, ``"naive_tree"`` and ``"dm"`` the tree.
      difference: Largest difference of a logit between ``"naive_tree"`` and ``"dm"``,
        divided by the largest logit, over all calls.
    """

    seconds: dict[str, np.ndarray]
    difference: float


def measure(
    subject: Subject, settings: DMBNNSettings, key: jax.Array, progress: Progress
) -> Speed:
    """Times compiled programs for one input, each call with another digit and key.

    The programs take turns, so that what else the machine does meets all of them.

    Args:
      subject: The network.
      settings: Voters, tree and repeats.
      key: Of the voters.
      progress: Told about compilations and turns.

    Returns:
      Times without compilation, and the difference for equal keys.
    """
    modes = {
        "naive": (settings.voters, "naive"),
        "hybrid": (settings.voters, "hybrid"),
        "lrt": (settings.voters, "lrt"),
        "naive_tree": (settings.tree, "naive"),
        "dm": (settings.tree, "dm"),
    }
    images = subject.inputs[0]
    run = _quick if settings.quick_compile else _full

    def ask(name, turn):
        digit = turn % len(images)
        x, voters_key = images[digit : digit + 1], prng.named_key(key, "turn", turn)
        jax.block_until_ready((x, voters_key))
        start = time.perf_counter()
        out = run(subject.posterior, x, voters_key, *modes[name])
        jax.block_until_ready(out)
        return time.perf_counter() - start, np.asarray(out)

    progress.stage("compile", len(modes))
    with concurrent.futures.ThreadPoolExecutor(_COMPILERS) as pool:
        for _ in pool.map(lambda name: ask(name, settings.repeats), modes):
            progress.advance()
    progress.stage("draw voters", settings.repeats)
    seconds = {name: np.zeros(settings.repeats) for name in modes}
    differences = []
    for turn in range(settings.repeats):
        outs = {}
        for name in modes:
            seconds[name][turn], outs[name] = ask(name, turn)
        naive, dm = outs["naive_tree"], outs["dm"]
        differences.append(float(np.abs(dm - naive).max() / np.abs(naive).max()))
        progress.advance()
    return Speed(seconds, max(differences))


def _predict(posterior, x, key, voters, mode):
    return predict(digits_mlp.apply, posterior, x, key, voters=voters, mode=mode)


_full = jax.jit(_predict, static_argnums=(3, 4))
_quick = jax.jit(_predict, static_argnums=(3, 4), compiler_options=QUICK)
