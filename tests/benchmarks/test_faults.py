"""The fault benchmark's statistics and report, and its network in PyTorch."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import pages

from jeff import FaultModel, rewrite, tree
from jeff.faults import BitFlips, bit_flip, on_features
from jeff.models import resnet
from jeff.sweep import FaultSpace

pytestmark = pages.in_checkout


@pytest.fixture(scope="module")
def cases():
    """A function that gives a module of ``benchmarks/faults_cases``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(pages.ROOT / "benchmarks"))
        yield lambda name: importlib.import_module(f"faults_cases.{name}")


def speeds(cases, **seconds):
    return cases("speed").Speeds(seconds, {}, {}, {}, {}, {"torch": "2"}, {})


def test_ratios_are_of_the_same_round_and_the_faster_peer(cases):
    features = {
        "jeff_single": [1.0, 2.0, 4.0],
        "pytorchfi_flip": [9.0, 9.0, 9.0],
        "pytorchfi_neuron": [2.0, 6.0, 16.0],
    }
    timed = speeds(cases, features=features, one_image={}, prefix_reuse={})
    found = {m.name: m for m in cases("report").speed_measures({2: timed, 1: timed})}
    ratio = found["ratio.pytorchfi.features"]
    assert (ratio.low, ratio.value, ratio.high) == (2.0, 3.0, 4.0)
    assert "ratio.pytorchfi.features_one_core" in found
    assert found["inferences_per_second.features.jeff_single"].value == 0.5
    assert not any(name.startswith("ratio.mrfi") for name in found)


def test_what_is_missing_is_noted(cases):
    timed = speeds(cases)._replace(missing={"mrfi": "No module named 'mrfi'"})
    said = cases("report").notes({1: timed})
    assert "mrfi is not there: No module named 'mrfi'" in said


def test_campaigns_stop_one_after_the_other(cases):
    injections = cases("injections")
    changed = np.zeros(4000, bool)
    changed[::500] = True
    stopped = list(injections.anytime(changed))
    assert len(stopped) >= 2
    for count, (value, low, high, trials) in stopped:
        assert count == trials and count % 128 == 0
        assert max(value - low, high - value) <= 0.01
        assert low <= 0.002 <= high


def test_strata_reach_the_margin_and_find_the_share(cases):
    """Only the two high bits of layer a do harm: 2 of 16 bits of 3 of 4 words."""
    injections = cases("injections")
    space = FaultSpace(("a", "b"), (300, 100), (8, 8))

    def inject(faults, pictures):
        assert pictures.max() < 7
        found = space.locate(faults)
        return (np.asarray(found.leaf) == 0) & (np.asarray(found.bit) >= 6)

    made = injections.Campaign(space, 7, inject)
    for kind in ("bit", "layer_bit"):
        count, found = injections.stratified(made, np.random.default_rng(0), kind)
        assert count < 9604
        assert found.low <= 600 / 3200 <= found.high
        assert max(found.high - found.value, found.value - found.low) <= 0.01


class _Devices:
    """Units of 128 injections, of which every `every`-th changes an answer."""

    def __init__(self, every):
        self.every, self.numbers = every, []

    def compute(self, numbers, chunk):
        for number in numbers:
            self.numbers.append(number)
            yield number, {"changed": (np.arange(1, 129) % self.every == 0).astype(int)}


