import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff import io
from pallas_kernels import bits as layouts
from pallas_kernels import timing
from pallas_kernels.dequant_matmul import (
    bench,
    programs,
    records,
    tuning,
    weights,
    workload,
)
from pallas_kernels.dequant_matmul.config import Config

TINY = dataclasses.replace(
    workload.PRESETS["smoke"], shapes=((128, 32),), rows=(1,), stream_bytes=2**16
)


def _sets(count=3, size=128, columns=32, bits=3):
    rng = np.random.default_rng(4)
    return tuple(
        weights.random_weights(
            rng, size=size, columns=columns, bits=bits, group_size=64
        )
        for _ in range(count)
    )


def _x(rows, size):
    return weights.random_x(np.random.default_rng(5), rows, size, "float32")


class _Counted:
    """A product that counts how often it runs, and how often it decodes."""

    def __init__(self):
        self.products, self.decoded = 0, 0

    def __call__(self, x, w):
        # Pure as far as JAX knows: unused or equal calls would be left out.
        w = jax.pure_callback(self._decode, w, w)
        shape = jax.ShapeDtypeStruct((x.shape[0], w.shape[1]), x.dtype)
        return jax.pure_callback(self._product, shape, x, w)

    def _decode(self, w):
        self.decoded += 1
        return np.asarray(w)

    def _product(self, x, w):
        self.products += 1
        return np.asarray(x) @ np.asarray(w)


@pytest.mark.parametrize("rounds", [1, 4])
def test_a_chain_decodes_and_multiplies_every_time(rounds):
    counted = _Counted()
    sets = [(jnp.full((8, 8), 0.1 * i),) for i in range(3)]
    x = timing.chain(_x(2, 8), sets, multiply=counted, rounds=rounds)
    jax.block_until_ready(x)
    assert counted.products == counted.decoded == 3 * rounds


@pytest.mark.parametrize("columns", [8, 5, 12])
def test_a_chain_feeds_each_product_with_the_one_before(columns):
    rng = np.random.default_rng(0)
    ws = [rng.normal(size=(8, columns)).astype(np.float32) / 3 for _ in range(3)]
    want = np.asarray(_x(2, 8))
    for w in ws * 2:
        y = want @ w
        want = np.concatenate([y, want[:, columns:]], 1)[:, :8]
    got = timing.chain(
        _x(2, 8), [(jnp.asarray(w),) for w in ws], multiply=programs.dense, rounds=2
    )
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_the_loop_multiplies_whole_matrices():
    # y is cut to the length of x; the compiler must not cut the weight instead.
    run = jax.jit(
        lambda x, *ws: timing.chain(
            x, [(w,) for w in ws], multiply=programs.dense, rounds=3
        )
    )
    text = run.lower(_x(4, 16), *[jnp.ones((16, 48))] * 2).compile().as_text()
    assert text.count("f32[4,48]") >= 2


def test_times_are_per_product_and_programs_take_turns():
    turns = []
    made = {
        name: timing.Program(
            first=lambda: None,
            run=lambda name=name: turns.append(name),
            products=4,
            sets=1,
            nbytes=1,
        )
        for name in "ab"
    }
    seconds = timing.times(made, 3)
    assert "".join(turns) == "ab" + "ab" + "ba" + "ab"  # the first to compile
    assert seconds["a"].shape == (3,) and (seconds["a"] < 0.1).all()
    turns.clear()
    timing.times(made, 2, warm_up=False)
    assert "".join(turns) == "ab" + "ba"


def test_the_interval_of_the_median_covers_it():
    # Coverage of ranks 6 and 15 of 20 is 0.9586; 4 standard errors of 2,000 draws.
    rng = np.random.default_rng(0)
    found = [timing.spread(rng.exponential(size=20)) for _ in range(2000)]
    covered = np.mean([s.low <= math.log(2) <= s.high for s in found])
    assert abs(covered - 0.9586) < 4 * math.sqrt(0.9586 * 0.0414 / 2000)
    assert all(s.low <= s.median <= s.high for s in found)
    assert timing.spread([3.0, 1.0])[3:] == (1.0, 3.0, 2)


