"""One call: what it refuses before any heavy work, and what stays dense."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_blocks, zoo
from support.case import normal

import jeff
from jeff import mbq, quantize, tree
from jeff.quantize import QTensor, QuantConfig

CONFIG = mbq.BalanceConfig(weights=QuantConfig(bits=3, group_size=16))
PLAIN = mbq.BalanceConfig(weights=CONFIG.weights, reweight="none")
BATCHES = mbq_blocks.batches()
METHODS = ["rtn", "smoothquant", "awq", "gptq", "mbq"]


def call(method="mbq", **changes):
    arguments = {
        "apply": mbq_blocks.gated(),
        "params": mbq_blocks.make_params(),
        "batches": BATCHES,
        "config": CONFIG,
        "loss": mbq_blocks.loss,
        **changes,
    }
    return getattr(mbq, method)(**arguments)


def batch(**changes):
    return [BATCHES[0]._replace(**changes)]


def without(name):
    params = mbq_blocks.make_params()
    del params["layers"][1][name]
    return params


def reshaped(name):
    params = mbq_blocks.make_params()
    params["layers"][1][name] = jnp.ones((3, 3))
    return params


def already_quantized():
    params = mbq_blocks.make_params()
    up = quantize.quantize(params["layers"][1]["up"], CONFIG.weights)
    params["layers"][1]["up"] = up
    return params


def config(**changes):
    return mbq.BalanceConfig(**{"weights": CONFIG.weights, **changes})


BAD = [
    ({"batches": 3}, TypeError, "batches must be a sequence of Batch, got 3"),
    (
        {"batches": batch(masks=BATCHES[0].masks["vision"])},
        TypeError,
        "batches[0].masks must be a dict of masks by modality, got an array of shape "
        "(2, 12)",
    ),
    ({"batches": []}, ValueError, "batches is empty"),
    (
        {
            "batches": [
                *BATCHES,
                *batch(inputs=(BATCHES[0].inputs[0].at[0].set(jnp.nan),)),
            ]
        },
        ValueError,
        "batches[1].inputs[0] holds a NaN or an infinity",
    ),
    (
        {"config": config(weights=QuantConfig(bits=3, group_size=48))},
        ValueError,
        "layer 'layers.0.gate': group_size 48 does not divide the contraction axes",
    ),
    (
        {"params": already_quantized()},
        ValueError,
        "params: layer 'layers.1.up' is a QTensor already; start from dense weights",
    ),
    (
        {"params": without("down")},
        ValueError,
        "apply does not run with these params and inputs: KeyError: 'down'",
    ),
    (
        {"params": reshaped("gate")},
        ValueError,
        "apply does not run with these params and inputs: TypeError: ",
    ),
    (
        {"batches": batch(inputs=())},
        ValueError,
        "apply does not run with these params and inputs: TypeError: ",
    ),
    (
        {"where": lambda site: site.name == "nowhere"},
        ValueError,
        "there is no product to quantize in the program that where accepts",
    ),
    (
        {"where": "layers"},
        TypeError,
        "where must be a function of a site, got 'layers'",
    ),
    ({"config": 3}, TypeError, "config must be a BalanceConfig, got int"),
]
BAD_BALANCE = [
    (
        {"loss": None},
        TypeError,
        "loss must be a function for reweight='ratio_floor', got None",
    ),
    (
        {"config": config(reference="audio")},
        ValueError,
        "reference must be one of the modalities ['language', 'vision'], got 'audio'",
    ),
    (
        {"config": config(reference="audio", reweight="uniform")},
        ValueError,
        "reference must be one of the modalities ['language', 'vision'], got 'audio'",
    ),
    (
        {"batches": batch(masks={})},
        ValueError,
        "batches[0].masks is empty: name the modalities",
    ),
    (
        {"batches": batch(masks={m: v[:, :-1] for m, v in BATCHES[0].masks.items()})},
        ValueError,
        "masks must have a token for every row of site 'layers.0.down', whose output "
        "has shape (2, 12, 32); got masks of shape (2, 11)",
    ),
    (
        {
            "batches": batch(
                masks={m: v & (m == "language") for m, v in BATCHES[0].masks.items()}
            )
        },
        ValueError,
        "masks['vision'] has no token in any batch; leave the modality out",
    ),
    (
        {
            "batches": batch(
                masks={m: v & (m == "vision") for m, v in BATCHES[0].masks.items()}
            )
        },
        ValueError,
        "masks['language'] has no token in any batch; it is the reference, the tokens "
        "whose loss is to be kept",
    ),
    (
        {"groups": [mbq.GroupSpec(sites=("head",))]},
        ValueError,
        "groups[0] names no site of the first block: 'head'; it has layers.0.gate",
    ),
    (
        {"groups": mbq.GroupSpec(sites=("layers.0.up",))},
        TypeError,
        "groups must be a sequence of GroupSpec, got GroupSpec(sites=('layers.0.up',)",
    ),
    ({"groups": 3}, TypeError, "groups must be a sequence of GroupSpec, got 3"),
    (
        {"groups": [mbq.GroupSpec(sites=("layers.0.down",), fold=("layers.0.Up",))]},
        ValueError,
        "fold names no leaf of params: 'layers.0.Up'; nearest: layers.0.up",
    ),
    ({"groups": ["up"]}, TypeError, "groups[0] must be a GroupSpec, got 'up'"),
    (
        {"loss": lambda y, _: y},
        ValueError,
        "loss must return one scalar, got shape (2, 12, 8)",
    ),
    (
        {"loss": lambda y, _: 0.0 * y.sum()},
        ValueError,
        "site 'layers.0.down': sensitivity of 'language' must be finite and positive, "
        "got 0.0",
    ),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_bad_input(method, changes, error, message):
    with pytest.raises(error, match=re.escape(message)) as info:
        call(method, **changes)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(("changes", "error", "message"), BAD_BALANCE)
def test_bad_input_of_the_balance(changes, error, message):
    with pytest.raises(error, match=re.escape(message)) as info:
        call(**changes)
    assert "\n" not in str(info.value)


def test_leaf_of_a_framework_that_does_not_fit():
    """`jeff.functional` says which leaf; the line is passed on."""
    if "nnx_mlp" not in zoo.NAMES:
        pytest.skip("flax is not installed")
    case = zoo.build("nnx_mlp")
    params = tree.update(case.params, {"first.kernel": jnp.ones((16, 5))})
    message = "ValueError: params leaf 'first.kernel' has shape (16, 5), the program"
    with pytest.raises(ValueError, match=re.escape(message)):
        mbq.rtn(case.apply, params, [mbq.Batch(case.inputs)], CONFIG)


def test_rounding_alone():
    result = call("rtn", groups=["never looked at"])
    params = mbq_blocks.make_params()
    for name, leaf in tree.flatten(result.params)[0].items():
        dense = tree.get(params, name)
        if name.split(".")[-1] in ("gate", "up", "down"):
            assert isinstance(leaf, QTensor)
            want = quantize.fake_quant(dense, CONFIG.weights)
            np.testing.assert_array_equal(leaf.decode(), want)
        else:  # norms, and the head outside the blocks
            np.testing.assert_array_equal(leaf, dense)
    assert result.rules == () and result.report.groups == ()


def test_where_narrows():
    result = call("rtn", where=lambda site: site.name.endswith("down"))
    kinds = {
        n: isinstance(w, QTensor) for n, w in tree.flatten(result.params)[0].items()
    }
    assert [n for n, stored in kinds.items() if stored] == [
        f"layers.{i}.down" for i in range(3)
    ]


def test_input_params_are_not_changed():
    params = mbq_blocks.make_params()
    before = jax.tree.map(np.array, params)
    call("mbq", params=params)
    jax.tree.map(np.testing.assert_array_equal, params, before)


def notes_of(apply, params, *inputs):
    config = mbq.BalanceConfig(weights=QuantConfig(bits=8, symmetric=True))
    return mbq.rtn(apply, params, [mbq.Batch(inputs)], config).report.notes


def test_weights_that_stay_dense_are_reported():
    params = {"w": normal(0, 8, 8), "a": normal(1, 8, 2), "b": normal(2, 2, 8)}
    params["last"] = normal(3, 8, 4)

    def lora(p, x):
        return (x @ (p["w"] + p["a"] @ p["b"])) @ p["last"]

    (note,) = notes_of(lora, params, normal(4, 3, 8))
    assert re.match(r"w stays dense: the weight is computed from .*\bw\b", note)

    def beside(p, x):
        return x @ jnp.concatenate([p["w"], p["a"]], 1), x @ p["last"]

    (note,) = notes_of(beside, params, normal(4, 3, 8))
    assert note == "w stays dense: the weight is 2 leaves side by side"

    def looped(p, x):
        x, _ = jax.lax.scan(lambda x, _: (jnp.tanh(x @ p["w"]), None), x, length=3)
        return x @ p["last"]

    (note,) = notes_of(looped, params, normal(4, 3, 8))
    assert note == "w stays dense: it is in a loop of the block"

    experts = zoo.build("plain_moe_ragged")
    assert notes_of(experts.apply, experts.params, *experts.inputs) == (
        "up stays dense: it is used by a ragged_dot",
        "down stays dense: it is used by a ragged_dot",
    )


def test_groups_of_one_sign_are_reported():
    params = mbq_blocks.make_params()
    params["layers"][0]["up"] = jnp.abs(params["layers"][0]["up"]) + 1.0
    notes = call("rtn", params=params).report.notes
    (note,) = [n for n in notes if n.startswith("layers.0.up:")]
    assert note == (
        "layers.0.up: 128 groups do not straddle zero and are clipped by "
        'zero_point="int"; try "int_incl_zero"'
    )


def test_weights_that_are_not_finite_are_named():
    params = {"w": jnp.eye(32).at[0, 0].set(jnp.nan)}
    config = mbq.BalanceConfig(weights=QuantConfig(bits=4, group_size=32))
    with pytest.raises(ValueError, match="layer 'w' holds NaN"):
        mbq.rtn(
            lambda p, x: x @ p["w"], params, [mbq.Batch((jnp.ones((1, 32)),))], config
        )


def test_a_scale_beyond_its_dtype_is_an_error():
    params = {"w": 1e6 * jnp.eye(32)}
    weights = QuantConfig(bits=4, group_size=32, scale_dtype="float16")
    batches = [mbq.Batch((jnp.ones((1, 32)),))]
    with pytest.raises(ValueError, match="layer 'w': a scale overflows"):
        mbq.rtn(
            lambda p, x: x @ p["w"], params, batches, mbq.BalanceConfig(weights=weights)
        )


def test_weights_that_iterations_share_are_rounded_and_noted():
    def recurrent(params, x):
        step = lambda h, a: (jnp.tanh(h @ params["w"] + a), None)  # noqa: E731
        return jax.lax.scan(step, jnp.zeros(32), x)[0]

    config = mbq.BalanceConfig(weights=QuantConfig(bits=4, group_size=32))
    done = mbq.rtn(
        recurrent, {"w": jnp.eye(32)}, [mbq.Batch((jnp.ones((3, 32)),))], config
    )
    assert done.params["w"].nbytes < 32 * 32
    assert done.report.notes == ("w: shared by a loop's iterations, not scaled",)
    config = dataclasses.replace(config, clip=True, distort=True)
    done = mbq.awq(
        recurrent, {"w": jnp.eye(32)}, [mbq.Batch((jnp.ones((3, 32)),))], config
    )
    assert done.report.notes == (
        "w: shared by a loop's iterations, not scaled or clipped",
        "distort has no effect: no weight is in a block",
    )


@pytest.mark.parametrize(("size", "torn"), [(8, True), (32, False)])
def test_activations_that_stay_as_they_are_are_noted(size, torn):
    """Heads of 8 channels cannot be one packed axis; those of 32 can."""

    def apply(p, x):
        return jnp.einsum("thd,hde->te", x, p["w"])

    weights = QuantConfig(bits=4, symmetric=True)
    config = mbq.BalanceConfig(weights=weights, activation_bits=8)
    params, x = {"w": jnp.ones((4, size, 16))}, jnp.ones((3, 4, size))
    done = mbq.rtn(apply, params, [mbq.Batch((x,))], config)
    program = jax.make_jaxpr(jeff.rewrite(apply, *done.rules))(done.params, x)
    assert ("preferred_element_type=int32" in str(program)) is not torn
    notes = [n for n in done.report.notes if "takes the activations as they are" in n]
    assert len(notes) == torn and all(n.startswith("w: ") for n in notes)
