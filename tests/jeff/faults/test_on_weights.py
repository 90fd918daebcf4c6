import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import stored, zoo

import jeff
from jeff import base
from jeff.faults import (
    adsaf,
    adsaf_cells,
    bit_flip,
    compose,
    lognormal,
    on_weights,
    salt_and_pepper,
    stuck_at,
)
from jeff.prng import named_key
from jeff.quantize import QuantConfig, quantize

TOP = 0.02
RNG = np.random.default_rng(0)


def _normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape, np.float32))


@pytest.fixture(scope="module")
def params():
    return {
        "up": quantize(_normal(64, 32), QuantConfig(bits=3, group_size=32)),
        "down": [_normal(32, 40)],
        "mask": jnp.array([True, False]),
    }


@pytest.fixture(scope="module")
def run(params):
    """The program of all tests: one model, with the rate traced."""

    @jax.jit
    def run(key, rate):
        model = on_weights(bit_flip(rate, max_rate=TOP))
        faults = model.sample(key, params)
        faulty = model.inject(faults, params)
        return faults, faulty, model.inject(faults, faulty)

    return run


def _same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_every_leaf_draws_as_if_it_were_alone(params, run, key):
    faults, faulty, back = run(key, TOP)
    assert list(faults.leaves) == ["down.0", "up"] and not faults.overflow
    one = bit_flip(TOP, max_rate=TOP)
    alone = one.sample(named_key(key, "down.0"), params["down"][0])
    np.testing.assert_array_equal(faults.leaves["down.0"].word, alone.word)
    codes = bit_flip(TOP, max_rate=TOP, bits=3)
    alone = codes.sample(named_key(key, "up"), params["up"].codes())
    np.testing.assert_array_equal(faults.leaves["up"].word, alone.word)
    # Without the other leaves, and in another order: the same.
    only = on_weights(one, where=["down.0"]).sample(key, params)
    np.testing.assert_array_equal(
        only.leaves["down.0"].word, faults.leaves["down.0"].word
    )
    _same(back, params)  # a flip undoes itself, in a packed weight too
    assert jax.tree.structure(faulty) == jax.tree.structure(params)


def test_codes_of_three_bits_stay_below_eight(params, run, key):
    _, faulty, _ = run(key, TOP)
    clean, codes = (np.asarray(p["up"].codes()) for p in (params, faulty))
    assert (codes != clean).any() and codes.max() < 8
    _same(
        [faulty["up"].scale, faulty["up"].zero], [params["up"].scale, params["up"].zero]
    )

    def shout(faults, codes):  # a model that knows nothing of bits
        return jnp.full_like(codes, 255)

    loud = on_weights(
        base.FaultModel(lambda key, like: jnp.zeros(()), shout), where="up"
    )
    faulty = loud.inject(loud.sample(key, params), params)
    assert (np.asarray(faulty["up"].codes()) == 7).all()


def test_faults_are_nested_in_the_rate_and_rate_0_is_the_identity(params, run, key):
    before = {}
    for rate in (0.0, 0.005, TOP):
        faults, faulty, _ = run(key, rate)
        hit = {n: np.asarray(f.word) for n, f in faults.leaves.items()}
        if rate == 0:
            _same(faulty, params)
        for name, word in hit.items():
            assert (before.get(name, 0) & ~word == 0).all()
            assert (word != 0).any() == (rate > 0)
        before = hit


def test_several_models_act_in_order_and_at_rate_0_do_nothing(key):
    w = {"w": jnp.linspace(-1.0, 2.0, 96)}
    parts = [
        lambda r: bit_flip(r, max_rate=0.5),
        lambda r: salt_and_pepper(r, max_rate=0.5),
        lambda r: stuck_at(r, max_rate=0.5),
    ]

    @jax.jit
    def run(rate):
        models = [make(rate) for make in parts]
        both = on_weights(*models)
        faults = both.sample(key, w)
        own = named_key(key, "w")
        keys = [own, named_key(own, "model", 1), named_key(own, "model", 2)]
        by_hand = w["w"]
        for model, k in zip(models, keys, strict=True):
            by_hand = model.inject(model.sample(k, w["w"]), by_hand)
        return both.inject(faults, w)["w"], by_hand, faults.overflow

    faulty, by_hand, overflow = run(0.5)
    _same(faulty, by_hand)
    assert not overflow and (np.asarray(faulty) != np.asarray(w["w"])).all()
    _same(run(0.0)[0], w["w"])
    assert compose(parts[0](0.1)).sample_each is not None