def test_a_streaming_read_is_no_faster_than_any_memory():
    speed = timing.streaming_read(2**22, repeats=3, rounds=2)
    assert 1e7 < speed.median < 1e14 and speed.trials == 3
    assert timing.cache_bytes() > 0


def test_random_weights_keep_the_size_of_x():
    sets = _sets(size=512, columns=256)
    assert not (sets[0][0] == sets[1][0]).all()
    x = _x(4, 512)
    want = weights.exact(x, *sets[0], bits=3)
    assert 0.8 < want.product.std() / np.std(x) < 1.25
    assert (np.abs(want.product) <= want.bound).all()


@pytest.mark.parametrize("bits", layouts.WIDTHS)
def test_exact_products_against_codes_that_were_packed(bits):
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 2**bits, (64, 6))
    scale = rng.integers(1, 8, (2, 6)) / 4
    zero = rng.integers(0, 2**bits, (2, 6))
    packed = layouts.pack(jnp.asarray(codes, jnp.uint8), bits=bits, axis=0)
    x = rng.integers(-4, 5, (3, 64)).astype(np.float32)
    got = weights.exact(
        jnp.asarray(x), packed, jnp.asarray(scale), jnp.asarray(zero), bits=bits
    )
    dense = (codes - np.repeat(zero, 32, 0)) * np.repeat(scale, 32, 0)
    np.testing.assert_array_equal(got.product, x @ dense)
    np.testing.assert_array_equal(got.bound, np.abs(x) @ np.abs(dense))


def test_errors_of_what_is_no_number_or_of_another_shape_are_infinite():
    want = weights.Exact(np.ones((1, 2)), np.full((1, 2), 4.0))
    assert weights.relative_error(np.array([[1.0, 2.0]]), want) == 0.25
    assert weights.relative_error(np.array([[1.0, np.nan]]), want) == math.inf
    assert weights.relative_error(np.ones((2, 1)), want) == math.inf


def _peer(name, *, wrong=0.0, fails=None):
    """A peer that multiplies with dense weights, perhaps not quite."""

    def build(problem):
        if fails == "build":
            raise ImportError("No module named 'elsewhere'\nand more lines")

        def run():
            if wrong:
                raise AssertionError("a wrong implementation was timed")
            if fails == "run":
                raise RuntimeError("out of memory")

        dense = programs.operand_of(*problem.sets[0], bits=problem.case.bits)
        return timing.Program(
            first=lambda: problem.x @ dense.decode(jnp.float32) + wrong,
            run=run,
            products=1,
            sets=1,
            nbytes=1,
        )

    return bench.Peer(name, build)


@pytest.fixture(scope="module")
def report():
    peers = [
        _peer("right"),
        _peer("off", wrong=0.1),
        _peer("missing", fails="build"),
        _peer("fragile", fails="run"),
    ]
    said = []
    found = bench.run(TINY, peers=peers, say=said.append)
    assert len(said) == 1 and "off 1" in said[0].replace("off 2", "off 1")
    return found


def test_what_is_wrong_or_absent_is_reported_and_not_timed(report):
    rows = {row.implementation: row for row in report.rows}
    for name in ("xla", "decode_first", "dense", "right"):
        assert rows[name].status == "measured"
        assert rows[name].error < 1e-6 and rows[name].seconds.trials == TINY.repeats
    assert rows["off"].status == "wrong" and rows["off"].error > 1e-3
    assert rows["off"].seconds is None
    assert rows["missing"].status == "absent: No module named 'elsewhere'"
    assert rows["fragile"].status == "absent: out of memory"
    assert rows["fragile"].seconds is None


