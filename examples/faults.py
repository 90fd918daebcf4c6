"""What do faults do to a network, and which of its bits matter?

The network is the embedded one for digits; any JAX function that gives logits works the
same way. Run: python examples/faults.py
"""

import jax

from jeff import sweep
from jeff.faults import adsaf, bit_flip, mibb_at_sites, on_weights
from jeff.models import digits_mlp

apply, params = digits_mlp.apply, digits_mlp.load().deterministic
test = digits_mlp.split()[1]
key = jax.random.key(0)

# The memory holds int8 codes of the weights; answers without faults, computed once.
stored = sweep.stored_as(apply, params, test.images, "int8")
data = sweep.examples(apply, stored, test.images, test.labels)
print(f"without faults {(data.golden.argmax(-1) == data.labels).mean():.1%} are right")


def of_codes(rate):
    """Every stored bit of a code flips with this probability."""
    return on_weights(bit_flip(rate, max_rate=1e-2), where="kernel")


def of_cells(rate):
    """Weights on a crossbar, two cells each, of which a share is stuck."""
    return on_weights(adsaf(rate, max_rate=0.1), where="kernel")


def of_products(rate):
    """Upsets of the multipliers, as many as a layer has multiplications."""
    return mibb_at_sites(rate, max_rate=1e-3)


# A trial is a device with faults of its own; it sees all images. Rates are arguments of
# one compiled program, and a lower rate has some of the faults of a higher one.
for name, trial, rates in (
    ("flipped bits", sweep.weight_faults(apply, stored, of_codes), (1e-4, 1e-3, 1e-2)),
    ("stuck cells", sweep.weight_faults(apply, params, of_cells), (1e-2, 3e-2, 0.1)),
    ("multipliers", sweep.feature_faults(apply, stored, of_products), (1e-4, 1e-3)),
):
    found = sweep.run(trial, key, rates=rates, trials=24, data=data)
    for point in sweep.accuracy_curve(found):
        mean, low, high, _ = point.accuracy
        print(f"{name} at {point.rate:g}: {mean:.1%} right [{low:.1%}, {high:.1%}]")

# Which bits? One flipped bit per device, of every layer and place in a word.
weights = sweep.weight_map(apply, stored, where="kernel")
found = sweep.run(
    weights.trial, key, rates=[1.0], trials=24, data=data, designs=weights.designs
)
table = sweep.weight_table(weights.space, found.stats)
for row in sorted(table, key=lambda row: -row.sdc.value)[:4]:
    print(f"{row.layer} bit {row.bit}: changes {row.sdc.value:.2%} of the answers")

# How many devices for an accuracy known to 1 %? As many as this rule asks for.
rule = sweep.Margin(
    margin=0.01, count="correct", out_of="images", method="student_t", max_trials=2000
)
trial = sweep.weight_faults(apply, stored, of_codes)
found = sweep.run(trial, key, rates=[1e-2], trials=2000, data=data, stop=rule)
(point,) = sweep.accuracy_curve(found, stop=rule)
mean, low, high, _ = point.accuracy
print(f"{point.trials} devices at 0.01: {mean:.1%} right [{low:.1%}, {high:.1%}]")
