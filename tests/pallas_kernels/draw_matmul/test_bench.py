"""The benchmark: what it draws, checks, refuses to time, and writes down."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import timing
from pallas_kernels.draw_matmul import bench, records, workload

CASE = workload.Case(5, 3, 2)


def test_draws_alone_are_those_of_the_product():
    operands = bench._operands(CASE, 0)
    noise = jax.jit(jax.vmap(lambda key: bench._noise(key, 5, 3)))(operands.keys)
    normals = jax.jit(bench.Draw("normals"))(*operands)
    np.testing.assert_allclose(normals, noise.sum((0, 1))[None], rtol=1e-5, atol=1e-5)

    @jax.jit
    def all_words(keys):
        row = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
        rows = row(keys, jnp.arange(3))
        return jax.vmap(jax.vmap(lambda key: jax.random.bits(key, (5,))))(rows)

    words = np.bitwise_xor.reduce(np.asarray(all_words(operands.keys)), (0, 2))
    got = jax.jit(bench.Draw("words"))(*operands)
    np.testing.assert_array_equal(got[0], (words >> 9).astype(np.float32))


def test_a_wrong_implementation_is_never_timed(monkeypatch):
    def wrong(keys, x, mean, std, implementation):
        del implementation
        return jnp.zeros((len(keys), mean.shape[1]))

    monkeypatch.setattr(bench, "draw_matmul", wrong)
    monkeypatch.setattr(bench.timing, "times", functools.partial(_times_of, 1.0))
    said = []
    report = bench.run(
        workload.Settings(shapes=(CASE,), repeats=1, products=1), say=said.append
    )
    by_name = {row.implementation: row for row in report.rows}
    assert [by_name[name].status for name in ("xla", "reference")] == ["wrong"] * 2
    assert by_name["xla"].seconds is None and by_name["words"].seconds is not None
    assert said[0].count("WRONG") == 2
    assert any("xla is wrong, not timed" in note for note in records.notes(report))
    names = [measure["name"] for measure in records.measures(report)]
    assert "seconds.words.5x3.t2" in names and "seconds.xla.5x3.t2" not in names


def _times_of(seconds, programs, repeats):
    return {name: np.full(repeats, seconds) for name in programs}


def test_shares_and_ratios_by_hand():
    def row(name, *samples):
        return bench.Row(CASE, name, "measured", 0.0, timing.spread(samples), samples)

    rows = (
        row("mosaic_gpu", 2.0, 4.0, 5.0),
        row("xla", 6.0, 8.0, 5.0),
        row("words", 1.0, 3.0, 4.0),
        row("normals", 2.0, 4.0, 5.0),
    )
    report = bench.Report(workload.PRESETS["smoke"], rows, "gpu", 1.0)
    record = records.record(report, preset="smoke", seed=0, versions={}, device="one")
    assert record["settings"]["status"] == "measured"
    values = {m["name"]: m["value"] for m in record["measures"]}
    # Round by round: 1/2, 3/4, 4/5; 1/6, 3/8, 4/5; 6/2, 8/4, 5/5.
    assert values["words_share.mosaic_gpu.5x3.t2"] == 0.75
    assert values["words_share.xla.5x3.t2"] == 0.375
    assert values["normals_share.mosaic_gpu.5x3.t2"] == 1.0
    assert values["ratio.xla.5x3.t2"] == 2.0
    assert "words_share.words.5x3.t2" not in values
    assert not any("GPU: not measured" in note for note in record["notes"])


@pytest.mark.parametrize(
    ("field", "value"), [("shapes", ((0, 1, 1),)), ("repeats", 0), ("products", 0)]
)
def test_bad_settings(field, value):
    with pytest.raises(ValueError, match=f"{field} must be positive"):
        workload.Settings(**{field: value})
