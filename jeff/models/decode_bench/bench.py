"""The benchmark of decoding: check, then time, packed weights beside dense ones.

`jeff bench decode` is its command line. Weights are random, since times do not depend
on them. Per decoder:

1. the scores of its first layer by packed weights against decoded ones
   (`programs.difference`); a scheme beyond the tolerance is reported as wrong and never
   timed;
2. the time per token of greedy decoding with a cache of keys and values, per batch
   size, programs of all schemes taking turns; then that of reading a prompt.

Arrays are bfloat16 on a GPU, float32 on a CPU. Packed layers are scanned. Dense ones
are unrolled, the faster form for them: a scan copies a layer before it is multiplied.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jeff.models.decode_bench import programs, weights
from jeff.models.decode_bench.workload import SCHEMES, Settings
from pallas_kernels import timing

__all__ = ["TOLERANCES", "Report", "Row", "run"]

TOLERANCES = {"bfloat16": 4e-2, "float32": 1e-4}
"""Largest difference relative to the largest score, by dtype of activations. Rounded
activations get at least 2 %: a float's last digit can move a code by one step."""

_ROUNDED = 2e-2


class Row(NamedTuple):
    """One line of the result.

    Attributes:
      model: Name of the decoder.
      kind: ``"decode"`` or ``"prefill"``.
      weights: Name of the scheme.
      size: Sequences, or length of the prompt.
      status: ``"measured"``, ``"wrong"``, or ``"absent: "`` and the reason.
      error: Relative difference of scores; ``None`` if dense or absent.
      nbytes: Bytes of the weights that a token needs.
      seconds: Per token of every sequence, or per prompt; ``None`` unless measured.
      samples: Seconds of every timed run.
      compile_seconds: Time of lowering and compiling.
      peak: Bytes of arguments, results and temporaries of the compiled program.
    """

    model: str
    kind: str
    weights: str
    size: int
    status: str
    error: float | None = None
    nbytes: int = 0
    seconds: timing.Spread | None = None
    samples: tuple[float, ...] = ()
    compile_seconds: float | None = None
    peak: int | None = None


class Report(NamedTuple):
    """Everything a benchmark found.

    Attributes:
      settings: What was asked for.
      rows: The results, the dense ones of a model and size first.
      stream: Bytes per second of reading a large array.
      cache: Bytes of the last-level cache.
      backend: ``"cpu"`` or ``"gpu"``.
      dtype: Dtype of activations and dense weights.
      seconds: Wall-clock time of the benchmark.
    """

    settings: Settings
    rows: tuple[Row, ...]
    stream: timing.Spread
    cache: int
    backend: str
    dtype: str
    seconds: float


def run(
    settings: Settings,
    *,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[], None] = lambda: None,
) -> Report:
    """Checks and times every decoder.

    Args:
      settings: What is timed, and how.
      seed: Of the weights.
      say: Told one line per decoder, its differences, before any of it is timed.
      advance: Called after every batch size and every length of prompt.

    Returns:
      The report.
    """
    start = time.perf_counter()
    backend = jax.default_backend()
    dtype = "float32" if backend == "cpu" else "bfloat16"
    nbytes = 2**20 if settings.repeats < 5 else 2**28
    stream = timing.streaming_read(
        nbytes, repeats=settings.repeats, rounds=1 if backend == "cpu" else 20
    )
    rows: list[Row] = []
    for name, config in settings.decoders:
        ends = weights.ends(seed, config, dtype=dtype)

        def decoder(scheme, config=config, ends=ends):
            if scheme == "dense":
                layers = weights.listed(seed, config, dtype=dtype)
            else:
                layers = weights.layers(seed, config, SCHEMES[scheme], dtype=dtype)
            return {**ends, "layers": layers}

        model = _Model(name, config, decoder, settings, dtype, say, advance)
        rows += model.rows()
    seconds = time.perf_counter() - start
    cache = timing.cache_bytes()
    return Report(settings, tuple(rows), stream, cache, backend, dtype, seconds)


class _Model(NamedTuple):
    """One decoder, and what is done with it."""

    name: str
    config: Any
    params: Callable[[str], Any]
    settings: Settings
    dtype: str
    say: Callable[[str], None]
    advance: Callable[[], None]

    def rows(self) -> list[Row]:
        """Every row of the decoder; parameters of a kind are freed after it."""
        settings, found, errors = self.settings, [], {}
        kinds = {"decode": (settings.weights, settings.batches)}
        if settings.prefill:
            kinds["prefill"] = (settings.prefill_weights, settings.prefill)
        for kind, (schemes, sizes) in kinds.items():
            names = tuple(dict.fromkeys(["dense", *schemes]))
            params = {name: self.params(name) for name in names}
            for name, p in params.items():
                if name != "dense" and name not in errors:
                    scheme = SCHEMES[name]
                    errors[name] = programs.difference(p, scheme, config=self.config)
                    self._tell(name, errors)
            for size in sizes:
                found += self._timed(kind, size, params, errors)
                self.advance()
        return found

    def _tolerance(self, name: str) -> float:
        rounded = SCHEMES[name].activation_bits is not None
        return max(TOLERANCES[self.dtype], _ROUNDED if rounded else 0.0)

    def _right(self, name: str, errors) -> bool:
        return name not in errors or errors[name] <= self._tolerance(name)  # NaN fails

    def _tell(self, name: str, errors) -> None:
        wrong = "" if self._right(name, errors) else " WRONG"
        self.say(
            f"{self.name} {name}: scores differ from decoded weights by "
            f"{errors[name]:.1e} (at most {self._tolerance(name):.1e}){wrong}"
        )

    def _timed(self, kind, size, params, errors) -> list[Row]:
        rows, right = {}, {}
        for name, p in params.items():
            row = Row(
                self.name, kind, name, size, "measured",
                errors.get(name), weights.weight_bytes(p),
            )  # fmt: skip
            if not self._right(name, errors):
                rows[name] = row._replace(status="wrong")
                continue
            try:
                compiled = self._compiled(kind, size, name, p)
            except jax.errors.JaxRuntimeError as error:  # such as too little memory
                reason = str(error).strip().splitlines()[0]
                rows[name] = row._replace(status=f"absent: {reason}")
                continue
            right[name] = compiled.program
            rows[name] = row._replace(
                compile_seconds=compiled.seconds, peak=compiled.peak
            )
        for name, samples in timing.times(right, self.settings.repeats).items():
            rows[name] = rows[name]._replace(
                seconds=timing.spread(samples), samples=tuple(samples.tolist())
            )
        return list(rows.values())

    def _compiled(self, kind, size, name, params) -> programs.Compiled:
        scheme, settings = SCHEMES[name], self.settings
        if kind == "prefill":
            return programs.prompt(params, scheme, config=self.config, length=size)
        return programs.decoding(
            params,
            scheme,
            config=self.config,
            batch=size,
            context=settings.context,
            steps=settings.steps,
            repeats=settings.repeats,
        )
