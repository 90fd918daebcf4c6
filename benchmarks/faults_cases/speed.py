"""Injections per second of jeff and of its peers, in turns, in one process.

`measure` is to be called in a fresh process: it confines the process to some cores and
gives JAX as many CPU devices, before JAX starts.
"""

import functools
import itertools
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jeff
from faults_cases import subjects, units
from faults_cases.peers import Peers
from jeff import base, faults, sweep
from pallas_kernels import timing

__all__ = ["FLIP_RATE", "MIBB_RATE", "Settings", "Speeds", "measure"]

FLIP_RATE = 1e-3
"""Probability that a bit of a weight's code, or an activation, is hit."""
MIBB_RATE = 1e-6
"""Probability that a multiplication is faulty."""
_COPIES = 16  # faults per image that share one run of the clean network


class Settings(NamedTuple):
    """What is timed.

    Attributes:
      peers: The interpreter that has torch, PyTorchFI and MRFI.
      cores: How many cores, threads and CPU devices are used.
      batch: Pictures of the cases that are not of one image.
      repeats: Timed runs of every contender.
      seconds: About how long a run takes.
      seed: Of weights, pictures and faults.
      all_cases: Also those that only explain the others.
    """

    peers: str
    cores: int
    batch: int
    repeats: int
    seconds: float
    seed: int
    all_cases: bool


class Speeds(NamedTuple):
    """What was found, plain data.

    Attributes:
      seconds: By contest and contender, ``[repeats]`` seconds per counted thing.
      compile_seconds: By CONTEST.CONTENDER, of jeff.
      temporary_bytes: Likewise.
      plans: How every contender ran, in words.
      missing: Why a peer is not there, by name.
      versions: Of torch and the peers.
      agreement: Largest difference of logits over the largest logit, by what is
        compared.
    """

    seconds: dict[str, dict[str, list[float]]]
    compile_seconds: dict[str, float]
    temporary_bytes: dict[str, int]
    plans: dict[str, str]
    missing: dict[str, str]
    versions: dict[str, str]
    agreement: dict[str, float]


def measure(settings: Settings) -> Speeds:
    """Times all contests."""
    cores = sorted(os.sched_getaffinity(0))[-settings.cores :]
    os.sched_setaffinity(0, cores)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", len(cores))
    subject = subjects.random_resnet20(settings.batch, settings.seed)
    found = Speeds({}, {}, {}, {}, {}, {}, {})
    threads = sorted({1, len(cores)})
    with Peers(
        settings.peers,
        subjects.arrays(subject.params),
        subject.data.inputs,
        rate=FLIP_RATE,
        threads=threads,
        seed=settings.seed,
    ) as peers:
        found.missing.update(peers.missing)
        found.versions.update(peers.versions)
        found.agreement.update(_agreement(subject, peers))
        for contest, cases, beside in _contests(subject, settings):
            programs = dict(_programs(contest, cases, found, settings))
            for name, case in beside.items():
                if case in peers.cases:
                    images = int(case.split(".b")[1].split(".")[0])
                    programs[name] = peers.program(case, images, settings.seconds)
            seconds = timing.times(programs, settings.repeats)
            found.seconds[contest] = {n: s.tolist() for n, s in seconds.items()}
            for name, case in beside.items():
                if name in programs:
                    found.plans[f"{contest}.{name}"] = peers.forms[case]
    return found


def _contests(subject: subjects.Subject, settings: Settings) -> Iterator[tuple]:
    """Name, jeff's cases, and the peers' by the name they get here."""
    size = f"b{settings.batch}"
    yield "one_image", _one_image(subject), {
        "pytorchfi": "pytorchfi.weight.b1",
        "pytorchfi_norm": "pytorchfi.weight.b1.norm",
        "torch": "torch.b1",
    }  # fmt: skip
    yield "features", _features(subject, settings), {
        "pytorchfi_neuron": f"pytorchfi.neuron.{size}",
        "pytorchfi_flip": f"pytorchfi.flip.{size}",
        "mrfi": f"mrfi.flips.{size}",
        "torch": f"torch.{size}",
    }  # fmt: skip
    yield "prefix_reuse", _prefixes(subject, settings), {
        "pytorchfi": f"pytorchfi.last_weight.{size}",
    }  # fmt: skip


def _programs(
    contest: str, cases: dict[str, Any], found: Speeds, settings: Settings
) -> Iterator[tuple[str, timing.Program]]:
    """jeff's contenders, compiled; what else is known of them goes to `found`."""
    key = jax.random.key(settings.seed)
    for name, case in cases.items():
        if isinstance(case, units.Case):
            made = units.make(case, key, settings.seconds)
            full = f"{contest}.{name}"
            found.compile_seconds[full] = made.compile_seconds
            found.plans[full] = made.plan
            if made.temporary_bytes is not None:
                found.temporary_bytes[full] = made.temporary_bytes
            yield name, made.program
        else:
            run, products = case
            yield name, units.plain(run, products, settings.seconds)
        print(f"{settings.cores} cores: {contest}, {name} is compiled", flush=True)


