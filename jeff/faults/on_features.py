"""Faults of features: a rule that injects into the outputs of sites and into marks."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jeff import base
from jeff.faults import rates
from jeff.faults.mac_count import site_macs
from jeff.faults.mibb import mibb
from jeff.faults.model import overflow_of
from jeff.faults.where import Where, chooser, chosen, is_product
from jeff.program import Site

__all__ = ["FeatureRule", "mibb_at_sites", "on_features"]


def on_features(
    model: "base.FaultModel | Callable[[Site], base.FaultModel | None]",
    key: jax.Array,
    where: Where | None = None,
    *,
    examples: jax.Array | None = None,
    sites: Iterable[Site] | None = None,
) -> "FeatureRule":
    """A rule that injects faults into the outputs of sites.

    A site draws from ``site.key(key)``: by the name of its leaf, its layer and its use,
    the same whether layers are scanned or written out, and independently of which other
    sites are hit.

    Args:
      model: A fault model, or ``model(site)`` that gives one for a site (`None` leaves
        it alone), such as `mibb_at_sites`.
      key: A JAX key: one per device for hard faults, one per run for soft errors.
      where: Sites to hit, by name: as in `on_weights`. ``None``: every product and
        convolution (look-ups compute nothing). Values named by `jeff.mark` are hit
        only where it chooses them.
      examples: int32 ``[batch]``: numbers of the examples along the leading axis of
        every output. Each example then draws from a key of its own, and is injected on
        its own (a model that takes a range takes the example's), so that nothing
        depends on the size of the batch or on what else is in it. ``None``: an output
        is one array, batch included.
      sites: The sites of the program (`jeff.sites`), to check `where` at once instead
        of when the program is traced.

    Returns:
      A rule for `jeff.rewrite`. Where a sampler's buffer was too short (probability
      below 1e-12 a page) or a traced rate cannot be drawn, the output (of that
      example) is NaN; of integers the lowest, and of unsigned ones the highest;
      ``rule.overflow(site, y)`` tells it from NaN that faults make. The rule has a
      method ``check(sites)``, which `jeff.rewrite` calls: a `where` that chooses no
      site of the program is an error, not a program without faults.

    Raises:
      TypeError: If `model` is neither a fault model nor callable, or `where` no choice;
        at use, if the output of a site to hit is bool or complex.
      ValueError: If `where` fits none of `sites`; at use, if it fits no site of the
        program, or the leading axis of an output is not that of `examples`.

    Examples:
      >>> import jeff
      >>> from jeff.faults import stuck_at
      >>> rule = on_features(stuck_at(1.0, one_share=0.0), jax.random.key(0), "up")
      >>> apply = jeff.rewrite(lambda p, x: jnp.cos(x @ p["up"]) @ p["down"], rule)
      >>> apply = jax.jit(apply)
      >>> params = {"up": jnp.ones((2, 3)), "down": jnp.ones((3, 1))}
      >>> print(apply(params, jnp.ones((1, 2))))
      [[3.]]

      Convolutions only, as in the paper of FTT-NAS, which spares the classifier:

      >>> def net(p, x):
      ...     return jax.lax.conv(x, p["conv"], (1, 1), "SAME").sum((2, 3)) @ p["head"]
      >>> params = {"conv": jnp.ones((2, 1, 1, 1)), "head": jnp.ones((2, 1))}
      >>> rule = on_features(
      ...     stuck_at(1.0, one_share=0.0), jax.random.key(0),
      ...     where=lambda name, site: site.kind == "conv",
      ... )  # fmt: skip
      >>> print(jax.jit(jeff.rewrite(net, rule))(params, jnp.ones((1, 1, 2, 2))))
      [[0.]]

      A value in between, here the logits after their bias, once it has a name:

      >>> def net(p, x):
      ...     return jeff.mark("logits", x @ p["head"] + p["bias"], macs=2)
      >>> params = {"head": jnp.ones((2, 3)), "bias": jnp.ones(3)}
      >>> rule = on_features(mibb_at_sites(0.5), jax.random.key(0), where=["logits"])
      >>> print(jax.jit(jeff.rewrite(net, rule))(params, jnp.ones((1, 2))))
      [[3.25 4.   4.  ]]
    """
    is_model = isinstance(model, base.FaultModel)
    if not is_model and not callable(model):
        raise TypeError(f"model must be a FaultModel or a function, got {model!r}")
    rule = FeatureRule(model, key, where, examples)
    if sites is not None:
        rule.check(sites)
    if examples is not None and jnp.ndim(examples) != 1:
        raise ValueError(f"examples must be of one axis, got {jnp.shape(examples)}")

    return rule


class FeatureRule:
    """The rule of `on_features`, which checks its arguments.

    Attributes:
      model: A fault model, or one for each site.
      key: The key.
      where: Sites to hit.
      examples: int32 ``[batch]``, numbers of the examples, or ``None``.
    """

    def __init__(
        self,
        model: "base.FaultModel | Callable[[Site], base.FaultModel | None]",
        key: jax.Array,
        where: Where | None,
        examples: jax.Array | None,
    ):
        """Keeps its arguments."""
        self.model, self.key, self.where, self.examples = model, key, where, examples
        self.choose = chooser(where) or is_product

    @property
    def marks(self) -> bool:
        """Whether the rule acts at marks: if there is a `where` to choose them."""
        return self.where is not None

    def check(self, sites: Iterable[Site]) -> None:
        """Refuses a choice that fits none of a program's sites."""
        if self.where is not None:
            chosen(self.where, {site.name: site for site in sites}, is_product, "site")

    def __call__(
        self, site: Site, op: base.Operation, x: jax.Array, w: Any
    ) -> jax.Array:
        """The site's output with faults."""
        y = op(x, w)
        own = self._model(site)
        if own is None:
            return y
        if not (rates.is_floating(y) or jnp.issubdtype(y.dtype, jnp.integer)):
            raise TypeError(
                f"the output of site {site.name!r} must be floating or integer to be "
                f"hit, got {y.dtype}"
            )
        return self._each(site, lambda k, one: _faulty(own, k, one), y)

    def overflow(self, site: Site, y: jax.Array) -> jax.Array | None:
        """Whether the draws at a site lack faults, drawn again from the same key.

        In one compiled program with the rule itself nothing is drawn twice: XLA finds
        that both draw the same.

        Args:
          site: A site, in its iteration of the loops around (`Site.at`).
          y: Its output.

        Returns:
          bool ``[examples]``, or ``[]`` without `examples`; ``None`` where the rule
          does nothing.
        """
        own = self._model(site)
        if own is None:
            return None
        return self._each(site, lambda k, one: overflow_of(own.sample(k, one)), y)

    def _model(self, site: Site) -> base.FaultModel | None:
        """The faults of a site, if it has any."""
        if not self.choose(site.name, site):
            return None
        if isinstance(self.model, base.FaultModel):
            return self.model
        return self.model(site)

    def _each(self, site, act, y):
        """`act` on the output with the site's key, or on every example with its own."""
        site_key, examples = site.key(self.key), self.examples
        if examples is None:
            return act(site_key, y)
        if y.ndim == 0 or y.shape[0] != examples.shape[0]:
            raise ValueError(
                f"examples has {examples.shape[0]} entries, but the output of site "
                f"{site.name!r} is {list(y.shape)}: vmap the program over examples"
            )
        keys = jax.vmap(jax.random.fold_in, (None, 0))(site_key, examples)
        return jax.vmap(act)(keys, y)


