"""AWQ and rounding to nearest of jeff and of qwix 0.1.8, on the same weights.

    pip install -e '.[peers]'
    python benchmarks/qwix_awq.py --help

Gated MLP blocks after a norm, int4 codes in groups of 128, both programs symmetric and
both with zero points. The blocks are those of the embedded vision-language model, with
the activations that reach them, and one of 1024 channels of which one in 64 carries
activations 20 to 60 times as large as the rest. Each program calibrates on the same
activations; the error is the root mean square of the change of the block's output on
held-out ones, relative to that of the output.

qwix is called by the functions that its providers call for every matrix
(``awq_core.quantize_weight`` with the mean magnitudes of that matrix's own inputs;
``qarray.quantize``), compiled as one program per block. Its AWQ keeps a vector of
scales beside every matrix, which inference divides by; jeff folds its scales into the
norm and the matrix before, and compares outputs where qwix compares weights.
Times are of finding the packed weights of a block: what the compiler took (by JAX's own
events), and everything else, tracing included.
"""

import contextlib
import dataclasses
import importlib.metadata
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jeff import base, io, mbq, program
from jeff.data import embedded
from jeff.evaluate import student_t
from jeff.models import pretrained
from jeff.quantize import QuantConfig
from pallas_kernels import timing

try:
    from qwix._src.core import qarray
    from qwix.contrib import awq_core
except ImportError as error:
    raise SystemExit("qwix is missing: pip install 'jeff[peers]'") from error

RECORDS = pathlib.Path(__file__).resolve().parent / "records"
GROUP, GRID = 128, 20
METHODS = ("rtn", "awq", "awq_clip")
MATRICES = ("gate", "up", "down")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is compared, and where the record goes."""

    seeds: int = 8
    """Samples of calibration data, and of the weights of the synthetic block."""
    layers: tuple[int, ...] = (0, 3)
    """Layers of the embedded model."""
    tokens: int = 512
    """Tokens to calibrate on, and as many others to measure on."""
    width: int = 1024
    """Channels of the synthetic block; it has twice as many hidden ones."""
    remark: tuple[str, ...] = ()
    """Sentences for the record, such as what else the machine did."""
    out: pathlib.Path = RECORDS / "qwix_awq.json"
    """The record."""


class Problem(NamedTuple):
    """A block with activations.

    Attributes:
      params: ``norm`` ``[K]`` and three matrices ``[in, out]``.
      calibration: ``[tokens, K]``, what reaches the norm's scale.
      held_out: Likewise.
    """

    params: dict[str, jax.Array]
    calibration: jax.Array
    held_out: jax.Array


def block(params: dict[str, Any], x: jax.Array) -> jax.Array:
    """A gated MLP after the scale of a norm."""
    h = x * params["norm"]
    return hidden(params, h) @ params["down"]


def hidden(params: dict[str, Any], h: jax.Array) -> jax.Array:
    """What the last matrix multiplies."""
    return jax.nn.silu(h @ params["gate"]) * (h @ params["up"])


def embedded_blocks(layers: tuple[int, ...]) -> dict[str, tuple[dict, np.ndarray]]:
    """Weights of the embedded model's MLPs, and every token that reaches them."""
    vqa = embedded.load_vqa()
    model = pretrained.load_tiny_vlm()
    data = vqa.calibration
    vision = pretrained.vqa_features(data.images)[data.image_index]
    apply, params = program.functional(model)
    tapped = program.tap(apply, lambda x, y: x, where=lambda site: "gate" in site.name)
    _, taps = jax.jit(tapped)(params, vision, jnp.asarray(data.tokens))
    (inputs,) = taps.values()  # [layers, questions, tokens, width]
    mlp, norm = model.layers.mlp, model.layers.mlp_norm
    found = {}
    for i in layers:
        weights = {n: jnp.asarray(getattr(mlp, n).kernel[i]) for n in MATRICES}
        weights["norm"] = jnp.asarray(norm.scale[i])
        x = np.asarray(inputs[i]).reshape(-1, inputs.shape[-1])
        found[f"tiny_vlm_{i}"] = weights, x / np.asarray(weights["norm"])
    return found


