"""Programs that use weights in parts, in loops or in functions of their own.

In every exact mode a voter is the plain program with weights drawn whole.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.draws import light

from jeff import dm_bnn, tree
from jeff.dm_bnn.arrange import arrange
from jeff.dm_bnn.rule import Drawing, draw_leaf

KEY = jax.random.key(3)
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4)), jnp.float32)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def through(x, stack, layer=lambda x, w: jnp.tanh(x @ w)):
    return jax.lax.scan(lambda x, w: (layer(x, w), None), x, stack)[0]


@jax.custom_jvp
def squared(x, w):
    return (x @ w) ** 2


squared.defjvp(lambda values, tangents: (squared(*values), tangents[0] @ values[1]))


@jax.jit
def both(x):
    """Voters of a program of many parts, and what the plain program makes of them."""

    def program(p, x):
        x = jnp.tanh(x @ p["halves"][:, :4]) * (x @ p["halves"][:, 4:])
        x = through(through(x, p["stack"][:2]), p["stack"][2:])
        x = through(x, p["normed"], lambda x, w: x @ w / jnp.linalg.norm(w))
        x = squared(x, p["custom"])
        return x @ (p["base"] + p["low"][0][:, None] * p["low"][1])

    params = {
        "halves": normal(4, 8),
        "stack": normal(3, 4, 4),
        "normed": normal(2, 4, 4),
        "custom": normal(4, 4),
        "base": normal(4, 4),  # not random
        "low": normal(2, 4),
    }
    random = dm_bnn.posterior(params, 0.3, where=lambda name, _: name != "base")
    settings = {"voters": 2, "mode": "naive"}
    plan = arrange(program, random, x, **settings)
    got = dm_bnn.predict(program, random, x, KEY, draw=light, **settings)

    def drawn(number):
        def draw(name, w):
            if not isinstance(w, dm_bnn.MeanField):
                return w
            leaf = plan.levels.leaves[name]
            return draw_leaf(KEY, name, w, leaf, indices, Drawing(1, False, light, 64))

        indices = (number, *[None] * (plan.levels.number - 1))
        return program(tree.map_with_path(draw, random), x)

    return got, jnp.stack([drawn(0), drawn(1)])


def test_voters_are_the_plain_program_with_drawn_weights():
    got, wanted = both(X)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    assert np.abs(got[0] - got[1]).max() > 1e-3


PARTS = "used in parts or in another order"


@pytest.mark.parametrize(
    ("program", "shape", "why"),
    [
        (lambda w, x: x @ w[:, :3] + x @ w[:, 3:], (4, 6), PARTS),
        (lambda w, x: sum(x @ a for a in jnp.split(w, 2, 1)), (4, 6), PARTS),
        (lambda w, x: x @ w.reshape(4, 4), (2, 8), PARTS),
        (lambda w, x: x @ jnp.broadcast_to(w, (4, 5)), (1, 5), PARTS),
        (lambda w, x: (x @ w[0]) @ w[1], (2, 4, 4), PARTS),
        (lambda w, x: through(through(x, w[:2]), w[2:]), (4, 4, 4), PARTS),
        (lambda w, x: through(x, w.reshape(6, 4, 4)), (2, 3, 4, 4), PARTS),
        (
            lambda w, x: through(x, w.swapaxes(0, 1), through),
            (2, 3, 4, 4),
            PARTS,
        ),
        (
            lambda w, x: jax.lax.fori_loop(0, 4, lambda i, x: x @ w[i // 2], x),
            (2, 4, 4),
            "changed at dynamic_slice",
        ),
        (
            lambda w, x: through(x, w, lambda x, w: x @ w + w[0]),
            (3, 4, 4),
            "used at add",
        ),
        (
            lambda w, x: squared(x, w),
            (4, 4),
            "used in a function with a derivative of its own",
        ),
        (lambda w, x: through(x, w), (3, 4, 4), ""),
        (lambda w, x: jax.checkpoint(jnp.matmul)(x, w), (4, 4), ""),
        (lambda w, x: jnp.tanh(x @ w.T) @ w.T, (4, 4), ""),
    ],
)
def test_only_weights_used_as_they_are_stored_are_left_to_a_rule(program, shape, why):
    random = dm_bnn.posterior(jnp.ones(shape), 0.1)
    plan = arrange(program, random, X, voters=1, mode="naive")
    assert plan.ways.whole.get("", "") == why
    assert (
        arrange(program, random, X, voters=1, mode="flipout").ways.whole
        == plan.ways.whole
    )


def test_a_weight_that_no_rule_reaches_does_not_become_its_mean():
    def program(w, x):
        return x @ jax.checkpoint(jnp.transpose)(w)

    random = dm_bnn.posterior(jnp.ones((3, 4)), 0.1)
    with pytest.raises(NotImplementedError, match="leaf '' is used where no rule"):
        dm_bnn.predict(program, random, X, KEY, voters=1, draw=light)


def test_vectors_of_scanned_layers_are_drawn_as_if_written_out():
    stacked = dm_bnn.posterior({"b": jnp.ones((4, 3))}, 0.1)  # layers on the last axis
    listed = dm_bnn.posterior({"b": [jnp.ones(4)] * 3}, 0.1)

    def scanned(p, x):
        return through(x, p["b"].T, lambda x, b: 2 * x + b)

    def written_out(p, x):
        for b in p["b"]:
            x = 2 * x + b
        return x

    @jax.jit
    def voters(x):
        return [
            dm_bnn.predict(program, random, x, KEY, voters=2, draw=light)
            for program, random in ((scanned, stacked), (written_out, listed))
        ]

    np.testing.assert_allclose(*voters(X), rtol=1e-6)


@pytest.mark.parametrize("mode", ["lrt", "flipout"])
def test_rows_that_are_not_examples_are_refused(mode):
    def tokens(w, x):
        return x.reshape(-1, 4) @ w

    random = dm_bnn.posterior(jnp.ones((4, 3)), 0.1)
    with pytest.raises(ValueError, match=r"its input \(10, 4\) does not have the exa"):
        arrange(tokens, random, X[:, None].repeat(5, 1), voters=1, mode=mode)
    # What is random there is drawn whole, whatever else the product is made of.
    params = {"base": jnp.ones((4, 3)), "change": jnp.ones((4, 3))}
    random = dm_bnn.posterior(params, 0.1, where=lambda name, _: name == "change")
    found = arrange(
        lambda p, x: tokens(p["base"] + p["change"], x),
        random,
        X[:, None].repeat(5, 1),
        voters=1,
        mode=mode,
    )
    assert set(found.ways.whole) == {"change"} and not found.ways.sites


def test_flipout_has_one_kernel_for_all_positions_in_any_layout():
    def conv(w, x):
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME")

    random = dm_bnn.posterior(jnp.ones((3, 2, 1, 1)), 0.5)
    x = jnp.ones((2, 2, 4, 4))  # all positions alike
    y = dm_bnn.predict(conv, random, x, KEY, voters=1, mode="flipout", draw=light)[0]
    np.testing.assert_array_equal(y, np.broadcast_to(y[..., :1, :1], y.shape))
    assert np.abs(y[0] - y[1]).max() > 1e-3


def test_local_reparameterisation_at_std_0_and_nan():
    def loss(w):
        return dm_bnn.predict(
            lambda w, x: x @ w, w, X, KEY, voters=1, mode="lrt", draw=light
        ).sum()

    certain = dm_bnn.MeanField(jnp.ones((4, 3)), jnp.zeros((4, 3)))
    slope = jax.grad(loss)(certain)
    np.testing.assert_allclose(slope.mean, X.sum(0)[:, None].repeat(3, 1), rtol=1e-6)
    np.testing.assert_array_equal(slope.std, 0)
    # A damaged standard deviation shows.
    assert np.isnan(loss(dm_bnn.MeanField(certain.mean, certain.std + jnp.nan)))


def test_a_wide_output_of_narrow_operands_keeps_its_digits():
    def product(w, x):
        return jnp.dot(x, w, preferred_element_type=jnp.float32)

    w = dm_bnn.MeanField(jnp.full((4, 1), 1 + 2**-7), jnp.zeros((4, 1)))
    w = jax.tree.map(lambda a: a.astype(jnp.bfloat16), w)
    x = jnp.array([[1, 1, 1, 2**-7]], jnp.bfloat16)
    y = dm_bnn.predict(product, w, x, KEY, voters=1, mode="naive", draw=light)
    assert float(y[0, 0, 0]) == (1 + 2**-7) * (3 + 2**-7)


def test_the_plan_of_a_deep_tree_does_not_try_all_roundings():
    cost = dm_bnn.TreeCost(0.0, (1.0,) * 60)
    variances = [1.5**i for i in range(60)]
    budget = 1e14
    plan = dm_bnn.plan_voters(cost, variances, budget)
    relaxed = dm_bnn.variance_of_mean(variances, plan.relaxed)
    assert plan.cost <= budget and plan.variance < 1.5 * relaxed


def test_shared_noise_has_no_cost_per_branch():
    random = dm_bnn.posterior(jnp.ones((4, 3)), 0.1)
    with pytest.raises(ValueError, match="shared noise is paid for once per level"):
        dm_bnn.tree_cost(jnp.matmul, random, X, levels=1, mode="dm", shared=True)


def test_what_becomes_random():
    w = jnp.ones((4, 3))
    assert dm_bnn.posterior({"w": w}, np.float32(0.1))["w"].std[0, 0] == np.float32(0.1)
    random = dm_bnn.posterior({"w": w}, 0.1)
    assert dm_bnn.posterior(random, 0.5)["w"] is random["w"]
    with pytest.raises(TypeError, match="'w' is MeanField of float32"):
        dm_bnn.posterior(random, 0.5, where=lambda *_: True)
    with pytest.raises(ValueError, match=r"std of 'w' has shape \(2,\), the leaf \(4"):
        dm_bnn.posterior({"w": w}, {"w": jnp.ones(2)})