def test_a_tied_weight_is_hit_once(key):
    case = zoo.build("plain_tied_embedding")
    model = on_weights(bit_flip(0.01), where="embedding")
    faults = model.sample(key, case.params)
    assert list(faults.leaves) == ["embedding"]
    faulty = model.inject(faults, case.params)
    untied = {**case.params, "head": case.params["embedding"]}
    tied = on_weights(bit_flip(0.01), where="embedding", tied=[("embedding", "head")])
    both = tied.inject(tied.sample(key, untied), untied)
    _same([both["embedding"], both["head"]], [faulty["embedding"]] * 2)
    _same(both["mid"], case.params["mid"])


def test_stored_weights_of_any_class_are_hit_in_their_codes(key):
    w = stored.rounded(_normal(8, 4))
    assert w.code_bits == 8
    model = on_weights(adsaf(0.5))  # signed integers, which a crossbar can hold
    faulty = model.inject(model.sample(key, {"w": w}), {"w": w})["w"]
    assert isinstance(faulty, stored.Rounded)
    changed = np.asarray(faulty.integers != w.integers)
    assert changed.any() and not changed.all()
    _same(faulty.scale, w.scale)


@pytest.mark.parametrize("gradient", ["masked", "straight_through"])
def test_a_training_step_under_faults(gradient, key):
    """Soft errors in every step; masked back-propagation leaves hit weights alone."""
    x, target = _normal(32, 6), _normal(32, 3)
    params = {"w": _normal(6, 3) * 0.1}
    model = on_weights(adsaf(0.3, gradient=gradient))

    def loss(params, key):
        faults = model.sample(key, params)
        return jnp.mean((x @ model.inject(faults, params)["w"] - target) ** 2)

    @jax.jit
    def step(params, key):
        value, grads = jax.value_and_grad(loss)(params, key)
        new = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        faulty = model.inject(model.sample(key, params), params)
        return new, faulty["w"] != params["w"], value

    new, hit, before = jax.tree.map(np.asarray, step(params, key))
    moved = new["w"] != np.asarray(params["w"])
    assert hit.any()
    np.testing.assert_array_equal(moved, ~hit if gradient == "masked" else True)
    for i in range(1, 30):
        new, _, after = step(new, jax.random.fold_in(key, i))
    assert after < before


def test_bad_input_is_named(params, key):
    flip = bit_flip(0.1)
    with pytest.raises(ValueError, match="no fault model was given"):
        on_weights()
    with pytest.raises(TypeError, match="a fault model must be a FaultModel, got 0.1"):
        on_weights(0.1)
    with pytest.raises(ValueError, match="which is no leaf of params; nearest: down.0"):
        on_weights(flip, where=["down0"]).sample(key, params)
    with pytest.raises(ValueError, match="chooses no leaf of params; nearest: down"):
        on_weights(flip, where="downe").sample(key, params)
    with pytest.raises(TypeError, match="leaf 'up': like must be floating, got uint8"):
        on_weights(lognormal(0.1)).sample(key, {"up": params["up"]})
    with pytest.raises(ValueError, match="leaf 'w': bits=9 exceeds the 8 bits"):
        on_weights(bit_flip(0.1, bits=9)).sample(key, {"w": jnp.zeros(2, jnp.int8)})
    with pytest.raises(ValueError, match="groups of 2 names or more"):
        on_weights(flip, tied=["up"])
    with pytest.raises(ValueError, match="tied leaves must be alike: 'a' is float32"):
        two = {"a": jnp.zeros(2), "b": jnp.zeros(3)}
        on_weights(flip, tied=[("a", "b")]).sample(key, two)
    faults = jeff.faults.WeightFaults({"gone": None}, jnp.array(False))
    with pytest.raises(ValueError, match="faults are of leaf 'gone', not in params"):
        on_weights(flip).inject(faults, params)