@pytest.mark.parametrize(("every", "most"), [(129, 1280), (8, 10_624)])
def test_campaigns_end_early_or_where_the_fixed_rule_does(cases, every, most):
    """Rare events: at a look. Others: after 10,548 injections, rounded up to a unit."""
    margin, devices = cases("margin"), _Devices(every)
    count, share = margin.to_margin(devices, margin._rule(), 512)
    assert devices.numbers == list(range(512, 512 + count // 128))
    assert share == (0.125 if every == 8 else 0)
    assert count <= most and (every == 129 or count == most)


def test_margins_hold_the_fixed_rule_against_campaigns(cases):
    seconds = {"jeff_weights": np.full(6, 2.0), "pytorchfi": np.full(6, 0.01)}
    seconds["jeff_features"] = np.full(6, 8.0)
    ran = {"weights": [(0, 0.5)] + [(1280, 0.0)] * 6, "features": [(9600, 0.25)] * 6}
    measures = cases("margin")._measures(seconds, ran, 9604)
    found = {m.name: m.value for m in measures}
    assert found["ratio.pytorchfi.to_margin"] == pytest.approx(48.02)
    assert found["seconds_to_margin.pytorchfi"] == pytest.approx(96.04)
    assert found["injections_to_margin.jeff_weights"] == 1280
    assert found["share_at_margin.jeff_features"] == 0.25
    assert not any("mrfi" in name for name in found)


def test_the_figure_has_both_kinds(cases, tmp_path):
    from jeff.evaluate import Measure

    measures = [Measure("golden_accuracy", 0.7)]
    for kind in ("weights_int8", "features_mibb"):
        for rate, value in ((1e-6, 0.7), (1e-3, 0.2)):
            for name in ("accuracy", "changed"):
                ends = {"low": value - 0.1, "high": value + 0.1}
                measures.append(Measure(f"{name}.{kind}.{rate:g}", value, **ends))
    file = tmp_path / "figure.svg"
    cases("figure").write(file, measures)
    text = file.read_text()
    assert "flip probability per bit" in text and "per multiplication" in text


@pytest.mark.parametrize(
    ("norm", "padding"), [(False, "both"), (True, "both"), (False, "end")]
)
def test_the_network_in_torch_gives_the_same_logits(cases, norm, padding):
    torch = pytest.importorskip("torch", reason="torch is a peer's, not installed")
    params = resnet.init(jax.random.key(0), resnet.RESNET_8)
    arrays = {n: np.asarray(a) for n, a in tree.flatten(params)[0].items()}
    images = np.asarray(jax.random.normal(jax.random.key(1), (2, 32, 32, 3)))
    expected = resnet.apply(params, images, padding=padding)
    net = cases("torch_resnet").build(arrays, norm=norm, padding=padding)
    with torch.no_grad():
        found = net(torch.from_numpy(images.copy()).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def live(module):
    """A network, its arrays by name, and pictures; skips without the peer."""
    pytest.importorskip(module, reason=f"{module} is a peer, not installed")
    params = resnet.init(jax.random.key(0), resnet.RESNET_8)
    arrays = {n: np.asarray(a) for n, a in tree.flatten(params)[0].items()}
    images = np.array(jax.random.normal(jax.random.key(1), (2, 32, 32, 3)))
    return params, arrays, images


def test_the_same_fault_gives_the_same_logits_in_pytorchfi(cases):
    params, arrays, images = live("pytorchfi")
    name = "blocks.0.first.kernel"  # the second convolution in the order of modules
    faulty = tree.update(params, {name: params["blocks"][0]["first"]["kernel"].at[
        2, 0, 5, 7].set(3.0)})  # fmt: skip
    expected = np.asarray(resnet.apply(faulty, images, padding="both"))
    found = cases("peer_worker").same_fault(
        arrays, images, layer=1, place=[7, 5, 2, 0], value=3.0
    )
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("bit", "channel"), [(6, 3), (7, 37)])
def test_the_same_flip_gives_the_same_logits_in_pytorchfi(cases, bit, channel):
    """One bit of the 8-bit code of one feature, cut towards zero as PyTorchFI does."""
    params, arrays, images = live("pytorchfi")
    name, (picture, row, column) = "blocks.2.second.kernel", (1, 4, 5)

    def codes(y):
        return jnp.trunc(y / jnp.abs(y).max() * 128).astype(jnp.int8)

    def inject(words, y):
        flipped = bit_flip(0.1).inject(BitFlips(words, False), codes(y))
        value = flipped.astype(jnp.float32) * (jnp.abs(y).max() / 128)
        return jnp.where(words > 0, value, y)

    def sample(key, like):
        words = jnp.zeros(like.shape, jnp.uint8)
        return words.at[picture, row, column, channel].set(1 << bit)

    rule = on_features(FaultModel(sample, inject), jax.random.key(0), where=[name])
    apply = functools.partial(resnet.apply, padding="both")
    clean, expected = (
        np.asarray(f(params, images)) for f in (apply, rewrite(apply, rule))
    )
    place = [picture, channel, row, column]
    found = cases("peer_worker").same_flip(
        arrays, images, layer=7, place=place, bit=bit
    )
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-4 * scale)
    assert np.abs(expected - clean)[picture].max() > 1e-3 * scale


@pytest.mark.parametrize("bit", [3, 7])
def test_the_same_code_gives_the_same_logits_in_mrfi(cases, bit):
    """A kernel as signed 8-bit codes, of which one bit of one code is flipped."""
    params, arrays, images = live("mrfi")
    name, place = "blocks.1.skip.kernel", (0, 0, 5, 17)  # [row, column, in, out]
    kernel = tree.get(params, name)
    step = np.abs(kernel).max() / np.float32(127)
    stored = jnp.round(kernel / step).astype(jnp.int8)
    words = np.zeros(kernel.shape, np.uint8)
    words[place] = 1 << bit
    flipped = bit_flip(0.1).inject(BitFlips(jnp.asarray(words), False), stored)
    clean, expected = (
        np.asarray(
            resnet.apply(
                tree.update(params, {name: code * step}), images, padding="both"
            )
        )
        for code in (stored.astype(jnp.float32), flipped.astype(jnp.float32))
    )
    row, column, into, out = place
    flat = np.ravel_multi_index(
        (out, into, row, column), [kernel.shape[i] for i in (3, 2, 0, 1)]
    )
    found = cases("peer_worker").same_code(
        arrays, images, layer="blocks.1.skip", place=int(flat), bit=bit
    )
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-4 * scale)
    assert np.abs(expected - clean).max() > 1e-3 * scale
