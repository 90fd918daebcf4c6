"""What is inferred from a program: groups, inspected sites, fold targets."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import mbq_blocks, zoo
from support.case import normal

import jeff.mbq
from jeff import program
from jeff.mbq.groups.infer import infer_groups
from jeff.mbq.groups.spec import GroupSpec

NOTHING = "no parameter produces its input channel by channel"


def stack_of(apply, params, *inputs):
    """The only stack of a program, the whole program if nothing is repeated."""
    stacks = program.blocks(apply, params, *inputs)
    if not stacks:
        return program.whole(apply, params, *inputs)
    (stack,) = stacks
    return stack


def zoo_stack(name):
    case = zoo.build(name)
    return stack_of(case.apply, case.params, *case.inputs)


def infer(stack, specs=None, where=lambda site: True):
    return infer_groups(stack, where, specs)


def summary(stack, **options):
    """``(sites, inspect, fold)`` of every group, names without the common parts."""

    def short(name):
        name = re.sub(r"^(layers[._])?(0|block)?\.?", "", name)
        return re.sub(r"\.(kernel|scale|weight)$", "", name)

    return [
        (" ".join(map(short, g.sites)), short(g.inspect), " ".join(map(short, g.fold)))
        for g in infer(stack, **options)
    ]


DECODER = [
    ("q k v", "o", "norm_attention"),
    ("o", "o", "v"),
    ("gate up", "down", "norm_mlp"),
    ("down", "down", "up"),
]
WITH_LAYER_NORM = [
    ("q k v", "o", "norm_attention norm_attention.bias"),
    ("o", "o", "v"),
    ("up", "up", "norm_mlp norm_mlp.bias"),
    ("down", "down", "up"),  # through a GELU: structurally possible, refused by number
]


@pytest.mark.parametrize(
    ("name", "expected", "count"),
    [
        ("nnx_transformer", DECODER, 2),
        ("nnx_transformer_scanned", DECODER, 3),
        ("linen_transformer", WITH_LAYER_NORM, 2),
        ("linen_scan_axis_0", WITH_LAYER_NORM, 3),
        ("linen_scan_axis_1", WITH_LAYER_NORM, 3),
    ],
)
def test_transformers(name, expected, count):
    if name not in zoo.NAMES:
        pytest.skip(f"the framework of {name} is not installed")
    stack = zoo_stack(name)
    assert stack.count == count
    assert summary(stack) == expected


def test_whole_program_as_one_block():
    if "equinox_attention" not in zoo.NAMES:
        pytest.skip("equinox is not installed")
    stack = zoo_stack("equinox_attention")
    assert stack.count == 1
    found = infer(stack)
    norm, heads, first, second = found
    assert norm.fold == ("norm.weight", "norm.bias") and norm.elementwise
    assert heads.fold == ("attention.value_proj.weight",) and not heads.elementwise
    assert first.sources is None and first.note == NOTHING  # its input is the residual
    assert second.fold == ("mlp.layers.0.weight", "mlp.layers.0.bias")  # through a ReLU


def test_shared_heads_share_scales():
    """Two query heads read each value head, so they share its channels' scales."""
    output = infer(zoo_stack("nnx_transformer"))[1]
    head = 4
    channel = np.arange(16)
    expected = channel // head // 2 * head + channel % head
    _, classes = np.unique(output.share, return_inverse=True)
    np.testing.assert_array_equal(classes, expected)


def fused(split_kernel):
    """A norm, a fused projection, attention and an output projection."""
    params = {"norm": jnp.ones(16), "qkv": normal(0, 16, 48), "out": normal(1, 16, 16)}

    def apply(p, x):
        x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True)) * p["norm"]
        if split_kernel:
            q, k, v = (x @ w for w in jnp.split(p["qkv"], 3, axis=-1))
        else:
            q, k, v = jnp.split(x @ p["qkv"], 3, axis=-1)
        scores = jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2) / 4.0)
        return (scores @ v) @ p["out"]

    return apply, params, normal(2, 2, 5, 16)


