import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import zoo

import jeff
from jeff import base
from jeff.faults import (
    bit_flip,
    mac_fault_rate,
    mibb,
    mibb_at_sites,
    on_features,
    salt_and_pepper,
)

RNG = np.random.default_rng(0)
STACK = jnp.asarray(RNG.standard_normal((3, 6, 6), np.float32))
X = jnp.asarray(RNG.standard_normal((4, 6), np.float32))


def _scanned(params, x):
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, params["layers"])[0]


def _written_out(params, x):
    for w in params["layers"]:
        x = jnp.tanh(x @ w)
    return x


def test_scanned_and_written_out_layers_draw_equal_faults(key):
    rule = on_features(bit_flip(0.02, nonfinite="zero"), key)
    scanned = jax.jit(jeff.rewrite(_scanned, rule))({"layers": STACK}, X)
    out = jax.jit(jeff.rewrite(_written_out, rule))({"layers": list(STACK)}, X)
    np.testing.assert_array_equal(scanned, out)
    clean = jax.jit(_scanned)({"layers": STACK}, X)
    assert (np.asarray(scanned) != np.asarray(clean)).any()


@pytest.fixture(scope="module")
def by_example():
    @jax.jit
    def run(key, rate, x, examples):
        rule = on_features(salt_and_pepper(rate), key, examples=examples)
        return jeff.rewrite(_scanned, rule)({"layers": STACK}, x)

    return run


def test_examples_draw_for_themselves_whatever_the_batch(by_example, key):
    """One example: not its place, not the others, not the batch's size."""
    numbers = jnp.array([7, 3, 12, 5], jnp.int32)
    whole = by_example(key, 0.3, X, numbers)
    turned = by_example(key, 0.3, X[::-1], numbers[::-1])
    np.testing.assert_allclose(turned[::-1], whole, atol=1e-6)
    single = by_example(key, 0.3, X[2:3], numbers[2:3])
    np.testing.assert_allclose(single[0], whole[2], atol=1e-6)
    other = by_example(key, 0.3, X, numbers.at[2].set(13))
    assert (np.asarray(other[2]) != np.asarray(whole[2])).any()
    np.testing.assert_array_equal(other[:2], whole[:2])


def test_rate_0_is_the_clean_program_and_draws_do_not_depend_on_other_sites(key):
    # Whole numbers: XLA sums in another order where a product is fused with a flip.
    params = {"up": jnp.round(3 * STACK[0]), "down": jnp.round(3 * STACK[1])}
    x = jnp.round(3 * X)

    def apply(p, x):
        return jnp.maximum(x @ p["up"], 0) @ p["down"]

    @jax.jit
    def run(rate):
        model = bit_flip(rate, max_rate=0.1)
        both = jeff.rewrite(apply, on_features(model, key))
        last = jeff.rewrite(apply, on_features(model, key, "down"))
        return both(params, x), last(params, x), apply(params, x)

    both, last, clean = run(0.0)
    np.testing.assert_array_equal(both, clean)
    np.testing.assert_array_equal(last, clean)
    # The words that hit `down` are the same with and without faults in `up`.
    site = jeff.sites(apply, params, x)[1]
    faults = bit_flip(0.1, max_rate=0.1).sample(site.key(key), clean)
    _, last, _ = run(0.1)
    expected = jax.lax.bitcast_convert_type(clean, jnp.uint32) ^ faults.word
    np.testing.assert_array_equal(
        jax.lax.bitcast_convert_type(last, jnp.uint32), expected
    )


def test_op_aware_rates_follow_the_site(key):
    """Every product is asked for a model of its own, look-ups are not."""
    seen = {}

    def spy(site):
        model = mibb_at_sites(3e-3)(site)
        if model is not None:
            seen[site.name] = model
        return model

    case = zoo.build("plain_tied_embedding")
    run = jeff.rewrite(case.apply, on_features(spy, key))
    jax.eval_shape(run, case.params, *case.inputs)
    sites = jeff.sites(case.apply, case.params, *case.inputs)
    products = [site.name for site in sites if site.kind != "lookup"]
    assert sorted(seen) == sorted(products) and len(products) < len(sites)
    big = jeff.rewrite(
        lambda w, x: x @ w, on_features(mibb_at_sites(3e-3, tree_width=9), key)
    )
    y = jax.jit(big)(jnp.ones((40, 50)), jnp.ones((200, 40)))
    # A tree of 9 inputs used 5 times has two more low bits: rate (8 + 2) / 8 as large.
    rate = float(mac_fault_rate(3e-3, 9)) * 10 / 8
    changed = (np.asarray(y) != 40).mean()
    # A bias is floored to a whole number of steps, and none is 0.
    assert abs(changed - rate) < 4 * np.sqrt(rate / y.size)


