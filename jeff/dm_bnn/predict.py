"""Voters of any program whose weights are Gaussians."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jeff import base, tree
from jeff.dm_bnn import keys
from jeff.dm_bnn.arrange import Arrangement, arrange
from jeff.dm_bnn.chunks import at_a_time
from jeff.dm_bnn.hoist import hoisted
from jeff.dm_bnn.rule import Drawing, Undrawn, draw_leaf, voter_rule
from jeff.program import rewrite
from pallas_kernels.draw_matmul.options import normal

__all__ = ["predict"]

_TILE = 2**14


def predict(
    apply: Callable[..., Any],
    posterior: Any,
    x: Any,
    key: jax.Array,
    *,
    voters: int | Sequence[int],
    mode: str = "best",
    shared: bool = False,
    alpha: float = 1.0,
    chunk: int | None = None,
    approximate: bool = False,
    joint: bool = False,
    draw: Callable[[Any, int], jax.Array] | None = None,
    tile: int | None = None,
) -> Any:
    """The outputs of voters: of the program with weights drawn from the posterior.

    The modes ``"naive"``, ``"hybrid"``, ``"dm"`` and ``"best"`` give the same voters
    for the same key and tree, up to rounding, whatever `alpha`, `chunk` and `tile`.

    Args:
      apply: ``apply(params, x)``, any JAX function.
      posterior: Its params; random leaves are `MeanField`.
      x: Its input, any pytree of arrays; ``"lrt"`` and ``"flipout"`` take axis 0 for
        that of the examples.
      key: Typed or raw JAX key (Threefry).
      voters: Branches at each level of random depth, ``(t_1, t_2, ...)``; levels that
        are not named have one branch, so that 100 is ``(100, 1, 1)``. Their product T
        voters come out.
      mode: ``"naive"``: every voter draws its weights. ``"hybrid"``: decomposition
        where all voters share the input. ``"dm"``: decomposition everywhere.
        ``"best"``: decomposition where it takes fewer products. ``"lrt"``: outputs are
        drawn instead of weights, the same distribution for each input.
        ``"flipout"``: a noise matrix per voter, decorrelated between examples.
        ``"mean"``: the mean weights, nothing is drawn.
      shared: Draw noise once per level and branch number, and use it in all branches:
        fewer draws, the same voters one by one, more alike together. Where voters are
        computed a few at a time (`chunk`), each few draw again what they share.
      alpha: Share of a layer that is memorised at a time, in (0, 1]; for modes that
        decompose (``"naive"`` has nothing to memorise). The kernel for GPUs memorises
        a tile whatever `alpha`.
      chunk: Branches of the first level that has several, computed at a time; 1 maps
        nothing there, for programs that JAX cannot map. ``None``: all of them in modes
        that draw weights, where noise is stored only for leaves that are drawn whole
        (`plan(...).whole`, such as kernels of convolutions), once per voter; in
        ``"lrt"`` and ``"flipout"`` as many voters, of any level, as fit into 512 KiB
        (on a CPU) or 256 MiB (on an accelerator), but for what it takes to make random
        numbers.
      approximate: Allow ``"lrt"`` and ``"flipout"`` where weights are used at several
        positions with noise for each, which keeps the variance of every entry and
        loses what positions have in common. Other modes never need that.
      joint: Whether the outputs of all examples must come from the same weights, as
        draws of functions do; ``"lrt"`` and ``"flipout"`` are then refused where there
        are several examples (one alone may pass; `plan` rules the modes out for any
        number). Other modes always give such outputs.
      draw: ``draw(key, count) -> float32[count]``, numbers of mean 0 and variance 1, a
        pure function that may be mapped, such as `jeff.dm_bnn.normal16` or one of a
        circuit, ``hwsim.rng.clt.normal()``; ``None`` for `jax.random.normal`.
      tile: Draws held at a time in products with drawn matrices, for modes that draw
        weights; ``None``: 16,384. The kernel for GPUs holds its draws in registers.

    Returns:
      What `apply` returns, each array with a leading axis ``[T]`` in row-major order of
      the tree.

    Raises:
      TypeError: If `key` is no key.
      NotImplementedError: If a random leaf is used where no rule reaches it.
      ValueError: If the posterior has no random leaf, a number of voters is not
        positive or given for a level that the program does not have, `mode` is unknown
        or would change the distribution (with `joint` that of several outputs), or
        `alpha`, `chunk` or `tile` is out of range or without effect in the mode.

    Examples:
      >>> from jeff import dm_bnn
      >>> def mlp(p, x):
      ...     return jnp.tanh(x @ p["up"]) @ p["down"]
      >>> params = {"up": jnp.ones((4, 8)), "down": jnp.ones((8, 2))}
      >>> random = dm_bnn.posterior(params, 0.1)
      >>> key, x = jax.random.key(0), jnp.ones((1, 4))
      >>> naive = predict(mlp, random, x, key, voters=(5, 2), mode="naive")
      >>> dm = predict(mlp, random, x, key, voters=(5, 2), mode="dm", alpha=0.5)
      >>> dm.shape, bool(jnp.allclose(naive, dm, rtol=1e-5))
      ((10, 1, 2), True)

    References:
      arXiv 2005.03857 (naive, hybrid, DM); Kingma et al., NeurIPS 2015 (local
      reparameterisation); Wen et al., ICLR 2018 (flipout).
    """
    key = keys.typed(key)
    _check(mode, alpha, chunk, tile)
    plan = arrange(
        apply, posterior, x, voters=voters, mode=mode, shared=shared,
        approximate=approximate, joint=joint,
    )  # fmt: skip
    draw = normal if draw is None else draw
    tile = _TILE if tile is None else tile
    drawing = Drawing(alpha, shared, draw, tile)
    sizes = at_a_time(plan.voters, mode, chunk, plan.words, jax.default_backend())
    outs = _grown(
        lambda indices: _one(apply, posterior, x, key, plan, drawing, indices),
        plan.voters,
        sizes,
    )
    total = math.prod(plan.voters)
    grown = sum(t > 1 for t in plan.voters)
    return jax.tree.map(lambda a: a.reshape(total, *a.shape[grown:]), outs)


def _check(mode: str, alpha: float, chunk: int | None, tile: int | None) -> None:
    """Refuses numbers that are out of range, or that the mode does not use."""
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be positive, got {chunk}")
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be in (0, 1], got {alpha}")
    if tile is not None and tile < 1:
        raise ValueError(f"tile must be positive, got {tile}")
    if mode in ("lrt", "flipout", "mean") and (alpha != 1 or tile is not None):
        raise ValueError(
            f"mode={mode!r} draws no weights in tiles: it takes no alpha (got {alpha}) "
            f"and no tile (got {tile})"
        )


def _one(apply, posterior, x, key, plan: Arrangement, drawing, indices) -> Any:
    """One voter."""

    def fixed(name, leaf):
        if name not in plan.levels.leaves or not plan.ways.draws:
            return leaf
        if name not in plan.ways.whole:
            return Undrawn(leaf.mean, leaf.std, name)
        return draw_leaf(key, name, leaf, plan.levels.leaves[name], indices, drawing)

    params = tree.map_with_path(fixed, posterior)
    rule = voter_rule(
        key, indices, plan.levels.leaves, plan.ways.sites, plan.views, drawing
    )
    outs = rewrite(apply, rule)(params, x)
    return jax.tree.map(lambda a: jnp.asarray(base.decoded(a)), outs)


def _grown(
    voter: Callable[..., Any],
    voters: Sequence[int],
    sizes: Sequence[int],
    indices: tuple[Any, ...] = (),
) -> Any:
    """Voters of every level that has several, the first outermost.

    `sizes` are the branches of every level that are computed at a time.
    """
    level = len(indices)
    if level == len(voters):
        return voter(indices)
    branches, size = voters[level], sizes[level]
    if branches == 1:
        return _grown(voter, voters, sizes, (*indices, None))

    def branch(i):
        return _grown(voter, voters, sizes, (*indices, i))

    numbers = jnp.arange(branches)
    if size == branches:
        return jax.vmap(branch)(numbers)
    rest = hoisted(branch, jax.ShapeDtypeStruct((), numbers.dtype))
    # One at a time is mapped by nothing, for what JAX cannot map.
    return jax.lax.map(rest, numbers, batch_size=None if size == 1 else size)
