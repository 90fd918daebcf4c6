"""Spec, test 7: a network with faults by PyTorchFI and MRFI, whole outputs compared."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jeff
from jeff import base
from jeff.faults import (
    BitFlips,
    StuckAt,
    WeightFaults,
    bit_flip,
    on_features,
    on_weights,
    stuck_at,
)

CONVS = ["conv0.w", "conv1.w", "conv2.w"]
NONE = np.array(False)
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


def apply(params, x):
    for i, stride in enumerate((1, 2, 2)):
        w, b = params[f"conv{i}"]["w"], params[f"conv{i}"]["b"]
        pad = ((1, 1), (1, 1))
        y = jax.lax.conv_general_dilated(x, w, (stride, stride), pad)
        x = jax.nn.relu(y + b[:, None, None])
    return x.mean((2, 3)) @ params["head"]["w"].T + params["head"]["b"]


@pytest.fixture
def data(golden):
    return np.load(golden("fault_injection_torch.npz"))


@pytest.fixture
def net(data):
    """Params and images, by the rule in tests/golden/README.md."""
    normal = np.random.default_rng(int(data["seed"])).standard_normal
    params, arrays, c_in = {}, [], 3

    def layer(name, shape, scale):
        w, b = normal(shape) * scale, 0.1 * normal(shape[0])
        arrays.extend([w, b])
        params[name] = {"w": np.float32(w), "b": np.float32(b)}

    for i, c_out in enumerate(data["channels"].tolist()):
        layer(f"conv{i}", (c_out, c_in, 3, 3), np.sqrt(2 / (9 * c_in)))
        c_in = c_out
    layer("head", (int(data["classes"]), c_in), 1 / np.sqrt(c_in))
    res = int(data["res"])
    x = normal((int(data["B"]), 3, res, res))
    sums = [a.sum() for a in (x, *arrays)]
    np.testing.assert_allclose(sums, data["checksum"], rtol=1e-5, atol=1e-5)
    return params, np.float32(x)


def _words(params, dtype=np.uint32):
    return {n: np.zeros(params[n[:5]]["w"].shape, dtype) for n in CONVS}


def _same(logits, expected):
    """Finite where the original's are, and close there."""
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(logits), finite)
    close(np.asarray(logits)[finite], expected[finite])


def test_bits_of_float32_weights(data, net):
    params, x = net
    model = on_weights(bit_flip(0.1), where=CONVS)

    @jax.jit
    def run(words):
        leaves = {n: BitFlips(word, NONE) for n, word in words.items()}
        return apply(model.inject(WeightFaults(leaves, NONE), params), x)

    close(run(_words(params)), data["logits_clean"])
    for (layer, *place, bit), expected in zip(
        data["w32_site"], data["w32_logits"], strict=True
    ):
        words = _words(params)
        words[CONVS[layer]][tuple(place)] = np.uint32(1) << np.uint32(bit)
        _same(run(words), expected)


def test_weights_of_several_layers_overwritten(data, net):
    params, x = net
    model = on_weights(stuck_at(0.1), where=CONVS)
    stuck, value = _words(params), _words(params)
    for (layer, *place), new in zip(data["wset_site"], data["wset_value"], strict=True):
        stuck[CONVS[layer]][tuple(place)] = 0xFFFFFFFF
        value[CONVS[layer]][tuple(place)] = new.view(np.uint32)

    @jax.jit
    def run(stuck, value):
        leaves = {n: StuckAt(stuck[n], value[n], NONE) for n in CONVS}
        return apply(model.inject(WeightFaults(leaves, NONE), params), x)

    close(run(stuck, value), data["wset_logits"])


def test_neurons_of_convolutions(data, net):
    """Changes of single outputs, by a rule at the sites; their codes by hand."""
    params, x = net

    @jax.jit
    def run(change):
        def at_site(site):
            def sample(key, like):
                return change[site.name]

            return base.FaultModel(sample, lambda faults, y: y + faults)

        def conv(name, site):
            return site.kind == "conv"

        rule = on_features(at_site, jax.random.key(0), conv)
        return jeff.rewrite(apply, rule)(params, x)

    sizes = dict(zip(CONVS, (16, 8, 4), strict=True))
    for sites, bits, olds, news, expected in zip(
        *(data[f"neuron_{n}"] for n in ("site", "bit", "old", "new", "logits")),
        strict=True,
    ):
        change = {
            n: np.zeros((4, len(params[n[:5]]["b"]), s, s), np.float32)
            for n, s in sizes.items()
        }
        for (width, image, layer, *place), bit, old, new in zip(
            sites, bits, olds, news, strict=True
        ):
            step = data["neuron_range_max"][layer] / 2 ** (width - 1)
            code = (int(old / step) ^ (1 << bit)) & (2**width - 1)
            code -= 2**width if code >> (width - 1) else 0
            assert abs(code * step - new) < 1e-5
            change[CONVS[layer]][(image, *place)] = new - old
        close(run(change), expected)


def test_codes_of_8_bit_weights(data, net):
    params, x = net
    model = bit_flip(0.1)

    @jax.jit
    def run(words, quantized):
        faulty = {n: dict(p) for n, p in params.items()}
        for i, n in enumerate(CONVS):
            w = params[n[:5]]["w"]
            step = np.abs(w).max() / np.float32(127)
            codes = jnp.round(w / step).astype(jnp.int8)
            codes = model.inject(BitFlips(words[n], NONE), codes)
            values = codes.astype(jnp.float32) * step
            faulty[n[:5]]["w"] = jnp.where(quantized == i, values, w)
        return apply(faulty, x)

    for (layer, *places), bits, expected in zip(
        data["mrfi_w8_layer_positions"],
        data["mrfi_w8_bits"],
        data["mrfi_w8_logits"],
        strict=True,
    ):
        words = _words(params, np.uint8)
        for place, bit in zip(places, bits, strict=True):
            words[CONVS[layer]].flat[place] ^= np.uint8(1 << bit)
        close(run(words, layer), expected)