@pytest.mark.parametrize("split_kernel", [False, True])
def test_fused_projection(split_kernel):
    apply, params, x = fused(split_kernel)
    stack = stack_of(apply, params, x)
    into, out = infer(stack)
    names = ("qkv", "qkv@1", "qkv@2") if split_kernel else ("qkv",)
    assert into.sites == names and into.fold == ("norm",)
    # every column of the kernel is scaled, whichever slice of it a site uses
    index = np.broadcast_to(into.targets["qkv"].index, (16, 48))
    np.testing.assert_array_equal(index, np.arange(16)[:, None].repeat(48, 1))
    # of the producer, only the columns of the values are
    assert out.fold == ("qkv",)
    index = np.broadcast_to(out.sources["qkv"].index, (16, 48))
    np.testing.assert_array_equal(index[0], [*[-1] * 32, *range(16)])


def test_norm_stored_around_zero():
    def apply(p, x):
        return (x * (1.0 + p["norm"])) @ p["w"]

    params = {"norm": jnp.zeros(8), "w": normal(0, 8, 4)}
    (group,) = infer(stack_of(apply, params, normal(1, 3, 8)))
    assert group.fold == ("norm",) and group.sources["norm"].offset == 1.0


def test_experts_and_computed_weights_are_left_out():
    ragged = summary(zoo_stack("plain_moe_ragged"))
    assert ragged == [("router", "router", "")]
    assert infer(zoo_stack("plain_lora")) == ()


def test_leaf_shared_by_blocks_is_not_folded_into():
    params = {
        "up": normal(0, 8, 16),
        "down": [normal(1, 16, 8), normal(2, 16, 8), normal(3, 16, 8)],
    }

    def apply(p, x):
        for down in p["down"]:
            x = x + jax.nn.relu(x @ p["up"]) @ down
        return x

    stack = stack_of(apply, params, normal(4, 3, 8))
    assert stack.count == 3
    _, down = infer(stack)
    assert down.sites == ("down.0",) and down.sources is None
    assert down.note == "up is also used elsewhere"


def test_leaf_used_outside_the_blocks_is_not_folded_into():
    params = {
        "layers": [
            {"up": normal(2 * i, 8, 16), "down": normal(2 * i + 1, 16, 8)}
            for i in range(3)
        ]
    }

    def apply(p, x):
        for layer in p["layers"]:
            x = x + jax.nn.relu(x @ layer["up"]) @ layer["down"]
        return x @ p["layers"][0]["up"]

    _, down = infer(stack_of(apply, params, normal(9, 3, 8)))
    assert down.sources is None
    assert down.note == "layers.0.up is also used elsewhere"


@pytest.mark.parametrize("shared", ["up", "norm"])
def test_leaf_shared_by_later_blocks_is_not_folded_into(shared):
    """Blocks 1 and 2 share it; the template, block 0, has its own."""
    layers = mbq_blocks.make_params()["layers"]
    layers[2] = {**layers[2], shared: layers[1][shared]}

    def apply(p, x):
        for i in range(3):
            x = mbq_blocks.block({**p[i], shared: p[min(i, 1)][shared]}, x)
        return x

    (batch,) = mbq_blocks.batches()
    del layers[2][shared]
    first, down = infer(stack_of(apply, layers, *batch.inputs))
    assert first.sources is None
    assert first.note == f"1.{shared} is also used elsewhere"
    assert (down.sources is None) == (shared == "up")


def test_inputs_shared_with_a_dense_site_are_not_scaled():
    """Leaving v dense would change what it computes if q and k were folded."""
    stack = zoo_stack("nnx_transformer")
    found = infer(stack, where=lambda site: not site.name.endswith(".v.kernel"))
    assert found[0].sites == ("layers.0.q.kernel", "layers.0.k.kernel")
    assert found[0].sources is None
    assert found[0].note == "its input is also that of layers.0.v.kernel"