def test_an_overflow_is_told_by_nan(key):
    class Faults(dict):
        overflow = jnp.array(True)

    broken = base.FaultModel(lambda key, like: Faults(), lambda faults, y: y)
    run = jeff.rewrite(lambda w, x: x @ w, on_features(broken, key))
    assert np.isnan(run(STACK[0], X)).all()
    for dtype, lost in (("int8", -128), ("uint8", 255)):
        w, x = jnp.ones((6, 2), dtype), jnp.ones((1, 6), dtype)
        assert (run(w, x) == lost).all()
    with pytest.raises(TypeError, match="output of site '' must be floating or i"):
        run(jnp.ones((6, 2), "complex64"), jnp.ones((1, 6), "complex64"))


def test_vmap_over_keys_and_gradients(key):
    keys = jax.random.split(key, 3)

    def loss(key, params, x):
        rule = on_features(mibb(0.3), key)
        return jeff.rewrite(lambda w, x: x @ w, rule)(params, x)

    @jax.jit
    def run(w):
        many = jax.vmap(loss, (0, None, None))(keys, w, X)
        grad = jax.grad(lambda w: loss(keys[1], w, X).sum())(w)
        return many, loss(keys[1], w, X), grad

    many, one, grad = run(STACK[0])
    np.testing.assert_array_equal(many[1], one)
    # Straight-through: but for outputs that left the range, x summed over the batch.
    assert np.isfinite(grad).all() and (np.asarray(grad) != 0).any()


def test_bad_input_is_named(key):
    sites = jeff.sites(_scanned, {"layers": STACK}, X)
    with pytest.raises(ValueError, match="'layer', which is no site; nearest: layers"):
        on_features(bit_flip(0.1), key, ["layer"], sites=sites)
    with pytest.raises(ValueError, match="where='conv' chooses no site"):
        on_features(bit_flip(0.1), key, "conv", sites=sites)
    with pytest.raises(TypeError, match="model must be a FaultModel or a function"):
        on_features(0.1, key)
    with pytest.raises(ValueError, match="examples must be of one axis"):
        on_features(bit_flip(0.1), key, examples=jnp.zeros((2, 2), jnp.int32))
    rule = on_features(bit_flip(0.1), key, examples=jnp.arange(3))
    with pytest.raises(ValueError, match=r"3 entries, .* site 'layers' is \[4, 6\]"):
        jeff.rewrite(_scanned, rule)({"layers": STACK}, X)
    with pytest.raises(TypeError, match="macs comes from the site"):
        mibb_at_sites(0.1, macs=3)
    with pytest.raises(ValueError, match="rate must be in"):
        mibb_at_sites(1.1)


def test_every_kind_of_product_is_hit_at_its_own_rate(key):
    """Spec, test 1: 1 - (1 - p)^n at a convolution, a depthwise one, a dense layer."""
    p = 3e-3
    params = {
        "conv": jnp.ones((8, 4, 3, 3)),
        "depthwise": jnp.ones((8, 1, 3, 3)),
        "dense": jnp.ones((8, 50)),
    }

    def apply(params, x):
        for name, groups in (("conv", 1), ("depthwise", 8)):
            x = jax.lax.conv_general_dilated(
                x, params[name], (1, 1), "SAME", feature_group_count=groups
            )
        return jnp.moveaxis(x, 1, -1) @ params["dense"]

    x = jnp.ones((10, 4, 32, 32))
    faults = {}

    def spied(site):
        model = mibb_at_sites(p)(site)
        if model is None:
            return None

        def sample(key, like):
            faults[site.name] = model.sample(key, like)
            return faults[site.name]

        return base.FaultModel(sample, model.inject)

    @jax.jit
    def hits(key):
        faults.clear()
        jeff.rewrite(apply, on_features(spied, key))(params, x)
        return {name: f.hit for name, f in faults.items()}

    drawn = hits(key)
    counts = {"conv": 36, "depthwise": 9, "dense": 8}
    assert sorted(drawn) == sorted(counts)
    for name, n in counts.items():
        hit, rate = np.asarray(drawn[name]), 1 - (1 - p) ** n
        bound = 4 * np.sqrt(rate * (1 - rate) / hit.size)
        assert hit.size > 80_000 and abs(hit.mean() - rate) < bound


def test_a_choice_that_fits_no_site_is_refused_when_the_program_is_traced(key):
    for where, message in (
        (["layer"], "where names 'layer', which is no site; nearest: layers"),
        ("conv", "where='conv' chooses no site"),
        (lambda name, site: False, "chooses no site; there are layers"),
    ):
        rule = on_features(bit_flip(0.1), key, where)
        with pytest.raises(ValueError, match=message):
            jeff.rewrite(_scanned, rule)({"layers": STACK}, X)
