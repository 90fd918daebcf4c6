"""Folding scales into weights: exact where it is right, refused where it is not."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_blocks, zoo
from support.case import normal

from jeff import mbq, program
from jeff.mbq.groups.fold import fold_scale, scale_targets
from jeff.mbq.groups.infer import infer_groups
from jeff.mbq.scales.search import StackSearch, relative_change
from jeff.program.channels import ChannelMap
from jeff.quantize import QuantConfig

EXACT = [
    "nnx_transformer",
    "nnx_attention_general",
    "nnx_mlp",
    "linen_scan_axis_0",
    "linen_scan_axis_1",
    "linen_attention_general",
    "equinox_attention",
    "equinox_mlp",
    "plain_attention_general",
    "plain_qkv_split_after",
    "plain_qkv_split_before",
    "plain_lora_apart",
    "plain_nested_vmap",
]


def first_block(apply, params, *inputs):
    """``(stack, groups that can be scaled, weights, state, side)`` of the first one."""
    stacks = program.blocks(apply, params, *inputs)
    stack = stacks[0] if stacks else program.whole(apply, params, *inputs)
    groups = [g for g in infer_groups(stack, lambda s: True) if g.sources is not None]
    state, sides = stack.enter(params, *inputs)
    return stack, groups, stack.weights(params, 0), state, stack.side(sides, 0)


def some_scale(group, seed=0):
    """A positive scale that respects the shared channels."""
    values = np.random.default_rng(seed).uniform(0.3, 3.0, group.share.size)
    return jnp.asarray(values[group.share], jnp.float32)


@pytest.mark.parametrize("name", EXACT)
def test_folding_is_exact(name):
    if name not in zoo.NAMES:
        pytest.skip(f"the framework of {name} is not installed")
    case = zoo.build(name)
    stack, groups, weights, state, side = first_block(
        case.apply, case.params, *case.inputs
    )
    assert groups
    run = jax.jit(stack.run)
    before = run(weights, state, side)
    for i, group in enumerate(groups):
        if name.startswith("linen_scan") and group.fold[0].endswith("up.kernel"):
            continue  # through a GELU: `test_wrong_fold_is_left_out`
        fold = jax.jit(lambda w, s, group=group: fold_scale(w, group, s))
        folded = fold(weights, some_scale(group, i))
        changed = {n for n in weights if not np.array_equal(folded[n], weights[n])}
        assert changed == {*group.targets, *group.sources}
        after = run(folded, state, side)
        assert relative_change(before, after) <= 1e-6, group.sites


@pytest.mark.parametrize("name", ["nnx_transformer_scanned", "linen_transformer"])
def test_probe_is_exact_in_low_precision(name):
    """Powers of two round nothing in bfloat16: the right folds change no bit."""
    if name not in zoo.NAMES:
        pytest.skip(f"the framework of {name} is not installed")
    case = zoo.build(name)
    stack, groups, weights, state, side = first_block(
        case.apply, case.params, *case.inputs
    )
    search = StackSearch.of(stack, groups)
    after = search.run(weights, state, side)
    for i, group in enumerate(groups):
        found = search.probe(weights, after, state, side, group=i)
        wrong = name == "linen_transformer" and group.fold[0].endswith("up.kernel")
        assert found > 1e-3 if wrong else found == 0.0


def test_zero_centred_norm():
    def apply(p, x):
        return (x * (1.0 + p["norm"])) @ p["w"]

    params = {"norm": normal(0, 8) * 0.3, "w": normal(1, 8, 4)}
    x = normal(2, 3, 8)
    _, (group,), weights, _, _ = first_block(apply, params, x)
    scale = some_scale(group)
    folded = fold_scale(weights, group, scale)
    np.testing.assert_allclose(
        folded["norm"], (1 + params["norm"]) / scale - 1, rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(apply(folded, x), apply(params, x), rtol=1e-5, atol=1e-6)


def test_bias_of_the_producer_is_divided():
    params = {
        "up": normal(0, 8, 6),
        "bias": normal(1, 6),
        "down": normal(2, 6, 4),
        "last": normal(3, 4),
    }

    def apply(p, x):
        return jax.nn.relu(x @ p["up"] + p["bias"]) @ p["down"] + p["last"]

    x = normal(4, 5, 8)
    _, (group,), weights, _, _ = first_block(apply, params, x)
    scale = some_scale(group)
    folded = fold_scale(weights, group, scale)
    np.testing.assert_allclose(folded["bias"], params["bias"] / scale, rtol=1e-6)
    np.testing.assert_allclose(folded["up"], params["up"] / scale, rtol=1e-6)
    np.testing.assert_allclose(
        folded["down"], params["down"] * scale[:, None], rtol=1e-6
    )
    np.testing.assert_array_equal(folded["last"], params["last"])


def test_scale_targets_by_hand():
    """Channel -1 is none; the dtype stays."""
    weights = {"w": jnp.ones((2, 3), jnp.bfloat16)}
    targets = {"w": ChannelMap(np.array([[0, 1, -1]]))}
    scaled = scale_targets(weights, targets, jnp.array([2.0, 4.0]))
    assert scaled["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        scaled["w"].astype(jnp.float32), [[2.0, 4.0, 1.0]] * 2
    )


def test_group_without_sources_cannot_be_folded():
    apply = lambda p, x: x @ p["w"]  # noqa: E731
    params, x = {"w": normal(0, 8, 4)}, normal(1, 3, 8)
    stack = program.whole(apply, params, x)
    (group,) = infer_groups(stack, lambda s: True)
    with pytest.raises(ValueError, match="group w cannot be folded: no parameter"):
        fold_scale(params, group, jnp.ones(8))


def tanh_gelu_mlp():
    """A GELU between up and down: scaling up scales both factors of ``h cdf(h)``."""
    params = {"norm": jnp.ones(16), "up": normal(0, 16, 32), "down": normal(1, 32, 16)}

    def apply(p, x):
        return jax.nn.gelu((x * p["norm"]) @ p["up"]) @ p["down"]

    return apply, params, normal(2, 2, 6, 16) * 4


def test_wrong_fold_is_left_out():
    apply, params, x = tanh_gelu_mlp()
    config = mbq.BalanceConfig(
        weights=QuantConfig(bits=3, group_size=16), reweight="none"
    )
    result = mbq.mbq(apply, params, [mbq.Batch((x,))], config)
    up, down = result.report.groups
    assert up.fold == ("norm",) and up.note == ""
    assert down.fold == () and np.isnan(down.exponent) and (down.scale == 1).all()
    assert re.fullmatch(
        r"folding changes the block's output by \d\.\de-0\d \(relative\): the "
        r"activation between up and down \(made of (integer_pow, )?tanh\) is not "
        r"linear in the factor: dividing its input by s does not divide its output "
        r"by s",
        down.note,
    ), down.note
    assert f"block 0, down: {down.note}" in result.report.notes
    # with the fold left out, `down` is what rounding alone makes of it
    plain = mbq.rtn(apply, params, [mbq.Batch((x,))], config)
    np.testing.assert_array_equal(
        result.params["down"].decode(), plain.params["down"].decode()
    )


def test_a_fold_that_is_wrong_for_another_reason():
    """The norm's scale is also added to the output: no activation is to blame."""
    params = {"norm": normal(0, 16), "w": normal(1, 16, 16)}
    apply = lambda p, x: (x * p["norm"]) @ p["w"] + p["norm"]  # noqa: E731
    config = mbq.BalanceConfig(
        weights=QuantConfig(bits=3, group_size=16), reweight="none"
    )
    batches = [mbq.Batch((normal(2, 3, 16),))]
    (group,) = mbq.mbq(apply, params, batches, config).report.groups
    assert group.fold == ()
    assert group.note.endswith(
        "(relative): norm acts in another way too, or its dtype rounds the fold"
    )


def test_folding_composes_over_a_block():
    """All groups folded one after another, as the methods do."""
    params = mbq_blocks.make_params()
    (batch,) = mbq_blocks.batches()
    stack, groups, weights, state, side = first_block(
        mbq_blocks.gated(), params, *batch.inputs
    )
    folded = weights
    for i, group in enumerate(groups):
        folded = fold_scale(folded, group, some_scale(group, i))
    run = jax.jit(stack.run)
    change = relative_change(run(weights, state, side), run(folded, state, side))
    assert len(groups) == 2 and change <= 1e-6
