"""Campaigns by strata and by importance, through `run`, against every single fault."""

import jax
import numpy as np
import pytest
from support import fault_nets, oracle_net, sweep_case

from jeff.prng import named_key
from jeff.sweep import (
    Plan,
    allocate,
    best_proposal,
    importance_campaign,
    outcome,
    pilot_rates,
    prefix,
    run,
    stratified_campaign,
    stratified_estimate,
    stratified_variance,
    weighted_estimate,
)
from jeff.sweep import enumerate_faults as faults_of
from jeff.sweep.single_flips.each_kind import run_each_kind
from jeff.sweep.single_flips.injected import (
    drawn_kind_trial,
    given_kind_trial,
    values_of,
)
from jeff.sweep.single_flips.kinds import fault_kinds

KEY = jax.random.key(11)
BUDGET, REPEATS = 400, 200
HOW = {"batch": oracle_net.IMAGES, "plan": "map", "devices": 1}


@pytest.fixture(scope="module")
def net():
    return oracle_net.oracle()


@pytest.fixture(scope="module")
def truth():
    return oracle_net.truth()


def numbers(net, stats):
    """Which faults were injected."""
    return net.space.number(*stats.fault)


def true_rates(net, truth, kinds):
    """Event rate of every kind."""
    bits = np.cumsum([0, *net.space.bits])
    kind_of = np.array([kind for kind, *_ in sorted(kinds.cells, key=lambda c: c[1:])])
    located = net.space.locate(np.arange(len(truth)))
    kind = kind_of[bits[located.leaf] + located.bit]
    return np.array([truth[kind == k].mean() for k in range(len(kinds))]), kind