def test_entries_of_a_stack_have_ranges_of_their_own(key):
    """Layers that are scanned: as if they were written out, with the same faults."""
    scale = jnp.array([1.0, 10.0, 0.1])[:, None, None]
    params = {"layers": _normal(3, 4, 4) * scale, "pairs": _normal(2, 3, 4, 5)}

    def program(p, x):
        return jax.lax.scan(lambda h, w: (h @ w, None), x, p["layers"])[0]

    sites = jeff.sites(program, params, jnp.ones((2, 4)))
    models = [adsaf(0.4), adsaf_cells(0.4), adsaf(0.4)]

    @jax.jit
    def run(key):
        whole, stacked, apart = [], [], []
        for model, stack, name in zip(
            models, (sites, ["layers"], {"pairs": 2}), ("layers", "layers", "pairs"),
            strict=True,
        ):  # fmt: skip
            plain = on_weights(model, where=name)
            faults = plain.sample(key, params)
            own = on_weights(model, where=name, stacked=stack)
            stacked.append(own.inject(own.sample(key, params), params)[name])
            whole.append(plain.inject(faults, params)[name])
            record, w = faults.leaves[name], params[name]
            lead = w.shape[: 2 if name == "pairs" else 1]
            entries = []
            for i in np.ndindex(lead):

                def part(a, i=i, w=w):
                    extra = (slice(None),) * (a.ndim - w.ndim)
                    return a[extra + i] if a.ndim else a

                entries.append(model.inject(jax.tree.map(part, record), w[i]))
            apart.append(jnp.stack(entries).reshape(w.shape))
        return whole, stacked, apart

    whole, stacked, apart = run(key)
    _same(stacked, apart)
    for one, other in zip(whole, stacked, strict=True):
        assert (np.asarray(one) != np.asarray(other)).any()


def test_bad_stacks_are_named(key):
    params, flip = {"layers": jnp.ones((2, 3))}, bit_flip(0.1)
    for stacked, error, message in (
        (["layer"], ValueError, "'layer', which is no leaf of params; nearest: layers"),
        ({"layers": 3}, ValueError, "stacked leaf 'layers' has no axis 2"),
        ({"layers": 0}, ValueError, "must be at least 1, got 0"),
        ({"layers": (0, 0)}, ValueError, "must hold different axes, got .0, 0."),
        ("layers", TypeError, "stacked must be names of leaves, .* got 'layers'"),
        ([3], TypeError, "stacked must be names of leaves"),
    ):
        with pytest.raises(error, match=message):
            on_weights(flip, stacked=stacked).sample(key, params)
    odd = base.FaultModel(lambda key, like: jnp.zeros(7), lambda faults, x: x)
    model = on_weights(odd, stacked=["layers"])
    with pytest.raises(TypeError, match=r"leaf 'layers': .* is \[7\], which does not"):
        model.inject(model.sample(key, params), params)


def test_faults_of_another_tree_are_refused(key):
    model = on_weights(bit_flip(0.1))
    one, two = {"a": jnp.zeros(3)}, {"a": jnp.zeros(3), "b": jnp.zeros(3)}
    faults = model.sample(key, one)
    with pytest.raises(ValueError, match="faults hold none of leaf 'b'"):
        model.inject(faults, two)
    with pytest.raises(ValueError, match="leaf 'a', which is not to be hit"):
        on_weights(bit_flip(0.1), where="b").inject(faults, two)
    for shape in ((5, 3), (1,), (4,)):
        with pytest.raises(ValueError, match="leaf 'a': its faults hold arrays of sh"):
            model.inject(faults, {"a": jnp.zeros(shape)})
    with pytest.raises(ValueError, match=r"leaf 'a': injection made float32\[3\]"):
        model.inject(faults, {"a": jnp.zeros(())})
    wide = model.sample(key, {"a": jnp.zeros((5, 3))})
    with pytest.raises(ValueError, match=r"leaf 'a': injection made float32\[5, 3\]"):
        model.inject(wide, one)
    with pytest.raises(TypeError, match="leaf 'a' of params must be an array, got a f"):
        on_weights(bit_flip(0.1), where=["a"]).sample(key, {"a": 1.0})


def test_errors_of_other_kinds_stay_what_they_are(key):
    class Odd(ValueError):
        def __init__(self, one, two):
            super().__init__(one)

    def inject(faults, x):
        raise Odd("odd", 2)

    model = on_weights(base.FaultModel(lambda key, like: jnp.zeros(()), inject))
    params = {"w": jnp.zeros(3)}
    with pytest.raises(Odd, match="odd") as caught:
        model.inject(model.sample(key, params), params)
    assert caught.value.__notes__ == ["in leaf 'w'"]
