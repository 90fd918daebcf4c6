"""The registry of the eight systems, and how a study is found.

A system becomes available when the module of its `System.entry` exists; nothing else
has to be edited here.
"""

import dataclasses
import importlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jeff.cli.errors import BadInput, RunFailed, nearest, one_line

if TYPE_CHECKING:  # slow to import, and `jeff --help` needs none of it
    from jeff.evaluate import Study

__all__ = ["SYSTEMS", "System", "find", "is_available", "load"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class System:
    """One line of ``jeff list``.

    Attributes:
      name: What the user types.
      title: Heading in reports.
      summary: One sentence: what it does.
      paper: Where the method was published; ``arXiv NUMBER`` becomes a link.
      entry: ``module:NAME`` of its `jeff.evaluate.Study`.

    Examples:
      >>> SYSTEMS[0].name, SYSTEMS[0].entry
      ('mbq', 'jeff.mbq.study:STUDY')
    """

    name: str
    title: str
    summary: str
    paper: str
    entry: str


SYSTEMS = (
    System(
        name="mbq",
        title="MBQ",
        summary="Low-bit weights for vision-language models, with scales that balance "
        "how sensitive vision and language tokens are.",
        paper="arXiv 2412.19509",
        entry="jeff.mbq.study:STUDY",
    ),
    System(
        name="ftt-nas",
        title="FTT-NAS",
        summary="Fault-tolerant training and architecture search for networks that "
        "survive hardware faults.",
        paper="arXiv 2003.10375",
        entry="jeff.ftt_nas.study:STUDY",
    ),
    System(
        name="ddc-pim",
        title="DDC-PIM",
        summary="Twice the weights in an SRAM macro: complementary filter pairs share "
        "the two sides of one cell.",
        paper="arXiv 2310.20424",
        entry="jeff.ddc_pim.study:STUDY",
    ),
    System(
        name="epim",
        title="EPIM",
        summary="Convolutions cut from small reusable epitomes, sized for analogue "
        "crossbar arrays.",
        paper="arXiv 2311.07620",
        entry="jeff.epim.study:STUDY",
    ),
    System(
        name="dm-bnn",
        title="DM-BNN",
        summary="Bayesian network inference with about half the multiplications, by "
        "feature decomposition and memorization.",
        paper="arXiv 2005.03857",
        entry="jeff.dm_bnn.study:STUDY",
    ),
    System(
        name="spin-bayes",
        title="Spintronic Bayes",
        summary="Bayesian networks answered by stochastic computing on the random bits "
        "of magnetic tunnel junctions.",
        paper="arXiv 1711.01125",
        entry="jeff.spin_bayes.study:STUDY",
    ),
    System(
        name="litevar",
        title="LiteVAR",
        summary="Visual autoregressive generation with windowed attention, shared "
        "guidance and mixed low-bit weights.",
        paper="arXiv 2411.17178",
        entry="jeff.litevar.study:STUDY",
    ),
    System(
        name="hybrid-ann",
        title="Hybrid ANN",
        summary="One graph index for dense and sparse vectors together, with their "
        "distances aligned.",
        paper="arXiv 2410.20381",
        entry="jeff.hybrid_ann.study:STUDY",
    ),
)


def is_available(system: System) -> bool:
    """Whether the system's module exists (it is not imported).

    Args:
      system: An entry of the registry.

    Returns:
      True if `load` will find a module.

    Examples:
      >>> is_available(SYSTEMS[0])
      True
    """
    module = system.entry.partition(":")[0]
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package does not exist
        return False


def find(name: str, systems: Sequence[System]) -> System:
    """The system called `name`.

    Args:
      name: What the user typed.
      systems: The registry.

    Returns:
      The entry.

    Raises:
      BadInput: If there is none, or it is not built yet.

    Examples:
      >>> find("mqb", SYSTEMS[:2])
      Traceback (most recent call last):
        ...
      jeff.cli.errors.BadInput: argument SYSTEM: unknown system 'mqb'; did you mean
      'mbq'? known: mbq, ftt-nas, all
    """
    by_name = {s.name: s for s in systems}
    if name not in by_name:
        known = [*by_name, "all"]
        raise BadInput(
            f"argument SYSTEM: unknown system {name!r}; {nearest(name, known)}"
        )
    if not is_available(by_name[name]):
        built = ", ".join(s.name for s in systems if is_available(s)) or "none yet"
        raise BadInput(
            f"argument SYSTEM: {name!r} is planned but not built yet; built: {built}"
        )
    return by_name[name]


def load(system: System) -> "Study":
    """Imports a system's study.

    Args:
      system: An available entry of the registry.

    Returns:
      The study.

    Raises:
      RunFailed: If the import fails or finds something else.

    Examples:
      >>> list(load(SYSTEMS[0]).presets)
      ['default', 'full']
    """
    from jeff.evaluate import Study

    module, _, attribute = system.entry.partition(":")
    try:
        study = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise RunFailed(
            f"{system.name}: cannot import {system.entry}: {one_line(error)}"
        ) from error
    if not isinstance(study, Study):
        raise RunFailed(
            f"{system.name}: {system.entry} is not a jeff.evaluate.Study "
            f"but {type(study).__name__}"
        )
    return study