def _one_image(subject: subjects.Subject) -> dict[str, Any]:
    one = jax.tree.map(lambda a: a[:1], subject.data)

    def flips(rate):
        model = faults.bit_flip(rate, max_rate=FLIP_RATE)
        return faults.on_weights(model, where=subjects.KERNELS)

    many = sweep.weight_faults(subject.apply, subject.params, flips)
    single = units.one_weight_flip(
        subject.params, subjects.KERNELS, jeff.rewrite(subject.apply)
    )
    common = {"data": one, "unit": 64, "batch": 1, "over": None, "counted": 1}
    return {
        "jeff_flips": units.Case(many, rate=FLIP_RATE, **common),
        "jeff_single": units.Case(single, rate=1.0, **common),
        "jeff_plain": _plain(subject, 1),
    }


def _features(subject: subjects.Subject, settings: Settings) -> dict[str, Any]:
    dense, batch = base.decoded(subject.params), settings.batch
    pictures = subject.data.inputs
    sites = [site.name for site in jeff.sites(subject.apply, dense, pictures)]
    convolutions = sites[:-1]  # what PyTorchFI hits: all but the classifier
    plan = sweep.plan_sites(
        subject.apply, dense, pictures,
        sites=convolutions, share="equal", period=batch, fixed_point=8,
    )  # fmt: skip
    single = sweep.site_wise(subject.apply, dense, plan, faults_per_image=_COPIES)

    def campaign(model_of_rate, rate):
        trial = sweep.feature_faults(subject.apply, dense, model_of_rate)
        # Small batches stay in the cache: 16 images at a time, not the whole batch.
        return units.Case(trial, subject.data, rate, 4, min(16, batch), "map", batch)

    cases = {
        "jeff_single": units.Case(
            single, subject.data, 1.0, 1, batch, None, _COPIES * batch
        ),
        "jeff_flips": campaign(
            functools.partial(faults.fixed_point_flip, bits=8, max_rate=FLIP_RATE),
            FLIP_RATE,
        ),
        "jeff_rounded": campaign(_rounded, 1.0),
        "jeff_plain": _plain(subject, batch),
    }
    if settings.all_cases:
        cases["jeff_mibb"] = campaign(
            functools.partial(faults.mibb_at_sites, max_rate=MIBB_RATE), MIBB_RATE
        )
    return cases


def _rounded(rate: Any) -> base.FaultModel:
    """All features in 8 bits, and no faults: what flips of their bits cost besides."""
    del rate

    def inject(word, y):
        # Of no use, but all trials would be computed once if they were the same.
        y = jnp.where(word == 0, -y, y)
        return faults.to_fixed_point(y, bits=8)

    return base.FaultModel(lambda key, like: jax.random.bits(key), inject)


def _prefixes(subject: subjects.Subject, settings: Settings) -> dict[str, Any]:
    starts = {"jeff_block": ("blocks.8.first.kernel", r"^blocks\.8\..*kernel$")}
    if settings.all_cases:
        last = "blocks.8.second.kernel"
        stage = "blocks.6.first.kernel", r"^blocks\.[678]\..*kernel$"
        starts |= {"jeff_layer": (last, f"^{last}$"), "jeff_stage": stage}
    cases = {}
    for name, (start, where) in starts.items():
        late = sweep.prefix(subject.apply, subject.params, start, subject.data)
        trial = units.one_weight_flip(
            late.params, where, lambda p, x, late=late: late.apply(p, *x)
        )
        cases[name] = units.Case(
            trial, late.data, 1.0, 8, settings.batch, None, settings.batch
        )
    return cases


def _plain(subject: subjects.Subject, count: int) -> tuple[Any, int]:
    """The network without faults, on every device of the process."""
    dense = base.decoded(subject.params)
    run = jax.jit(subject.apply)
    placed = [
        jax.device_put((dense, subject.data.inputs[:count]), device)
        for device in jax.local_devices()
    ]
    calls = 64 if count == 1 else 1

    def once():
        rounds = itertools.product(range(calls), placed)
        jax.block_until_ready([run(*arguments) for _, arguments in rounds])

    return once, count * calls * len(placed)


def _agreement(subject: subjects.Subject, peers: Peers) -> dict[str, float]:
    """Checks, before anything is timed, that all run the same network."""
    dense = base.decoded(subject.params)
    run = jax.jit(subject.apply)
    golden = np.asarray(run(dense, subject.data.inputs))
    scale = np.abs(golden).max()
    found = {}
    names = ("torch", "torch_norm")
    for name, logits in zip(names, peers.logits, strict=False):
        found[name] = float(np.abs(logits - golden).max() / scale)
    if peers.logits and "pytorchfi" not in peers.missing:
        row, column, into, out, value = 2, 0, 5, 7, 3.0
        name = "blocks.8.second.kernel"
        kernel = jeff.tree.get(dense, name).at[row, column, into, out].set(value)
        faulty = run(jeff.tree.update(dense, {name: kernel}), subject.data.inputs)
        last = 20  # of 21 convolutions in the order of the modules
        logits = peers.weight_fault(last, [out, into, row, column], value)
        found["pytorchfi_same_fault"] = float(np.abs(logits - faulty).max() / scale)
        found["that_fault_itself"] = float(np.abs(faulty - golden).max() / scale)
    for name, error in found.items():
        if name != "that_fault_itself" and not error < 1e-4:
            raise SystemExit(f"{name} is another network: {error:.1e} of the largest")
    return found
