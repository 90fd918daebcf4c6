"""A model of any framework becomes ``apply(params, *inputs)``."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.stored import Rounded, rounded

from jeff import tree
from jeff.program.functional import functional, functional_with_state

nnx = pytest.importorskip("flax.nnx")
nn = pytest.importorskip("flax.linen")
hk = pytest.importorskip("haiku")
eqx = pytest.importorskip("equinox")

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3), np.float32))


class NnxNet(nnx.Module):
    """Layers in a list, BatchNorm, dropout."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(2)])
        self.norm = nnx.BatchNorm(3, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.dropout(self.norm(x))

    def encode(self, x, *, scale=1.0):
        """The first layer only."""
        return self.layers[0](x) * scale


class LinenNet(nn.Module):
    """A dense layer with partition names, BatchNorm, dropout."""

    @nn.compact
    def __call__(self, x, *, train=False):
        init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
        x = nn.Dense(3, kernel_init=init, name="dense")(x)
        x = nn.BatchNorm(not train, momentum=0.9, name="norm")(x)
        return nn.Dropout(0.5, deterministic=not train)(x)


def haiku_net(x):
    """A linear layer, a counter as state, dropout."""
    count = hk.get_state("count", (), jnp.int32, init=jnp.zeros)
    hk.set_state("count", count + 1)
    x = hk.Linear(2, name="linear")(x)
    return jnp.where(jax.random.bernoulli(hk.next_rng_key(), 0.5, x.shape), x, 0.0)


def names(params):
    """Leaf names of a tree."""
    return list(tree.flatten(params)[0])


# flax nnx


def test_nnx_names_values_and_untouched_module():
    model = NnxNet(nnx.Rngs(0))
    model.eval()
    apply, params = functional(model)
    assert [n for n in names(params) if "layers" in n] == [
        "layers.0.bias",
        "layers.0.kernel",
        "layers.1.bias",
        "layers.1.kernel",
    ]
    assert {"norm.mean", "norm.scale", "dropout.rngs.count"} < set(names(params))
    np.testing.assert_array_equal(apply(params, X), model(X))
    before = tree.get(params, "layers.0.kernel")
    model.layers[0].kernel[...] = jnp.zeros((3, 3))
    np.testing.assert_array_equal(tree.get(params, "layers.0.kernel"), before)


def test_nnx_state_goes_in_and_out_with_one_structure():
    model = NnxNet(nnx.Rngs(0))
    apply, params, state = functional_with_state(model)
    assert set(names(params)).isdisjoint(names(state))
    out, new = apply(params, state, X)  # eager: nothing may be changed in place
    np.testing.assert_array_equal(tree.get(state, "norm.mean"), np.zeros(3))
    assert int(tree.get(state, "dropout.rngs.count")) == 0
    assert int(tree.get(new, "dropout.rngs.count")) == 1
    assert jax.tree.structure(new) == jax.tree.structure(state)
    np.testing.assert_array_equal(out, model(X))
    np.testing.assert_array_equal(tree.get(new, "norm.mean"), model.norm.mean[...])
    jitted, _ = jax.jit(apply)(params, new, X)
    again, _ = jax.jit(apply)(params, state, X)
    assert not np.array_equal(jitted == 0, again == 0)  # another dropout mask


def test_nnx_training_mode_drops_changes_of_state():
    apply, params = functional(NnxNet(nnx.Rngs(0)))
    first, second = apply(params, X), apply(params, X)
    np.testing.assert_array_equal(first, second)


def test_nnx_method_and_keywords():
    model = NnxNet(nnx.Rngs(0))
    for method in ("encode", NnxNet.encode):
        apply, params = functional(model, method=method)
        expected = 2.0 * model.layers[0](X)
        np.testing.assert_array_equal(apply(params, X, scale=2.0), expected)


def test_nnx_partition_names_survive():
    mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    init = nnx.with_partitioning(
        nnx.initializers.lecun_normal(), (None, "model"), mesh=mesh
    )
    apply, params = functional(nnx.Linear(3, 3, kernel_init=init, rngs=nnx.Rngs(0)))
    changed = jax.jit(lambda p: jax.tree.map(lambda a: 2 * a, p))(params)
    changed = tree.update(changed, {"bias": jnp.ones(3)})
    assert changed["kernel"].get_metadata()["out_sharding"] == (None, "model")
    kernel = tree.get(params, "kernel")
    np.testing.assert_allclose(apply(changed, X), X @ (2 * kernel) + 1, rtol=1e-6)


def test_nnx_abstract_module_gives_shapes_to_fill():
    abstract = nnx.eval_shape(lambda: nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    apply, params = functional(abstract)
    assert tree.get(params, "kernel").shape == (3, 2)
    assert isinstance(tree.get(params, "kernel"), jax.ShapeDtypeStruct)
    ones = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), params)
    expected = np.repeat(np.sum(X, 1, keepdims=True) + 1, 2, 1)
    np.testing.assert_allclose(apply(ones, X), expected, rtol=1e-5)


