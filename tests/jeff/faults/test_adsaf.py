import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jeff.faults import StuckBits, StuckCells, adsaf, adsaf_cells, mask

NONE = jnp.array(False)


def _oracle(w, positive, negative):
    """The equations of the whole-magnitude cell, one weight at a time."""
    largest = np.abs(w).max()
    out = w.copy()
    for i in range(len(w)):
        if positive[i] == 2:
            out[i] = min(max(out[i] + largest, -largest), largest)
        elif positive[i] == 1 and out[i] > 0:
            out[i] = 0
        if negative[i] == 2:
            out[i] = min(max(out[i] - largest, -largest), largest)
        elif negative[i] == 1 and out[i] < 0:
            out[i] = 0
    return out


def test_whole_cells_agree_with_the_equations_for_every_pair_of_faults():
    """Spec, test 2: element by element, with supplied draws."""
    weights = np.array([0.5, -1.0, 0.25, 0.0, -0.75], np.float32)
    pairs = np.indices((3, 3)).reshape(2, -1)
    w = np.tile(weights, 9)
    positive, negative = (np.repeat(p, 5).astype(np.uint8) for p in pairs)
    faults = StuckCells(jnp.asarray(positive), jnp.asarray(negative), NONE)
    faulty = jax.jit(adsaf(0.1).inject)(faults, jnp.asarray(w))
    np.testing.assert_array_equal(faulty, _oracle(w, positive, negative))


def test_both_cells_may_be_the_same_array():
    w = jnp.array([0.5, -1.0, 0.25, -0.75])
    cell = jnp.array([1, 1, 2, 2], jnp.uint8)
    inject = adsaf(0.1).inject
    expected = _oracle(np.asarray(w), np.asarray(cell), np.asarray(cell))
    same = StuckCells(cell, cell, NONE)
    np.testing.assert_array_equal(inject(same, w), expected)
    np.testing.assert_array_equal(jax.jit(inject)(same, w), expected)


def test_infinities_and_nan_pass_and_do_not_set_the_range():
    w = jnp.array([0.5, jnp.inf, -0.75, jnp.nan, -jnp.inf])
    ones = jnp.full(5, 2, jnp.uint8)
    faulty = jax.jit(adsaf(0.1).inject)(StuckCells(ones, ones * 0, NONE), w)
    np.testing.assert_array_equal(faulty, [0.75, jnp.inf, 0.0, jnp.nan, -jnp.inf])
    stuck = jnp.ones((2, 5), jnp.uint8).at[1].set(0)  # step = 1 / 128
    cells = jax.jit(adsaf_cells(0.1).inject)(StuckBits(stuck, stuck, NONE), w)
    expected = [65 / 128, jnp.inf, -95 / 128, jnp.nan, -jnp.inf]
    np.testing.assert_array_equal(cells, expected)


def test_rates_shares_and_the_fraction_of_changed_weights(key):
    n, p, share = 40_000, 0.08, 0.163
    w = jnp.asarray(np.random.default_rng(0).standard_normal(n, np.float32))
    model = adsaf(p)

    @jax.jit
    def run(w):
        faults = model.sample(key, w)
        return faults, (model.inject(faults, w) != w).mean()

    faults, changed = run(w)
    for cell in (faults.positive, faults.negative):
        for kind, rate in ((1, p * (1 - share)), (2, p * share)):
            count = int((np.asarray(cell) == kind).sum())
            assert abs(count - n * rate) < 4 * math.sqrt(n * rate * (1 - rate))
    # The own cell's fault, or SAF1 of the other polarity. (Of weights whose own cell is
    # SAF1, none but the largest is left as it was.)
    expected = 1 - (1 - p) * (1 - share * p)
    assert abs(changed - expected) < 4 * math.sqrt(expected / n) + p * share * p


def test_rate_0_is_the_identity_and_lower_rates_hit_a_subset(key):
    w = jnp.tile(jnp.array([-0.0, 0.0, 1.5, -2.0, jnp.pi], jnp.bfloat16), 400)

    @jax.jit
    def run(rate):
        model = adsaf(rate, max_rate=0.1)
        faults = model.sample(key, w)
        return faults, model.inject(faults, w)

    (_, same), (low, _), (high, _) = run(0.0), run(0.05), run(0.1)
    assert same.dtype == w.dtype
    np.testing.assert_array_equal(same.view(jnp.uint16), w.view(jnp.uint16))
    low, high = np.asarray(low.positive), np.asarray(high.positive)
    hit = low > 0
    np.testing.assert_array_equal(low[hit], high[hit])
    assert (high > 0).sum() > hit.sum() > 0