def test_bytes_are_words_scales_and_zero_points(report):
    rows = {row.implementation: row for row in report.rows}
    # 128 x 32 codes of 3 bits; one group: 32 scales of 2 bytes, 32 zero points of 1.
    assert rows["xla"].nbytes == 128 * 32 * 3 // 8 + 32 * 3
    assert rows["dense"].nbytes == 128 * 32 * 4
    assert rows["xla"].sets == rows["dense"].sets == 3


def test_the_record_is_valid_and_says_what_is_missing(report):
    record = records.record(
        report,
        preset="smoke",
        seed=0,
        versions={"jax": jax.__version__},
        device="cpu x 1",
        remarks=("Shared machine.",),
    )
    io.validate_result(record)
    names = {m["name"] for m in record["measures"]}
    assert {
        "streaming_read",
        "bytes.128x32.w3.m1",
        "error.off.128x32.w3.m1",
        "seconds.xla.128x32.w3.m1",
        "bandwidth_share.xla.128x32.w3.m1",
        "ratio.dense.128x32.w3.m1",
    } <= names
    assert "seconds.off.128x32.w3.m1" not in names
    assert record["settings"]["status"] == "measured"  # peers do not count
    notes = "\n".join(record["notes"])
    assert "off is wrong, not timed" in notes
    assert "missing absent: No module named 'elsewhere' (1 products)" in notes
    assert "GPU: not measured here." in notes and notes.endswith("Shared machine.")


def test_ratios_are_above_one_where_jeff_is_faster():
    case = workload.Case(64, 10, 3, 1)
    stream = timing.spread([100.0])

    def row(name, samples, nbytes):
        return bench.Row(
            case, name, "measured", 0.0, timing.spread(samples), 3, nbytes, samples
        )

    report = bench.Report(
        TINY,
        (row("xla", (1.0, 2.0, 4.0), 100), row("dense", (3.0, 6.0, 12.0), 900)),
        stream,
        1,
        "cpu",
        "float32",
        1.0,
        {},
    )
    found = {m["name"]: m for m in records.measures(report)}
    assert found["ratio.dense.64x10.w3.m1"]["value"] == 3.0
    assert found["seconds.xla.64x10.w3.m1"]["baseline"] == 1.0  # 100 B at 100 B/s
    assert found["bandwidth_share.xla.64x10.w3.m1"]["value"] == 0.5
    assert found["seconds.dense.64x10.w3.m1"]["baseline"] == 9.0


def test_tuned_settings_are_checked_written_and_used(tmp_path):
    (one, *_), x = _sets(size=512, columns=64), _x(1, 512).astype(jnp.bfloat16)
    case = workload.Case(512, 64, 3, 1)
    problem = programs.Problem(case, 64, x, (one,), products=1)
    want = weights.exact(x, *one, bits=3)
    config, entries = programs.tune(
        problem,
        want,
        tmp_path,
        tolerance=2**-7,
        implementation="interpret",
        configs=[Config(stages=1)],
    )
    assert config == Config(stages=1)
    device = jax.devices()[0].device_kind
    assert tuning.read_table(tuning.table_path(device, tmp_path)) == entries
    assert list(entries) == ["w3 g64 512x64 M1 L1 bfloat16 scale3"]


def test_nothing_is_tuned_on_a_cpu(tmp_path):
    with pytest.raises(ValueError, match="does not run on a cpu"):
        bench.run(TINY, tables=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": (3, 5)}, r"bits must be of \(2, 3, 4, 8\), got 5"),
        ({"rows": (0,)}, "rows must be positive, got 0"),
        ({"rows": ()}, "rows must not be empty"),
        ({"shapes": ((100, 8),)}, "multiple of 32 and of group_size 128, got 100"),
        ({"shapes": ((128, 0),)}, "N must be positive, got 0"),
        ({"repeats": 0}, "repeats must be positive, got 0"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        workload.Settings(**changes)


def test_the_full_preset_is_that_of_the_papers():
    full = workload.PRESETS["full"]
    assert len(workload.cases(full)) == 6 * 4 * 7
    assert full.repeats >= 20 and full.products >= 200
