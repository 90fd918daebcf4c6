"""What can be typed after ``jeff sweep``."""

import dataclasses
import pathlib
from typing import Annotated

import tyro

__all__ = ["Flag", "Sweep"]

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""An option without a value."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Inject faults into a network, and go on where a run was stopped."""

    model: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(metavar="tiny-vlm|resnet8|MODULE:FUNCTION"),
    ]
    """A network of jeff, or a function of yours that, called without arguments, returns
    (apply, params, *inputs); apply(params, *inputs) gives logits [batch, classes]."""
    params: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Params of your function instead of those it returns: .safetensors or .npz with an
    array for every leaf."""
    data: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Examples for your function: .npz or .safetensors with inputs (or inputs.0,
    inputs.1 ...) and labels; else its own inputs, and what it answers is right."""
    fault: str = "bit-flip"
    """bit-flip, stuck-at, adsaf, adsaf-cells, lognormal, reciprocal-normal, mibb,
    fixed-point-flip, gaussian or salt-and-pepper."""
    # Both `--set a=1 b=2` and `--set a=1 --set b=2`, as of `jeff run`.
    set: Annotated[
        tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]],
        tyro.conf.arg(metavar="NAME=VALUE ..."),
    ] = ()
    """Settings of the fault, such as cell_bits=2 of adsaf-cells; may be repeated. A
    name that it does not have lists those that it has."""
    on: Annotated[str | None, tyro.conf.arg(metavar="weights|features|both")] = None
    """What is hit; what the fault is meant for if not given."""
    rates: Annotated[str | None, tyro.conf.arg(metavar="1e-5,1e-4,...")] = None
    """Rates in [0, 1], or sigmas from 0 on; those of the fault if not given."""
    trials: int = 32
    """Faulty devices of each rate; with --margin at most so many."""
    images: int = 64
    """Examples that every trial sees; your function's own inputs are all taken."""
    seed: int = 0
    """Seed of every random draw, 0 to 4294967295."""
    where: Annotated[str | None, tyro.conf.arg(metavar="REGEX")] = None
    """Which leaves or sites are hit, by their names (see jeff sites)."""
    stored: str = "dense"
    """How weights are stored: dense, bfloat16, float16, int8, int4, int3 or int2."""
    permanent: Flag = False
    """Faults of features are the same for all examples of a trial."""
    margin: float | None = None
    """Stop a rate once its accuracy is known to this (0.01 is one percent)."""
    margin_method: Annotated[
        str, tyro.conf.arg(metavar="empirical_bernstein|student_t")
    ] = "empirical_bernstein"
    """How that is known: rigorous, or approximate and with several times fewer
    trials."""
    level: float = 0.95
    """Confidence level of all intervals."""
    map: Flag = False
    """Also draw the vulnerability map: one flipped bit at a time, by layer and bit."""
    map_trials: int = 8
    """Trials of each point of the map."""
    map_images: int = 16
    """Examples that each of them sees."""
    feature_bits: int | None = None
    """Width of the fixed-point codes whose bits a map of features flips, such as 8; the
    bits of floating numbers if not given."""
    plan: Annotated[str | None, tyro.conf.arg(metavar="vmap|map|N")] = None
    """Trials of a unit together, one after another or N at a time; chosen if not
    given."""
    unit: int | None = None
    """Trials of one call of the compiled program; chosen if not given."""
    batch: int | None = None
    """Examples at a time; chosen if not given."""
    devices: int | None = None
    """Devices of this process; all if not given."""
    byte_budget: int | None = None
    """Bytes that intermediate results may take; a part of the memory if not given."""
    distributed: Annotated[
        str | None, tyro.conf.arg(metavar="auto|HOST:PORT,INDEX/COUNT")
    ] = None
    """Run in several processes: auto under Slurm, Kubernetes or MPI, or the first
    process's address, the number of this one and how many there are."""
    out: Annotated[pathlib.Path, tyro.conf.arg(metavar="DIR")] = pathlib.Path(
        "jeff-out"
    )
    """Folder for DIR/sweep-MODEL-FAULT and the report DIR/index.html."""
    json: Flag = False
    """Print what result.json holds instead of a table."""

    @property
    def changes(self) -> tuple[str, ...]:
        """Every ``name=value`` of every ``--set``, in the order they were typed."""
        return tuple(change for group in self.set for change in group)