def test_named_groups_win():
    stack = zoo_stack("nnx_transformer")
    gate, up, down, o = (f"layers.0.{n}.kernel" for n in ("gate", "up", "down", "o"))
    specs = [
        GroupSpec(sites=(gate, up), inspect=down),
        GroupSpec(sites=(o,), fold=()),
        GroupSpec(sites=(down,), fold=(up,)),
    ]
    first, second, third = infer(stack, specs=specs)
    assert first.inspect == down and first.fold == ("layers.0.norm_mlp.scale",)
    assert second.sources is None and second.note == "no folding was asked for"
    assert third.fold == (up,)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (GroupSpec(sites=("nope",)), "no site 'nope' in the block; it has"),
        (
            GroupSpec(sites=("layers.0.norm",), inspect="nope"),
            "inspect names no site of the block: 'nope'",
        ),
        (
            GroupSpec(sites=("layers.0.up",), inspect="layers.0.gate"),
            "inspect 'layers.0.gate' does not depend on layers.0.up",
        ),
        (
            GroupSpec(sites=("layers.0.up", "layers.0.down")),
            "sites layers.0.up, layers.0.down do not share an input",
        ),
        (
            GroupSpec(sites=("layers.0.down", "layers.0.gate")),
            "site 'layers.0.gate' of a group is not one to be quantized",
        ),
    ],
)
def test_wrong_specs(spec, message):
    if "norm" in spec.sites[0]:
        spec = GroupSpec(sites=("layers.0.up",), inspect=spec.inspect)
    (batch,) = mbq_blocks.batches()
    stack = stack_of(mbq_blocks.gated(), mbq_blocks.make_params(), *batch.inputs)
    refused = "layers.0.gate" if "quantized" in message else None
    with pytest.raises(ValueError, match=re.escape(message)):
        infer(stack, specs=[spec], where=lambda site: site.name != refused)


def test_wrong_fold_is_said():
    (batch,) = mbq_blocks.batches()
    stack = stack_of(mbq_blocks.gated(), mbq_blocks.make_params(), *batch.inputs)
    spec = GroupSpec(sites=("layers.0.down",), fold=("layers.0.norm",))
    (group,) = infer(stack, specs=[spec])
    assert group.sources is None
    assert group.note == ("layers.0.norm does not produce its input channel by channel")


def test_fold_into_an_unknown_leaf():
    (batch,) = mbq_blocks.batches()
    stack = stack_of(mbq_blocks.gated(), mbq_blocks.make_params(), *batch.inputs)
    spec = GroupSpec(sites=("layers.0.down",), fold=("layers.0.upp",))
    message = "fold names no leaf of params: 'layers.0.upp'; nearest: layers.0.up, "
    with pytest.raises(ValueError, match=message):
        infer(stack, specs=[spec])
    # a leaf there is, in another block: the note says that it does not fit
    spec = GroupSpec(sites=("layers.0.down",), fold=("layers.1.up",))
    (group,) = infer(stack, specs=[spec])
    assert group.note == "layers.1.up does not produce its input channel by channel"


def test_a_scale_before_the_blocks_is_not_folded_into():
    params = {"norm": jnp.ones(8), "layers": [normal(i, 8, 8) for i in range(3)]}

    def apply(p, x):
        x = x * p["norm"]
        for w in p["layers"]:
            x = jax.nn.relu(x @ w)
        return x

    (group,) = infer(stack_of(apply, params, normal(9, 3, 8)))
    assert group.sources is None and group.note == "norm is outside of the block"


def test_spec_checks_its_fields():
    with pytest.raises(TypeError, match="sites must be a tuple of names, got 'gate'"):
        GroupSpec(sites="gate")
    with pytest.raises(TypeError, match="fold must be a tuple of names, got 'norm'"):
        GroupSpec(sites=("gate",), fold="norm")
    with pytest.raises(TypeError, match="sites must be a tuple of names, got 3"):
        GroupSpec(sites=3)
    with pytest.raises(TypeError, match="fold must be a tuple of names, got 0 in it"):
        GroupSpec(sites=("gate",), fold=(0,))
    with pytest.raises(TypeError, match=r"inspect must be a name, got \('down',\)"):
        GroupSpec(sites=("gate",), inspect=("down",))
    with pytest.raises(ValueError, match="sites must name at least one site"):
        GroupSpec(sites=())


def test_judged_at_the_largest_site_where_nothing_depends_on_all():
    group, _ = infer(zoo_stack("plain_lora_apart"))
    assert group.sites == ("w", "a") and group.inspect == "w"


def test_no_model_is_named():
    """Groups are read off programs: no file knows a model's classes or layers.

    Only the subfolder that feeds and files published models does.
    """
    names = (
        "llama|qwen|llava|intern|vicuna|mistral|gemma|phi3|siglip|clipvision|bloom|"
        "opt_|falcon|q_proj|o_proj|gate_proj|input_layernorm"
    )
    folder = pathlib.Path(jeff.mbq.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        if path.is_relative_to(folder / "folder"):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not re.search(names, line, re.IGNORECASE), f"{path.name}:{number}"