def test_gradients_stop_where_a_fault_acts():
    w = jnp.array([0.5, 0.5, -0.5, 0.5, 1.0])
    faults = StuckCells(
        jnp.array([1, 2, 1, 0, 0], jnp.uint8), jnp.zeros(5, jnp.uint8), NONE
    )
    for gradient, expected in (
        ("masked", [0, 0, 1, 1, 1]),  # SAF0 of the empty polarity changes nothing
        ("straight_through", [1, 1, 1, 1, 1]),
    ):
        inject = adsaf(0.1, gradient=gradient).inject
        grad = jax.jit(jax.grad(lambda w, inject=inject: inject(faults, w).sum()))(w)
        np.testing.assert_array_equal(grad, expected)


def test_quirks_of_the_original_program(key):
    n = 100_000
    for quirks, share in ((True, 0.17), (False, 0.163)):
        faults = adsaf(1.0, reference_quirks=quirks).sample(key, jnp.zeros(n))
        cells = np.stack([faults.positive, faults.negative])
        assert (cells > 0).all()
        # A standard deviation of the share is 0.00084, an eighth of the difference.
        deviation = math.sqrt(share * (1 - share) / (2 * n))
        assert abs((cells == 2).mean() - share) < 4 * deviation
    faults = adsaf(0.7, reference_quirks=True).sample(key, jnp.zeros(n))
    hit, as_asked = (mask(key, p, (2, n), method="dense").hit for p in (100 / 142, 0.7))
    np.testing.assert_array_equal(np.stack([faults.positive, faults.negative]) > 0, hit)
    assert (hit != as_asked).any()
    with pytest.raises(ValueError, match="saf1_share must be 0.163 with"):
        adsaf(0.1, saf1_share=0.2, reference_quirks=True)


@pytest.mark.parametrize("rate", [1e-9, 1.0])
def test_the_original_program_only_switches_single_bit_cells_on(rate, key):
    """Quirk Q6: a rate of 0.1, a share of 0.16, and no gradient."""
    w = jnp.linspace(-1.0, 0.9, 10_000)
    model = adsaf_cells(rate, reference_quirks=True, gradient="straight_through")
    faults = model.sample(key, w)
    as_quirk = adsaf_cells(0.1, saf1_share=0.16).sample(key, w)
    np.testing.assert_array_equal(faults.stuck, as_quirk.stuck)
    np.testing.assert_array_equal(faults.value, as_quirk.value)
    assert (faults.value != adsaf_cells(0.1).sample(key, w).value).any()
    grad = jax.jit(jax.grad(lambda w: model.inject(faults, w).sum()))(w)
    assert not grad.any()


def test_the_switch_of_the_original_program_may_be_traced(key):
    like = jnp.zeros(100)

    @jax.jit
    def sample(rate):
        model = adsaf_cells(rate, reference_quirks=True, max_rate=0.5)
        faults = model.sample(key, like)
        return faults.stuck, faults.overflow

    known = adsaf_cells(0.3, reference_quirks=True).sample(key, like).stuck
    stuck, overflow = sample(0.3)
    np.testing.assert_array_equal(stuck, known)
    assert known.any() and not sample(0.0)[0].any() and not overflow
    for wrong in (0.6, -0.1, float("nan")):
        assert sample(wrong)[1], wrong
    for setting in ({"cell_bits": 2}, {"saf1_share": 0.2}):
        (name,) = setting
        with pytest.raises(ValueError, match=f"{name} must be .* with reference_quirk"):
            adsaf_cells(0.1, reference_quirks=True, **setting)


def test_single_bit_cells_agree_with_the_formula_for_every_code_mask_and_value():
    """Spec, test 2: all 256 codes x 128 masks x 128 stuck values, in NumPy.

    Each array of the pair gets every mask with every value, and one array at any time
    others than the other.
    """
    codes = np.arange(-128, 128)
    w = jnp.asarray(codes / 128, jnp.float32)  # step 1 / 128
    inject = adsaf_cells(0.1).inject
    first = np.arange(2**14)
    pairs = np.stack([first, (5 * first + 37) % 2**14], 1)  # a permutation of them
    assert (np.diff(pairs) != 0).all() and len(set(pairs[:, 1].tolist())) == 2**14
    mask, value = (a.astype(np.uint8) for a in (pairs >> 7, pairs & 127))

    @jax.jit
    def every(stuck, value):
        def one(f, s):
            ones = jnp.ones((1, codes.size), jnp.uint8)
            return inject(StuckBits(f[:, None] * ones, s[:, None] * ones, NONE), w)

        return jax.vmap(one)(stuck, value)

    faulty = np.asarray(every(jnp.asarray(mask), jnp.asarray(value)) * 128)
    # 128 steps do not fit 7 bits: the code -128 is held as -127.
    held = np.maximum(codes, 0), np.minimum(np.maximum(-codes, 0), 127)
    f, s = mask[..., None].astype(int), value[..., None].astype(int)
    positive, negative = ((s[:, i] & f[:, i]) | (held[i] & ~f[:, i]) for i in range(2))
    np.testing.assert_array_equal(faulty, positive - negative)


