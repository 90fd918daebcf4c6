"""``jeff run dm-bnn``: voters of the embedded Bayesian network of handwritten digits.

What voters cost is counted in the program, what they are worth is estimated from pilot
trees, and how long they take is timed; then the network answers questions about digits
and about what is none, and bits of its memory are flipped. `jeff.dm_bnn.study.report`
puts it into words and plots.
"""

import jax
import numpy as np

from jeff import prng
from jeff.dm_bnn.study import answers, faults, speed, subject, trees
from jeff.dm_bnn.study.report import outcome
from jeff.dm_bnn.study.settings import IMAGES, DMBNNSettings
from jeff.evaluate import Outcome, Progress, Study

__all__ = ["STUDY", "run"]


def run(settings: DMBNNSettings, *, key_seed: int, progress: Progress) -> Outcome:
    """Runs the study.

    Args:
      settings: What to run.
      key_seed: Seed of all voters, pilots, faults and uniform images.
      progress: Told about stages and steps.

    Returns:
      Costs, worths, times, accuracy, calibration, detection and accuracy under bit
      flips, with intervals where something was drawn or sampled.

    Raises:
      ValueError: If an embedded file is missing or altered.
      RuntimeError: If a draw of bit flips was cut off.

    Examples:
      Takes a quarter of a minute, so it is not run here::

        outcome = run(DMBNNSettings(), key_seed=0, progress=NoProgress())
        [m.value for m in outcome.measures if m.name == "multiplications.dm"]

    References:
      arXiv 2005.03857, abstract (the claims).
    """
    key = jax.random.key(key_seed)
    rng = np.random.default_rng(key_seed)
    found = subject.load(rng)
    grown = trees.compare(found, settings, prng.named_key(key, "pilots"), progress)
    timed = speed.measure(found, settings, prng.named_key(key, "speed"), progress)
    progress.stage("ask the voters", 1)
    said = answers.ask(found, settings, prng.named_key(key, "answers"))
    said = jax.tree.map(np.asarray, said)
    progress.advance()
    damage = faults.flip_bits(found, settings, prng.named_key(key, "faults"), progress)
    return outcome(
        settings,
        grown,
        timed,
        said,
        found.labels,
        damage,
        words=faults.stored_words(found.trained),
        rng=rng,
    )


STUDY = Study(
    presets={
        "default": DMBNNSettings(),
        "full": DMBNNSettings(
            pilots=20,
            pilot_images=IMAGES,
            repeats=50,
            quick_compile=False,
            rates=(1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
            devices=100,
            device_images=IMAGES,
            device_voters=30,
        ),
    },
    run=run,
)