def test_strata_scatter_as_their_allocation_says(net, truth):
    """200 campaigns of 400 injections each, in one sweep."""
    kinds = fault_kinds(net.space, net.params, "layer_bit")
    rates, kind_of = true_rates(net, truth, kinds)
    trials = allocate(kinds.sizes, BUDGET, rates=rates.clip(0.02, 0.98))
    trial = given_kind_trial(net.apply, net.params, kinds, outcome)
    result, values = run_each_kind(
        trial, net.data, KEY, "main", REPEATS * trials, "changed", None,
        HOW | {"unit": 400},
    )  # fmt: skip
    for kind in range(16):  # what was injected, and that it does what it should
        stats = result.rate_point(kind, 0)
        number = numbers(net, stats)
        assert (kind_of[number] == kind).all() and (stats.kind == kind).all()
        assert ((stats.outcome.changed > 0) == truth[number]).all()
        assert (stats.outcome.images == oracle_net.IMAGES).all()
    events = [v.reshape(REPEATS, -1).sum(1) for v in values]
    found = [stratified_estimate(kinds.sizes, k, trials) for k in np.transpose(events)]
    rate = truth.mean()
    variance = stratified_variance(kinds.sizes, rates, trials)
    assert variance < 0.5 * rate * (1 - rate) / BUDGET  # of a plain sample's
    covered = [f.rate.low <= rate <= f.rate.high for f in found]
    oracle_net.brackets([f.rate.value for f in found], rate, variance, covered)
    # Strata of one leaf must not share words: sums of variances need independence.
    first, second = (numbers(net, result.rate_point(k, 0))[:500] // 8 for k in (0, 1))
    assert (first == second).mean() < 0.05


def test_a_proposal_scatters_as_it_says(net, truth):
    kinds = fault_kinds(net.space, net.params, "bit")
    rates, kind_of = true_rates(net, truth, kinds)
    target = kinds.target
    q = best_proposal(target, rates)
    main = run(
        drawn_kind_trial(net.apply, net.params, kinds, q, outcome),
        named_key(KEY, "main"), rates=[1.0], trials=REPEATS * BUDGET, data=net.data,
        unit=400, **HOW,
    ).rate_point(0, 0)  # fmt: skip
    assert ((main.outcome.changed > 0) == truth[numbers(net, main)]).all()
    assert (kind_of[numbers(net, main)] == main.kind).all()
    shares = np.bincount(main.kind, minlength=8) / len(main.kind)
    # 4 standard deviations of a share.
    assert (np.abs(shares - q) < 4 * np.sqrt(q * (1 - q) / len(main.kind))).all()
    events = (main.outcome.changed > 0).reshape(REPEATS, BUDGET)
    found = [
        weighted_estimate(e, k, target=target, proposal=q)
        for e, k in zip(events, main.kind.reshape(REPEATS, BUDGET), strict=True)
    ]
    rate = truth.mean()
    variance = ((target**2 / q * rates).sum() - rate**2) / BUDGET
    assert variance < 0.5 * rate * (1 - rate) / BUDGET
    covered = [f.mean.low <= rate <= f.mean.high for f in found]
    oracle_net.brackets([f.mean.value for f in found], rate, variance, covered)


@pytest.fixture(scope="module")
def stratified(net, tmp_path_factory):
    """A whole campaign, the folder it left, and how often it compiled."""
    folder = tmp_path_factory.mktemp("strata")
    with sweep_case.compilations() as compiled:
        found = stratified_campaign(
            net.space, net.apply, net.params, net.data, KEY, budget=BUDGET, pilot=10,
            directory=folder, **HOW,
        )  # fmt: skip
    return found, folder, compiled.count("jit(unit)")


def same(one, other):
    assert one.estimate == other.estimate
    assert (one.trials == other.trials).all() and (one.rates == other.rates).all()


def test_a_stratified_campaign_is_pilot_allocation_main_run(net, truth, stratified):
    found, _, compilations = stratified
    assert compilations == 2  # one for each run, not one for each stratum
    kinds = fault_kinds(net.space, net.params, "layer_bit")
    hits = [(found.pilot.rate_point(k, 0).outcome.changed > 0).sum() for k in range(16)]
    np.testing.assert_array_equal(found.rates, pilot_rates(hits, [10] * 16))
    np.testing.assert_array_equal(
        found.trials, allocate(kinds.sizes, BUDGET, rates=found.rates)
    )
    events = []
    for kind, count in enumerate(found.trials):
        done = found.main.trials_done[kind, 0]
        assert count <= done < count + found.main.plan.unit
        number = numbers(net, found.main.rate_point(kind, 0))[:count]
        events.append(truth[number].sum())
        pilot = numbers(net, found.pilot.rate_point(kind, 0))
        assert (pilot[:3] != number[:3]).any()  # other keys
    assert found.estimate == stratified_estimate(
        kinds.sizes, events, found.trials, names=kinds.names
    )
    assert found.estimate.rate.trials == BUDGET
    assert found.estimate.rate.low < truth.mean() < found.estimate.rate.high


def test_it_goes_on_in_its_folder_and_does_not_depend_on_units(net, stratified):
    found, folder, _ = stratified
    arguments = (net.space, net.apply, net.params, net.data, KEY)
    units = sorted((folder / "main" / "units").iterdir())
    kept = units[-1].read_bytes()
    units[-1].unlink()
    again = stratified_campaign(
        *arguments, budget=BUDGET, pilot=10, directory=folder, chunk=1, **HOW
    )
    same(again, found)
    assert units[-1].read_bytes() == kept
    other = HOW | {"unit": 16, "batch": 5, "plan": "vmap"}
    same(stratified_campaign(*arguments, budget=BUDGET, pilot=10, **other), found)
    with pytest.raises(ValueError, match="trials: 10 .* 5 "):
        stratified_campaign(*arguments, budget=BUDGET, pilot=5, directory=folder, **HOW)


def test_a_campaign_by_importance(net, truth, tmp_path):
    share = lambda o: o.changed / o.images  # noqa: E731
    arguments = (net.space, net.apply, net.params, net.data, KEY)
    how = {"budget": BUDGET, "pilot": 8, "value": share, "directory": tmp_path} | HOW
    found = importance_campaign(*arguments, **how)
    assert found.kinds == tuple(f"bit {b}" for b in range(8))
    squares = [
        (share(found.pilot.rate_point(k, 0).outcome) ** 2).sum() for k in range(8)
    ]
    np.testing.assert_allclose(
        found.proposal, best_proposal(found.target, (np.array(squares) + 1) / 10)
    )
    main = found.main.rate_point(0, 0)
    weights = (found.target / found.proposal)[main.kind]
    assert found.estimate.mean.value == pytest.approx(
        (weights * share(main.outcome)).mean()
    )
    assert found.estimate.effective_trials == pytest.approx(
        weights.sum() ** 2 / (weights**2).sum()
    )
    assert ((main.outcome.changed > 0) == truth[numbers(net, main)]).all()
    for unit in (tmp_path / "main" / "units").iterdir():
        unit.unlink()
    again = importance_campaign(*arguments, **how)  # the pilot is kept
    assert again.estimate == found.estimate
    plain = importance_campaign(
        *arguments, budget=BUDGET, proposal=found.target, value=share, **HOW
    )
    assert plain.pilot is None and plain.estimate.effective_trials == BUDGET


def test_the_end_of_a_program_will_do():
    net = fault_nets.mlp()
    late = prefix(net.apply, net.params, "down", net.data, batch=10)
    space = faults_of(late.params)
    found = stratified_campaign(
        space, late.apply, late.params, late.data, KEY, budget=320, by="bit",
        rates=np.full(32, 0.5), event=lambda o: o.changed > 0, unit=2, **HOW,
    )  # fmt: skip
    assert found.pilot is None and found.trials.tolist() == [10] * 32
    top = found.estimate.strata[30]
    assert top.name == "bit 30" and top.size == 80 and top.events > 2
    assert not found.estimate.strata[0].events


@pytest.mark.parametrize(
    ("call", "changes", "message"),
    [
        (stratified_campaign, {"budget": 31}, "total=31 injections do not fit 16"),
        (stratified_campaign, {"pilot": 2, "rates": [0.5] * 16}, "not both"),
        (stratified_campaign, {"rates": [0.5]}, r"rates must be \[16\]"),
        (stratified_campaign, {"floor": 1}, "floor must be at least 2"),
        (stratified_campaign, {"pilot": -1}, "pilot must be at least 1"),
        (stratified_campaign, {"by": "word"}, "by must be one of"),
        (importance_campaign, {}, "give one of pilot and proposal"),
        (importance_campaign, {"pilot": 1, "proposal": [1]}, "give one of pilot and"),
        (importance_campaign, {"proposal": [1.0]}, r"proposal must be \[8\]"),
        (importance_campaign, {"proposal": np.eye(8)[0]}, "proposal is 0 for 'bit 1'"),
        (importance_campaign, {"pilot": 1, "budget": 1}, "budget must be at least 2"),
        (importance_campaign, {"pilot": 1, "defensive": 2}, "defensive=2"),
        (stratified_campaign, {"level": 95}, "level=95"),
        (importance_campaign, {"pilot": 1, "level": 0}, "level=0"),
    ],
)
def test_errors_come_before_anything_runs(net, call, changes, message):
    def never(params, x):
        raise AssertionError("traced")

    arguments = {"budget": BUDGET} | changes
    with pytest.raises(ValueError, match=message):
        call(net.space, never, net.params, net.data, KEY, **arguments)


def test_values_are_checked(net):
    arguments = (net.space, None, net.params, net.data, KEY)
    with pytest.raises(KeyError, match="'changd'; nearest: changed"):
        stratified_campaign(*arguments, budget=BUDGET, event="changd")
    with pytest.raises(KeyError, match="'wrong'"):
        importance_campaign(*arguments, budget=BUDGET, pilot=1, value="wrong")
    with pytest.raises(ValueError, match=r"must give numbers in \[0, 1\], got \[16"):
        values_of({"images": np.full(3, 16)}, lambda o: o["images"])
    with pytest.raises(ValueError, match=r"a number for each trial, \[3\], not \[\]"):
        values_of({"images": np.full(3, 16)}, lambda o: o["images"].mean() / 16)
    with pytest.raises(ValueError, match="event must give 0 or 1, .* gave 0.5"):
        stratified_campaign(  # of which the sum would be a whole number
            net.space, net.apply, *arguments[2:], budget=32, unit=2,
            event=lambda o: 0.5 + 0 * o.images, **HOW,
        )  # fmt: skip
    with pytest.raises(TypeError, match="budget must be a whole number, got 64.5"):
        stratified_campaign(*arguments, budget=64.5)
    nothing = jax.tree.map(lambda a: a[:0], net.data)
    with pytest.raises(ValueError, match="data holds no examples"):
        stratified_campaign(
            net.space, net.apply, net.params, nothing, KEY, budget=BUDGET
        )


def test_a_measure_may_want_to_know_of_overflow(net):
    """As it is documented: the campaigns pass what a sampler would say, which is no."""

    def measure(logits, golden, labels, valid, overflow):
        return {"changed": valid.sum(), "short": overflow.astype(int)}

    found = stratified_campaign(
        net.space, net.apply, net.params, net.data, KEY, budget=32, unit=2,
        measure=measure, **HOW,
    )  # fmt: skip
    assert found.estimate.rate.value == 1
    assert not found.main.rate_point(0, 0).outcome["short"].any()


def test_a_plan_is_kept(net):
    plan = Plan(group=1, unit=3, batch=oracle_net.IMAGES)
    found = stratified_campaign(
        net.space, net.apply, net.params, net.data, KEY, budget=32, plan=plan, devices=1
    )
    assert found.main.plan.unit == 3