def test_cells_of_several_bits_are_stuck_as_a_whole(key):
    for bits, cell_bits, cells in ((12, 4, 3),):
        model = adsaf_cells(0.5, bits=bits, cell_bits=cell_bits)
        faults = jax.jit(lambda k, m=model: m.sample(k, jnp.zeros(300)))(key)
        stuck, value = np.asarray(faults.stuck), np.asarray(faults.value)
        assert stuck.shape == (2, 300) and stuck.max() < 2 ** (bits - 1)
        for i in range(cells):
            ones = (2**cell_bits - 1) << i * cell_bits & (2 ** (bits - 1) - 1)
            assert set(np.unique(stuck & ones)) == {0, ones}
            assert set(np.unique(value & ones)) == {0, ones}
        assert (value & ~stuck == 0).all()


def test_cells_cut_towards_zero_saturate_and_stop_gradients():
    w = jnp.array([1.0, 0.3, -0.3, -1.0])  # step 1/8; 8 steps do not fit 3 bits
    model = adsaf_cells(0.0, bits=4)
    zeros = jnp.zeros((2, 4), jnp.uint8)
    cut = jax.jit(model.inject)(StuckBits(zeros, zeros, NONE), w)
    np.testing.assert_array_equal(cut, [0.875, 0.25, -0.25, -0.875])
    faults = StuckBits(jnp.array([[1, 2, 0, 0], [0, 0, 2, 0]], jnp.uint8), zeros, NONE)
    grad = jax.jit(jax.grad(lambda w: model.inject(faults, w).sum()))(w)
    np.testing.assert_array_equal(grad, [0, 0, 0, 1])


def test_signed_integers_are_codes_of_a_differential_pair():
    """Both models on int8 against themselves on the same values as float32."""
    codes = np.concatenate([np.arange(-127, 128), [64] * 17]).astype(np.int8)
    rng = np.random.default_rng(0)
    cells = StuckCells(
        *jnp.asarray(rng.integers(0, 3, (2, codes.size)), jnp.uint8), NONE
    )
    stuck = rng.integers(0, 128, (2, codes.size)).astype(np.uint8)
    value = stuck & rng.integers(0, 128, stuck.shape).astype(np.uint8)
    bits = StuckBits(jnp.asarray(stuck), jnp.asarray(value), NONE)
    for model, faults in ((adsaf(0.1), cells), (adsaf_cells(0.1), bits)):
        inject = jax.jit(model.inject)
        faulty = inject(faults, jnp.asarray(codes))
        assert faulty.dtype == jnp.int8
        dense = np.asarray(inject(faults, jnp.asarray(codes / 128, jnp.float32))) * 128
        np.testing.assert_array_equal(faulty, dense)


def test_bad_input_is_named(key):
    for make in (adsaf, adsaf_cells):
        with pytest.raises(ValueError, match="rate must be in .0, 1., got nan"):
            make(float("nan"))
        with pytest.raises(ValueError, match="saf1_share must be in .0, 1., got 3"):
            make(0.1, saf1_share=3)
        with pytest.raises(TypeError, match="got uint8 .*decoded first: jeff.decoded"):
            make(0.1).sample(key, jnp.zeros(2, jnp.uint8))
    for wrong in (8, True):
        with pytest.raises(ValueError, match=f"cell_bits must be .* to 7, got {wrong}"):
            adsaf_cells(0.1, cell_bits=wrong)
    narrow, none = jnp.zeros(2, jnp.int4), jnp.zeros((2, 2), jnp.uint8)
    for use in (
        lambda model: model.sample(key, narrow),
        lambda model: model.inject(StuckBits(none, none, NONE), narrow),
    ):
        with pytest.raises(ValueError, match="bits=8 exceeds the 4 bits of int4"):
            use(adsaf_cells(0.1))
        use(adsaf_cells(0.1, bits=4))
