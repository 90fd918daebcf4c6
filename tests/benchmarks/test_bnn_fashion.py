"""Bayesian networks on Fashion-MNIST: choices, scores, a whole run, tables."""

import doctest
import importlib
import json
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import fashion_files, pages

from jeff import dm_bnn, io, prng

pytestmark = pages.in_checkout


@pytest.fixture(scope="module")
def benchmarks():
    """A function that gives a module of ``benchmarks``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(pages.ROOT / "benchmarks"))
        yield importlib.import_module


@pytest.mark.parametrize("name", ["images", "networks", "scores"])
def test_examples(benchmarks, name):
    done = doctest.testmod(benchmarks(f"bnn_cases.{name}"))
    assert done.attempted and not done.failed


def test_the_largest_weight_within_an_error_is_chosen(benchmarks):
    """Losses ln 2 +- 0.1: the error of their mean is 0.1 / sqrt(3) = 0.058."""
    training = benchmarks("bnn_cases.training")
    unseen = np.arange(8)[None] // 2 == np.arange(2)[:, None]  # rows 0 to 3 are judged
    loss = {1.0: 0.2, 0.3: 0.05, 0.1: 0.01, 0.03: 0.0}
    asked = []

    def predict(weight, seen, images):
        asked.append((weight, len(seen[0]), images[:, 0].tolist()))
        each = np.log(2) + loss[weight] + 0.1 * np.where(images[:, 0] % 2, 1, -1)
        return np.stack([np.exp(-each), 1 - np.exp(-each)], axis=1).astype(np.float32)

    data = np.arange(8, dtype=np.float32)[:, None], np.zeros(8, np.int32)
    measures, chosen = training.choose_weight(list(loss), data, unseen, predict)
    assert chosen == 0.3
    assert asked[:2] == [(1.0, 6, [0, 1]), (1.0, 6, [2, 3])]
    found = {m.name: m for m in measures}
    assert found["validation_nll.0.1"].value == pytest.approx(np.log(2) + 0.01)
    assert found["validation_nll.0.1"].trials == 4
    assert found["kl_weight"].value == 0.3


def test_a_twin_starts_where_the_posterior_does(benchmarks):
    """One step of no size: what is left is the start."""
    training = benchmarks("bnn_cases.training")
    networks = benchmarks("bnn_cases.networks")
    net, key = networks.layered((3, 4, 2)), jax.random.key(0)
    how = training.Training(
        epochs=1, batch=4, rate=1e-30, start_std=0.25, prior_std=1.0, falls=True
    )
    data = np.ones((4, 3), np.float32), np.zeros(4, np.int32)
    twin = training.fit(net, how, data, key, None)
    posterior = training.fit(net, how, data, key, 0.5)
    start = net.init(prng.named_key(key, "init"))
    for name in ("fc1", "fc2"):
        kernel = posterior[name]["kernel"]
        for mean in (kernel.mean, twin[name]["kernel"]):
            np.testing.assert_allclose(mean, start[name]["kernel"], atol=1e-7)
        np.testing.assert_allclose(kernel.std, 0.25, rtol=1e-5)
        assert isinstance(posterior[name]["bias"], jax.Array)


def test_blocks_share_drawn_weights_and_no_noise(benchmarks):
    networks = benchmarks("bnn_cases.networks")
    net, key = networks.layered((3, 4, 2)), jax.random.key(0)
    random = dm_bnn.posterior(net.init(key), 0.5, where=networks.is_kernel)
    x = np.ones((4, 3), np.float32)
    drawn = networks.in_blocks(net, random, x, key, (3, 2), "naive", 2)
    assert drawn.shape == (6, 4, 2)
    np.testing.assert_allclose(drawn[:, 2:], drawn[:, :2], rtol=1e-5)
    local = networks.in_blocks(net, random, x, key, (3, 2), "lrt", 2)
    assert abs(local[:, 2:] - local[:, :2]).min() > 1e-4


def test_differences_are_paired(benchmarks):
    scores = benchmarks("bnn_cases.scores")
    labels = np.array([0, 0, 0, 1])
    ours = np.array([[0.8, 0.2], [0.8, 0.2], [0.4, 0.6], [0.5, 0.5]], np.float32)
    theirs = np.array([[0.4, 0.6], [0.4, 0.6], [0.2, 0.8], [0.25, 0.75]], np.float32)
    found = {m.name: m for m in scores.difference_measures("a.b", ours, theirs, labels)}
    # Right where they are not, twice; wrong where they are right, once (a tie is 0).
    assert found["accuracy_difference.a.b"].value == pytest.approx(0.25)
    nll = found["nll_difference.a.b"]
    assert nll.value == pytest.approx((-3 * np.log(2) + np.log(1.5)) / 4, rel=1e-5)
    assert nll.low < nll.value < nll.high and nll.trials == 4


def test_a_probability_that_underflows_is_a_large_loss(benchmarks):
    scores = benchmarks("bnn_cases.scores")
    probs = np.array([[0.0, 1.0], [1e-42, 1.0], [0.5, 0.5]], np.float32)
    found = scores.losses(probs, np.zeros(3, np.int32))
    np.testing.assert_allclose(found, [87.33654, 87.33654, np.log(2)], rtol=1e-6)


def test_temperature_is_found(benchmarks):
    """Labels drawn from logits; the logits are then made three times as large."""
    scores = benchmarks("bnn_cases.scores")
    logits = np.random.default_rng(0).normal(0, 2, (4000, 5))
    labels = jax.random.categorical(jax.random.key(0), jnp.asarray(logits, jnp.float32))
    found = scores.temperature(3 * logits[None], np.asarray(labels))
    # Fisher information of ln T is the variance of the logits under their softmax, in
    # the mean: 0.65 an example. Four standard errors.
    probs = np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32)))
    mean = (probs * logits).sum(-1)
    information = ((probs * logits**2).sum(-1) - mean**2).sum()
    assert abs(np.log(found / 3)) < 4 / information**0.5 < 0.1


def test_a_plan_may_come_from_other_inputs_and_go_without_times(
    benchmarks, monkeypatch
):
    planned = benchmarks("bnn_cases.planned")
    networks = benchmarks("bnn_cases.networks")
    monkeypatch.setattr(planned, "PRICES", {"products": dm_bnn.Prices()})
    net, key = networks.layered((6, 5, 3)), jax.random.key(0)
    random = dm_bnn.posterior(net.init(key), 0.5, where=networks.is_kernel)
    x = np.random.default_rng(0).random((8, 6), np.float32)
    settings = planned.Settings(10, (4, 4), 8, 12, 0)
    network = planned.Network(net.apply, random, x, pilot=x[:4], mode="lrt")
    found = planned.measure(network, settings)
    pilot = networks.voters(net, random, x[:4], key, settings.pilot)
    expected = dm_bnn.components(np.asarray(jax.nn.softmax(pilot)), settings.pilot)
    np.testing.assert_allclose(found.components, expected, rtol=1e-4)
    tree = found.trees["products"]
    assert tree.voters != (10, 1) and tree.seconds is None
    value, low, high = tree.found
    assert 0 < low <= value <= high


@pytest.fixture(scope="module")
def record(benchmarks, tmp_path_factory):
    """A whole run on pictures that are made up, with settings of next to nothing."""
    folder = tmp_path_factory.mktemp("fashion")
    fashion_files.write_fashion(folder, train=240, test=40)
    digits, _ = fashion_files.write_mnist(folder / "digits.csv.gz", 40)
    script = benchmarks("bnn_fashion")
    out = folder / "record.json"
    arguments = script.Arguments(fashion=folder, mnist=digits, preset="smoke", out=out)
    with pytest.MonkeyPatch.context() as patch:
        one = {"products": dm_bnn.Prices()}  # counting for all takes seconds
        patch.setattr(benchmarks("bnn_cases.planned"), "PRICES", one)
        script.main(arguments)
    return json.loads(out.read_text())


def test_absent_pictures_end_the_run_with_a_sentence(benchmarks, tmp_path):
    script = benchmarks("bnn_fashion")
    arguments = script.Arguments(fashion=tmp_path, preset="smoke")
    with pytest.raises(
        SystemExit, match=r"^bnn_fashion: Fashion-MNIST is not complete"
    ):
        script.main(arguments)


def test_a_run_makes_a_record(record):
    io.validate_result(record)
    values = {m["name"]: m["value"] for m in record["measures"]}
    for name in ("mean", "lrt", "naive", "tree", "twin", "twin_scaled", "ensemble"):
        for kind in ("accuracy", "nll", "ece", "ece_if_calibrated", "brier"):
            assert f"{kind}.{name}" in values
    assert "nll_of_voters.10" in values and "auroc.mnist.entropy" in values
    assert values["nll_of_voters.1"] > values["nll_of_voters.10"]
    assert values["accuracy.lrt"] > 0.3  # chance is 0.1
    difference = values["accuracy.lrt"] - values["accuracy.twin"]
    assert values["accuracy_difference.lrt.twin"] == pytest.approx(difference)
    assert any("not the pixels and labels of Debian's" in n for n in record["notes"])


def test_tables(record):
    path = pages.ROOT / "docs" / "bnn_fashion_tables.py"
    lines = runpy.run_path(str(path))["bnn_fashion"](record).splitlines()
    for first in (
        "| posterior, independent voters, LRT | ",
        "| posterior, independent voters, LRT − ensemble of twins | ",
        "| voters, mutual information | ",
        "| 10 | ",
        "| products | at most 0.75 | ",
    ):
        (row,) = (line for line in lines if line.startswith(first))
        assert "|  |" not in row
    assert sum(" (chosen) | " in line for line in lines) == 1
    made = "Made by `python benchmarks/bnn_fashion.py --preset smoke` on "
    assert lines[-1].startswith(made)