def mibb_at_sites(
    rate: Any,
    *,
    tree_width: int | None = None,
    **settings: Any,
) -> Callable[[Site], base.FaultModel | None]:
    """MiBB with each site's own number of multiplications per output.

    It acts on the output of the site's own equation: before a bias that is added after
    it, and before a batch norm that is not folded into the weights, whereas the paper
    injects after convolution and batch norm. For that fold it first, or write
    ``y = jeff.mark("conv1", batch_norm(conv(x)), macs=...)`` and choose the marks:
    ``where=lambda name, site: site.kind == "mark"``. `on_features` hits every product
    unless `where` says otherwise, the classifier too, which the paper spares:
    ``where=lambda name, site: site.kind == "conv"``.

    Args:
      rate: ``p_m``, probability in [0, 1] per multiplication; may be traced.
      tree_width: Input channels that one adder tree sums, see `conv_macs`.
      **settings: Other arguments of `mibb`.

    Returns:
      ``model(site)`` for `on_features`; `None` for look-ups.

    Raises:
      TypeError: As `mibb`; also if `macs` or `accumulations` is among the settings.
      ValueError: As `mibb`; at use, if a mark does not say its `macs`.

    Examples:
      >>> import jeff
      >>> rule = on_features(mibb_at_sites(0.01), jax.random.key(0))
      >>> apply = jeff.rewrite(lambda w, x: x @ w, rule)  # 1 - 0.99^576 = 0.997
      >>> print(apply(jnp.ones((576, 2)), jnp.ones((1, 576))))
      [[592. 544.]]
    """
    for name in ("macs", "accumulations"):
        if name in settings:
            raise TypeError(f"{name} comes from the site: it is no setting here")
    rates.checked_rate("rate", rate)
    mibb(rate, **settings)  # refuses bad settings early

    def model(site):
        if site.kind == "lookup":
            return None
        count = site_macs(site, tree_width=tree_width)
        return mibb(rate, **count._asdict(), **settings)

    return model


def _faulty(model, key, y):
    faults = model.sample(key, y)
    faulty = model.inject(faults, y)
    over = overflow_of(faults)
    if rates.is_floating(y):
        lost = jnp.asarray(jnp.nan, y.dtype)
    else:
        limits = jnp.iinfo(y.dtype)  # 0, the least of unsigned numbers, is plausible
        lost = jnp.asarray(limits.min or limits.max, y.dtype)
    return jnp.where(over, lost, faulty)