def test_any_tree_with_the_same_names_is_accepted():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    apply, params = functional(model)
    pure = {"kernel": model.kernel[...], "bias": model.bias[...]}
    np.testing.assert_array_equal(apply(pure, X), apply(params, X))
    gradient = jax.grad(lambda p: jnp.sum(apply(p, X)))(pure)
    assert gradient.keys() == pure.keys()


# flax linen


def test_linen_names_drop_the_box_and_keep_its_metadata():
    apply, params = functional(LinenNet(), X, key=KEY)
    assert names(params) == [
        "batch_stats.norm.mean",
        "batch_stats.norm.var",
        "dense.bias",
        "dense.kernel",
        "norm.bias",
        "norm.scale",
    ]
    doubled = jax.jit(lambda p: jax.tree.map(lambda a: 2 * a, p))(params)
    assert doubled["dense"]["kernel"].names == (None, "model")
    variables = LinenNet().init(KEY, X)
    np.testing.assert_array_equal(apply(params, X), LinenNet().apply(variables, X))


def test_linen_state_and_dropout_key_are_inputs():
    keys = {"params": KEY, "dropout": KEY}
    apply, params, state = functional_with_state(LinenNet(), X, key=keys)
    rngs = {"dropout": jax.random.key(5)}
    out, new = jax.jit(apply, static_argnames="train")(
        params, state, X, train=True, rngs=rngs
    )
    expected, changed = LinenNet().apply(
        {"params": params, **state}, X, train=True, rngs=rngs, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    np.testing.assert_allclose(
        new["batch_stats"]["norm"]["mean"],
        changed["batch_stats"]["norm"]["mean"],
        rtol=1e-5,
        atol=1e-7,
    )
    whole, joined = functional(LinenNet(), X, key=keys)  # the same, changes dropped
    np.testing.assert_allclose(
        whole(joined, X, train=True, rngs=rngs), expected, rtol=1e-5, atol=1e-6
    )


def test_linen_bound_module_and_variables():
    variables = nn.Dense(2).init(KEY, X)
    expected = nn.Dense(2).apply(variables, X)
    for arguments in ((nn.Dense(2).bind(variables), None), (nn.Dense(2), variables)):
        apply, params = functional(arguments[0], variables=arguments[1])
        np.testing.assert_array_equal(apply(params, X), expected)
    with pytest.raises(ValueError, match="variables.*'params'.*'kernel'"):
        functional(nn.Dense(2), variables=variables["params"])


def test_linen_variables_may_hold_stored_weights():
    variables = nn.Dense(2).init(KEY, X)
    stored = rounded(variables["params"]["kernel"])
    packed = {"params": {**variables["params"], "kernel": stored}}
    apply, params = functional(nn.Dense(2), variables=packed)
    assert tree.get(params, "kernel") is stored
    np.testing.assert_allclose(apply(params, X), X @ stored.decode(), rtol=1e-6)


def test_linen_module_without_parameters():
    apply, params = functional(nn.Dropout(0.5, deterministic=False), variables={})
    assert params == {}
    y = apply(params, jnp.ones(100), rngs={"dropout": KEY})
    assert set(np.unique(y)) == {0.0, 2.0}


def test_linen_needs_a_key_and_inputs():
    with pytest.raises(ValueError, match="^key: a flax.linen module"):
        functional(nn.Dense(2), X)
    with pytest.raises(ValueError, match="^inputs: a flax.linen module"):
        functional(nn.Dense(2), key=KEY)


class _Stats(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True, name="batch_stats")(x)
        return x


def test_linen_module_named_like_a_collection_is_refused():
    with pytest.raises(ValueError, match="batch_stats.*functional_with_state"):
        functional(_Stats(), X, key=KEY)
    apply, params, state = functional_with_state(_Stats(), X, key=KEY)
    assert apply(params, state, X)[0].shape == X.shape


# dm-haiku


def test_haiku_with_and_without_key():
    plain = hk.transform(lambda x: hk.Linear(2)(x))
    keyless = hk.without_apply_rng(plain)
    apply, params = functional(plain, X, key=KEY)
    other, _ = functional(keyless, variables=params)
    assert names(params) == ["linear.b", "linear.w"]
    expected = keyless.apply(params, X)
    np.testing.assert_array_equal(apply(params, X), expected)
    np.testing.assert_array_equal(other(params, X), expected)


def test_haiku_state_and_key_are_inputs():
    model = hk.transform_with_state(haiku_net)
    apply, params, state = functional_with_state(model, X, key=KEY)
    assert names(params) == ["linear.b", "linear.w"]
    key = jax.random.key(1)
    out, new = jax.jit(apply)(params, state, X, rng=key)
    expected, _ = model.apply(params, state, key, X)
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert jax.tree.leaves(new) == [1]
    assert jax.tree.structure(new) == jax.tree.structure(state)
    whole, joined = functional(model, variables=(params, state))
    assert [n for n in names(joined) if n.startswith("state.")]
    np.testing.assert_array_equal(whole(joined, X, rng=key), expected)
    with pytest.raises(ValueError, match=r"variables.*\(params, state\)"):
        functional(model, variables=params)
    with pytest.raises(ValueError, match="method"):
        functional(model, X, key=KEY, method="encode")


# equinox


def test_equinox_arrays_are_params_and_the_rest_is_closed_over():
    model = eqx.nn.MLP(3, 2, 8, 1, key=KEY)
    apply, params = functional(model)
    assert names(params) == [
        "layers.0.weight",
        "layers.0.bias",
        "layers.1.weight",
        "layers.1.bias",
    ]
    np.testing.assert_array_equal(apply(params, X[0]), model(X[0]))
    mapped = jax.jit(jax.vmap(apply, in_axes=(None, 0)))(params, X)
    np.testing.assert_allclose(mapped, jax.vmap(model)(X), rtol=1e-5)


class _Counter(eqx.Module):
    linear: eqx.nn.Linear
    count: eqx.nn.StateIndex

    def __init__(self, key):
        self.linear = eqx.nn.Linear(3, 2, key=key)
        self.count = eqx.nn.StateIndex(jnp.int32(0))

    def __call__(self, x, state):
        state = state.set(self.count, state.get(self.count) + 1)
        return self.linear(x), state

    def double(self, x):
        """Twice the linear part."""
        return 2 * self.linear(x)


def test_equinox_state_is_an_ordinary_input_and_output():
    model, state = eqx.nn.make_with_state(_Counter)(KEY)
    apply, params = functional(model)
    assert names(params) == ["linear.weight", "linear.bias"]
    _, state = jax.jit(apply)(params, X[0], state)
    assert int(state.get(model.count)) == 1
    twice, _ = functional(model, method="double")
    np.testing.assert_array_equal(twice(params, X[0]), 2 * model.linear(X[0]))
    with pytest.raises(TypeError, match="pass the state as an input"):
        functional_with_state(model)


# stored weights, checks, kinds


@pytest.mark.parametrize("framework", ["nnx", "linen", "haiku", "equinox"])
def test_stored_weights_live_in_every_tree(framework):
    apply, params, name = {
        "nnx": lambda: (*functional(nnx.Linear(3, 2, rngs=nnx.Rngs(0))), "kernel"),
        "linen": lambda: (*functional(LinenNet(), X, key=KEY), "dense.kernel"),
        "haiku": lambda: (
            *functional(hk.transform(lambda x: hk.Linear(2)(x)), X, key=KEY),
            "linear.w",
        ),
        "equinox": lambda: (
            *functional(eqx.nn.Linear(3, 3, key=KEY), method=lambda m, x: x @ m.weight),
            "weight",
        ),
    }[framework]()
    stored = rounded(tree.get(params, name))
    packed = tree.update(params, {name: stored})
    dense = tree.update(params, {name: stored.decode()})
    assert isinstance(tree.get(packed, name), Rounded)
    through = jax.jit(lambda p: p)(packed)
    assert isinstance(tree.get(through, name), Rounded)
    assert jax.tree.structure(through) == jax.tree.structure(packed)
    expected = apply(dense, X)
    np.testing.assert_allclose(apply(packed, X), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(apply)(packed, X), expected, rtol=1e-5)
    stacked = jax.tree.map(lambda a: jnp.stack([a, a]), packed)
    both = jax.vmap(apply, in_axes=(0, None))(stacked, X)
    np.testing.assert_allclose(both[1], expected, rtol=1e-5)


def test_params_that_do_not_fit_give_one_clear_line():
    apply, params = functional(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    short = {"kernel": jnp.ones((3, 2))}
    wrong = tree.update(params, {"kernel": jnp.ones((2, 3))})
    packed = tree.update(params, {"kernel": rounded(jnp.ones((2, 3)))})
    more = {**short, "bias": jnp.ones(2), "kernels": jnp.ones(2)}
    for bad, message in (
        (short, r"params lacks leaf 'bias' of shape \(2,\)"),
        (wrong, r"params leaf 'kernel' has shape \(2, 3\).*expects \(3, 2\)"),
        (packed, r"params leaf 'kernel' has shape \(2, 3\).*expects \(3, 2\)"),
        (more, r"params has a leaf 'kernels'.*nearest: 'kernel'"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            jax.jit(apply)(bad, X)
        assert "\n" not in str(caught.value)
    step, params, state = functional_with_state(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="state lacks leaf 'mean'"):
        step(params, {"var": tree.get(state, "var")}, X)


def test_models_that_hold_their_arrays_take_no_initialisation():
    for model in (nnx.Linear(3, 2, rngs=nnx.Rngs(0)), eqx.nn.Linear(3, 2, key=KEY)):
        with pytest.raises(ValueError, match="Linear holds its own arrays"):
            functional(model, X)
        with pytest.raises(ValueError, match="Linear holds its own arrays"):
            functional(model, key=KEY)


def test_other_kinds_are_refused_and_nothing_is_imported():
    with pytest.raises(TypeError, match="flax.nnx module.*haiku.*equinox.*got int"):
        functional(3)
    with pytest.raises(TypeError, match="plain function.*needs no conversion"):
        functional(lambda params, x: x)
    code = (
        "import sys; from jeff.program.functional import functional\n"
        "try: functional(3)\n"
        "except TypeError: print([m for m in ('haiku', 'equinox') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stderr


def test_one_trace_for_two_calls():
    apply, params, state = functional_with_state(NnxNet(nnx.Rngs(0)))
    traces = []

    @jax.jit
    def step(params, state, x):
        traces.append(1)
        return apply(params, state, x)

    _, state = step(params, state, X)
    step(params, state, X)
    assert len(traces) == 1