def synthetic(rng: np.random.Generator, width: int, tokens: int) -> Problem:
    """A block of which one channel in 64 is 20 to 60 times as loud as the others."""
    loud = rng.choice(width, width // 64, replace=False)
    norm = np.ones(width, np.float32)
    norm[loud] = rng.uniform(20, 60, len(loud))
    sizes = {"gate": (width, 2 * width), "up": (width, 2 * width)}
    sizes["down"] = (2 * width, width)
    params = {
        name: jnp.asarray(rng.standard_normal(s, np.float32) / np.sqrt(s[0]))
        for name, s in sizes.items()
    }
    x = jnp.asarray(rng.standard_normal((2, tokens, width), np.float32))
    return Problem({**params, "norm": jnp.asarray(norm)}, x[0], x[1])


@jax.jit
def relative_error(changed, problem: Problem) -> jax.Array:
    """Root mean square of the change of the output over that of the output."""
    want = block(problem.params, problem.held_out)
    got = block(changed, problem.held_out)
    return jnp.sqrt(jnp.mean((got - want) ** 2) / jnp.mean(want**2))


def by_jeff(method: str, symmetric: bool, problem: Problem) -> dict[str, jax.Array]:
    """The block's parameters after jeff's method, decoded."""
    config = mbq.BalanceConfig(
        weights=QuantConfig(bits=4, group_size=GROUP, symmetric=symmetric),
        grid=GRID,
        clip=method == "awq_clip",
    )
    method = method.removesuffix("_clip")
    batch = mbq.Batch(inputs=(problem.calibration,))
    found = getattr(mbq, method)(block, problem.params, [batch], config)
    return {name: base.decoded(leaf) for name, leaf in found.params.items()}


@jax.jit
def _inputs(params, x) -> dict[str, jax.Array]:
    """Mean magnitudes of every matrix's inputs, as qwix's calibration finds them."""
    h = x * params["norm"]
    first = awq_core.compute_act_scale(h)
    last = awq_core.compute_act_scale(hidden(params, h))
    return {"gate": first, "up": first, "down": last}


def by_qwix(method: str, symmetric: bool, problem: Problem) -> dict[str, jax.Array]:
    """The same by qwix: what its inference providers multiply with."""
    method = method.removesuffix("_clip")  # which it does not have
    return _by_qwix(problem.params, problem.calibration, method, symmetric)


def _qwix(params, x, method, symmetric):
    how = qarray.HowToQuantize(
        qtype="int4",
        channelwise_axes=(0,),
        tiled_axes={1: GROUP},
        calibration_method="absmax" if symmetric else "minmax",
    )
    scales = _inputs(params, x) if method == "awq" else {}
    changed = dict(params)
    for name in MATRICES:
        w = params[name].T  # [out, in]
        if method == "awq":
            packed, balance = awq_core.quantize_weight(w, scales[name], how, GRID)
            changed[name] = (qarray.dequantize(packed) / balance).T
        else:
            changed[name] = qarray.dequantize(qarray.quantize(w, how)).T
    return changed


_by_qwix = jax.jit(_qwix, static_argnums=(2, 3))


class Cost(NamedTuple):
    """Seconds of the compiler, and of everything else."""

    compiling: float
    rest: float


_compiling = [0.0]


def _listen(event: str, seconds: float, **_: Any) -> None:
    if event.startswith("/jax/core/compile/") and "trace" not in event:
        _compiling[0] += seconds


@contextlib.contextmanager
def cost(costs: list[Cost]) -> Iterator[None]:
    """Adds what the body costs to a list."""
    before, start = _compiling[0], time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    compiling = _compiling[0] - before
    costs.append(Cost(compiling, seconds - compiling))


def compare(arguments: Arguments) -> dict[str, dict[str, Any]]:
    """Errors and costs of both programs, by case."""
    real = embedded_blocks(arguments.layers)
    found: dict[str, dict[str, Any]] = {}
    for seed in range(arguments.seeds):
        problems = {}
        for name, (params, x) in real.items():
            rows = np.random.default_rng(seed).permutation(len(x))
            few = x[rows[: 2 * arguments.tokens]].reshape(2, -1, x.shape[1])
            problems[name] = Problem(params, jnp.asarray(few[0]), jnp.asarray(few[1]))
        rng = np.random.default_rng((1, seed))
        name = f"outliers_{arguments.width}"
        problems[name] = synthetic(rng, arguments.width, arguments.tokens)
        for name, problem in problems.items():
            for method in METHODS:
                for codes, symmetric in (("symmetric", True), ("zeros", False)):
                    case = found.setdefault(f"{method}.{name}.{codes}", {})
                    for who, run in (("jeff", by_jeff), ("qwix", by_qwix)):
                        costs = case.setdefault(f"{who}_costs", [])
                        with cost(costs):
                            changed = jax.block_until_ready(
                                run(method, symmetric, problem)
                            )
                        error = float(relative_error(changed, problem))
                        case.setdefault(f"{who}_errors", []).append(error)
        print(f"seed {seed} of {arguments.seeds}", flush=True)
    return found


def measures(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The numbers of the record."""
    listed = []

    def add(name, unit, value, low=None, high=None, trials=None):
        numbers = {"value": value, "low": low, "high": high, "trials": trials}
        rest = {"unit": unit, "baseline": None, "paper": None}
        listed.append({"name": name, **numbers, **rest})

    def middle(name, unit, samples):
        spread = timing.spread(samples)
        add(name, unit, spread.median, spread.low, spread.high, spread.trials)

    for case, one in found.items():
        own, peer = (np.array(one[f"{who}_errors"]) for who in ("jeff", "qwix"))
        add(f"ratio.qwix.error.{case}", "", *student_t(peer / own))
        add(f"error.jeff.{case}", "fraction", *student_t(own))
        add(f"error.qwix.{case}", "fraction", *student_t(peer))
    for case, one in found.items():
        rest = {}
        for who in ("jeff", "qwix"):
            first, *others = one[f"{who}_costs"]  # the first of a case compiles
            rest[who] = np.array([cost.rest for cost in others])
            add(f"compile_seconds.{who}.{case}", "s", first.compiling)
            middle(f"seconds.{who}.{case}", "s", rest[who])
        middle(f"ratio.qwix.seconds.{case}", "", rest["qwix"] / rest["jeff"])
    return listed


def main(arguments: Arguments) -> None:
    """Runs the comparison and writes the record."""
    if arguments.seeds < 3:
        raise SystemExit("--seeds must be at least 3, for intervals")
    start = time.perf_counter()
    # jeff traces the same programs for every seed: only the first seed compiles them.
    cache = tempfile.TemporaryDirectory()
    jax.config.update("jax_compilation_cache_dir", cache.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax.monitoring.register_event_duration_secs_listener(_listen)
    found = compare(arguments)
    settings = dataclasses.asdict(arguments)
    del settings["out"], settings["remark"]
    record = {
        "format": io.RESULT_FORMAT,
        "system": "qwix_awq",
        "preset": "default",
        "settings": {**settings, "group_size": GROUP, "grid": GRID},
        "seed": 0,
        "versions": {**io.versions(), "qwix": importlib.metadata.version("qwix")},
        "device": io.device(),
        "seconds": round(time.perf_counter() - start, 3),
        "measures": measures(found),
        "notes": [
            "CASE is METHOD.BLOCK.CODES; int4 in groups of 128; symmetric: absmax in "
            "both programs; zeros: integer zero points in both.",
            "error: relative root mean square of the change of a gated MLP's output on "
            f"{arguments.tokens} held-out tokens, after calibrating on as many others; "
            f"mean over {arguments.seeds} seeds with its Student's t interval.",
            "ratio.qwix.error: error of qwix over that of jeff, for the same weights "
            "and tokens: larger than 1 where jeff is better.",
            "symmetric: jeff's step is absmax / 7, as in the original programs of MBQ "
            "and SmoothQuant; qwix's is absmax / 7.5, which clips the largest weight.",
            "awq: the scale search alone. awq_clip: jeff also searches how far to clip "
            "groups, as AWQ's own program does; qwix has no such search, and stands "
            "beside with its awq.",
            "tiny_vlm_I: layer I of the embedded model with its own activations, "
            "sampled by seed; outliers: new weights and activations for every seed.",
            "seconds: wall-clock time less that of the compiler, seeds after the "
            "first. qwix searches per matrix, in one compiled program; jeff traces the "
            "block anew at every call, infers what to fold, and searches against the "
            "block's output; median, and its 95 % interval by ranks. compile_seconds: "
            "of the first seed.",
            *arguments.remark,
        ],
    }
    io.validate_result(record)
    io.write_atomically(arguments.out, io.result_text(record))
    for m in record["measures"]:
        if m["name"].startswith(("ratio", "error")):
            print(f"{m['name']}: {m['value']:.4g} [{m['low']:.4g}, {m['high']:.4g}]")
    print(arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
