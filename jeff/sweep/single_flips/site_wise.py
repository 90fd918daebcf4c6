"""Site-wise campaigns: one fault per image, each with its own layer, position and bit.

One run of the network serves as many injections as it has images. Images are sorted
by the layer of their fault. The clean network runs up to a layer; there the images
whose fault is in that layer leave it, are hit, and join the faulty ones, which go on
together: a faulty image never runs what lies before its fault. The clean network runs
once for all the faults that an image gets in a trial.

References:
  Random bit flips of single feature-map values: Li et al., "Understanding error
  propagation in deep learning neural network (DNN) accelerators and applications",
  SC 2017.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff.prng import named_key
from jeff.program import stages
from jeff.sweep.campaigns.batches import spread
from jeff.sweep.campaigns.outcome import Outcome, each_outcome
from jeff.sweep.checks import positive
from jeff.sweep.single_flips import one_flip
from jeff.sweep.single_flips.site_plan import SitePlan
from jeff.sweep.trial import Batch, Trial

__all__ = ["Injections", "each_injection", "site_wise"]


class Injections(NamedTuple):
    """What was injected into every image of a batch, and what it did.

    Attributes:
      site: int32 ``[batch]``, index into the plan's sites.
      position: int32 ``[batch]``, in the site's flat output for one image.
      bit: int32 ``[batch]``, 0 the lowest.
      outcome: An `Outcome` of arrays ``[batch]``.
    """

    site: jax.Array
    position: jax.Array
    bit: jax.Array
    outcome: Outcome


def site_wise(
    apply: Callable[..., Any],
    params: Any,
    plan: SitePlan,
    *,
    faults_per_image: int = 8,
) -> Trial:
    """A campaign of single bit flips in the outputs of sites, one per copy of an image.

    Args:
      apply: ``apply(params, *inputs)`` with logits ``[batch, classes]``; it treats
        every example by itself.
      params: Params without faults; leaves may be stored.
      plan: From `plan_sites`.
      faults_per_image: Copies of every image in a trial, each with a fault of its own.
        They share one run of the clean network.

    Returns:
      A trial for `run`, whose data are `Examples` and whose statistics an `Outcome` of
      arrays ``[sites, bits]``; `site_table` reads them. Copy `c` of a trial has the
      faults of `each_injection` for ``fold_in(key of the trial, c)``: they depend on
      key and number of the example only. Neither rates nor designs have a meaning here:
      give ``rates=[1.0]``.

    Raises:
      TypeError: If `faults_per_image` is no whole number.
      ValueError: If it is below 1.

    Examples:
      >>> from jeff.sweep import Batch, examples, plan_sites
      >>> def mlp(p, x):
      ...     return jax.nn.relu(x @ p["up"]) @ p["down"]
      >>> x = np.eye(4, dtype=np.float32)
      >>> params = {"up": x, "down": x}
      >>> data = examples(mlp, params, x)
      >>> plan = plan_sites(mlp, params, data.inputs, period=4)
      >>> trial = site_wise(mlp, params, plan, faults_per_image=3)
      >>> batch = Batch(data, np.arange(4), np.ones(4, bool))
      >>> stats = jax.eval_shape(trial.evaluate, jax.random.key(0), batch)
      >>> stats.images.shape  # sites, bits
      (2, 32)
    """
    copies = np.arange(positive("faults_per_image", faults_per_image))
    injections = each_injection(apply, params, plan)
    shape = (len(plan.sites), max(plan.bits))

    def draw(key, rate, design):
        del rate, design
        return key

    def evaluate(key, batch):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, copies)
        got = jax.vmap(injections, (0, None))(keys, batch)

        def table(each):
            counted = jnp.where(batch.valid, each, jnp.zeros_like(each))
            return jnp.zeros(shape, each.dtype).at[got.site, got.bit].add(counted)

        return jax.tree.map(table, got.outcome)

    return Trial(draw, evaluate)


def each_injection(
    apply: Callable[..., Any], params: Any, plan: SitePlan
) -> Callable[[jax.Array, Batch], Injections]:
    """What `site_wise` counts, image by image.

    Args:
      apply: As there.
      params: As there.
      plan: As there.

    Returns:
      ``inject(key, batch) -> Injections``, in the order of the batch, whose examples
      have consecutive numbers.

    Examples:
      >>> from jeff.sweep import Batch, examples, plan_sites
      >>> def linear(p, x):
      ...     return x @ p["w"]
      >>> x = np.eye(3, dtype=np.float32)
      >>> params = {"w": x}
      >>> data = examples(linear, params, x)
      >>> plan = plan_sites(linear, params, data.inputs, period=1, fixed_point=8)
      >>> inject = each_injection(linear, params, plan)
      >>> batch = Batch(data, np.arange(3), np.ones(3, bool))
      >>> got = jax.jit(inject)(jax.random.key(3), batch)
      >>> print(got.position, got.bit, got.outcome.changed)
      [1 1 1] [4 1 1] [0 0 0]
    """
    sizes = np.array(plan.counts)
    first = np.cumsum(sizes) - sizes  # first slot of each site in a period
    site_of = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)

    def inject(key: jax.Array, batch: Batch) -> Injections:
        rounds = -(-len(batch.index) // plan.period)
        rows = np.arange(rounds * plan.period)  # the last ones fill up
        filled = np.minimum(rows, len(batch.index) - 1)
        number = batch.index[0] + jnp.asarray(rows, jnp.int32)
        turn = jax.random.bits(named_key(key, "turn"), dtype=jnp.uint32)
        turn = (turn % jnp.uint32(plan.period)).astype(jnp.int32)
        slot = (number + turn) % plan.period
        site = jnp.asarray(site_of)[slot]
        position, bit = _places(key, number, site, plan)
        # Rows of each site: of every round those whose slots are the site's.
        begins = rows[:: plan.period, None]
        slots = [np.arange(f, f + n) for f, n in zip(first, sizes, strict=True)]
        groups = [((s - slot[0]) % plan.period + begins).reshape(-1) for s in slots]
        places = [(position[group], bit[group]) for group in groups]
        inputs = jax.tree.map(lambda a: a[filled][:, None], batch.data.inputs)
        logits = _faulty_logits(apply, params, plan, inputs, groups, places)
        # Where each row went: behind the sites before, the rounds before, the slots.
        table = np.array([rounds * first - first, sizes], np.int32)
        start, size = jnp.asarray(table)[:, site]
        back = start + size * (rows // plan.period) + slot
        outcome = each_outcome(
            logits[back], batch.data.golden[filled], batch.data.labels[filled]
        )
        found = Injections(site, position, bit, outcome)
        return jax.tree.map(lambda a: a[: len(batch.index)], found)

    return inject


def _places(key, numbers, site, plan) -> jax.Array:
    """Positions and bits of the faults of numbered images, int32 ``[2, images]``."""
    key = named_key(key, "injection")
    sizes = np.array([plan.features, plan.bits], np.int32)

    def draw(number, site):
        own = jax.random.fold_in(key, number)
        return jax.random.randint(own, (2,), 0, jnp.asarray(sizes)[:, site])

    return jax.vmap(draw, out_axes=1)(numbers, site)


def _faulty_logits(apply, params, plan, inputs, groups, places) -> jax.Array:
    """Logits of the faulty images, those of the first site first."""
    one = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), spread(inputs)
    )
    cut = stages.stages(apply, plan.sites, params, *one)

    def run(stage, values):
        return jax.vmap(lambda *v: cut.run(stage, params, v))(*values)

    def hit(y, position, bit):
        if plan.fixed_point is None:
            return one_flip.flip_word(y, position, bit)
        return one_flip.flip_code(y, position, bit, bits=plan.fixed_point)

    clean, faulty = jax.tree.leaves(inputs), None
    for stage, (group, place) in enumerate(zip(groups, places, strict=True)):
        clean = run(stage, clean)
        output, *others = (v[group] for v in clean)
        new = [jax.vmap(hit)(output, *place), *others]
        if faulty is None:
            faulty = new
        else:
            pairs = zip(run(stage, faulty), new, strict=True)
            faulty = [jnp.concatenate(pair) for pair in pairs]
    (logits,) = run(len(groups), faulty)
    return logits[:, 0]
