"""A tiny sweep whose statistics show every last bit, in this and in other processes."""

import contextlib
import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import sweep, tree
from jeff.faults import bit_flip, on_weights
from jeff.program.checksum import program_checksum
from jeff.sweep.engine import execute
from jeff.sweep.planning import unit

RNG = np.random.default_rng(8)  # arrays made by JAX would take a second of compiling
WEIGHTS = RNG.standard_normal((6, 5), np.float32)
DATA = {"x": RNG.standard_normal((10, 6), np.float32)}
DESIGNS = {"gain": np.array([1.0, -0.5], np.float32)}
ARGUMENTS = {
    "rates": [0.0, 0.25, 1.0], "trials": 10, "data": DATA, "designs": DESIGNS,
    "unit": 4, "batch": 4, "plan": "vmap",
}  # fmt: skip
KEY = jax.random.key(3)
UNITS = 18  # two designs, three rates, three units each


def draw(key, rate, design):
    return WEIGHTS * (design["gain"] + rate * jax.random.uniform(key, WEIGHTS.shape))


def evaluate(weights, batch):
    y = jnp.tanh(batch.data["x"] @ weights)
    kept = batch.valid[:, None]
    hits = batch.valid & (y.argmax(-1) == batch.index % 5)
    return {"sum": jnp.where(kept, y, 0.0).sum(), "hits": hits.sum()}


TRIAL = sweep.Trial(draw, evaluate)


def run(**changes):
    """The sweep, with some arguments changed."""
    return sweep.run(TRIAL, KEY, **(ARGUMENTS | changes))


KERNELS = {
    "first": RNG.standard_normal((3, 3, 2, 3), np.float32),
    "second": RNG.standard_normal((3, 3, 3, 4), np.float32),
}
IMAGES = RNG.standard_normal((5, 6, 6, 2), np.float32)


def convolved(kernels, x):
    """Logits of two convolutions."""
    for kernel in kernels.values():
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x)
    return x.mean((1, 2))


def logits_sum(logits, golden, labels, valid, overflow):
    kept = jnp.where(valid[:, None], logits, 0.0)
    return {"sum": kept.sum(0), "short": overflow.any().astype(int)}


@functools.cache
def golden_images():
    return sweep.examples(convolved, KERNELS, IMAGES)


def run_convolved(target, **changes):
    """A sweep of bits of a convolutional net: of "weights" by map, "features" by vmap.

    Weights are hit by the sparse sampler; one point with four units.
    """
    if target == "weights":
        trial, over = sweep.weight_faults(
            convolved, KERNELS, measure=logits_sum,
            model_of_rate=lambda rate: on_weights(
                bit_flip(rate, method="sparse", max_rate=0.01)
            ),
        ), "map"  # fmt: skip
    else:
        trial, over = sweep.feature_faults(
            convolved, KERNELS, measure=logits_sum, where="second",
            model_of_rate=lambda rate: bit_flip(rate, method="dense"),
        ), "vmap"  # fmt: skip
    arguments = {
        "rates": [0.002], "trials": 7, "data": golden_images(), "unit": 2, "batch": 3,
        "plan": over,
    }  # fmt: skip
    return sweep.run(trial, KEY, **(arguments | changes))


def digest(result):
    """A checksum of all that a sweep gave."""
    state = hashlib.sha256(np.ascontiguousarray(result.trials_done).tobytes())
    for name, array in sorted(tree.flatten(result.stats)[0].items()):
        state.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
    return state.hexdigest()


class Counted:
    """Progress that calls `then` after so many units."""

    def __init__(self, after=None, then=None):
        self.stages, self.steps, self.after, self.then = [], 0, after, then

    def stage(self, name, total):
        self.stages.append((name, total))

    def advance(self, steps=1):
        self.steps += steps
        if self.steps == self.after:
            self.then()


def files(folder):
    """Bytes of every file that is part of a sweep's folder, by name."""
    found = (f for f in folder.rglob("*") if f.is_file())
    return {
        str(f.relative_to(folder)): f.read_bytes()
        for f in found
        if not f.name.startswith(".")
    }


class Enough:
    """A stopping rule: sums that lie apart by less than a width; says what it saw."""

    def __init__(self, width):
        self.width, self.asked = width, []

    def __repr__(self):
        return f"Enough({self.width})"

    def statistic(self, stats):
        return stats["sum"]

    def decide(self, values, look):
        self.asked.append((len(values), look))
        return np.ptp(values) < self.width

    def interval(self, values, look):
        raise NotImplementedError


@contextlib.contextmanager
def compiling_once():
    """Sweeps of equal programs share what is compiled.

    It is the same each time, and most tests are of what is done with it.
    """
    known = {}

    def remembered(case, traced, group, size, device):
        programs = (traced.draw.jaxpr, traced.evaluate.jaxpr)
        key = (*map(program_checksum, programs), group, size, traced.batch, device)
        if key not in known:
            known[key] = unit.compiled(case, traced, group, size, device)
        return known[key]

    patch = pytest.MonkeyPatch()
    patch.setattr(execute, "compiled", remembered)
    yield
    patch.undo()


@contextlib.contextmanager
def compilations():
    """Names of what the backend compiles meanwhile."""
    names = []

    def listen(event, seconds, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(about["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """`compiling_once`, in the modules that import this."""
    with compiling_once():
        yield
