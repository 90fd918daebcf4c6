import dataclasses

from jeff.models.decode_bench import bench, programs, weights, workload

TOY = dataclasses.replace(workload.DECODERS["toy"], layers=1)


def test_a_difference_is_seen(monkeypatch):
    """A rule that multiplies wrongly is far from decoded weights, and not timed."""
    monkeypatch.setattr(programs, "fused", lambda site, op, x, w: 1.01 * op(x, w))
    settings = workload.PRESETS["smoke"]
    scheme = workload.SCHEMES["w3"]
    params = {
        **weights.ends(0, TOY, dtype="float32"),
        "layers": weights.layers(0, TOY, scheme, dtype="float32"),
    }
    error = programs.difference(params, scheme, config=TOY)
    assert 1e-3 < error < 0.5
    said = []
    model = bench._Model("toy", TOY, None, settings, "float32", said.append, None)
    (row,) = model._timed("decode", 1, {"w3": params}, {"w3": error})
    assert row.status == "wrong" and row.seconds is None
    model._tell("w3", {"w3": error})
    assert said[0].endswith("WRONG")
