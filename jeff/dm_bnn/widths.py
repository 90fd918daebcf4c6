"""How wide to make the weights of a network that was trained without noise.

Two ways, both a tree for the argument `std` of `jeff.dm_bnn.posterior`:

`relative_std` is a *noise model*: every matrix gets the same ratio of noise to signal.
It asks no data and says nothing of what the data leave open; it is for studies of noisy
weights, and as a start for `jeff.dm_bnn.fit`.

`laplace_std` is an *approximate posterior*: the curvature of the log-likelihood says
how well the data determine each weight. Only the diagonal of the curvature is kept, so
weights that could compensate for each other are drawn as if they could not, and the
voters are worse than the network itself where there are many such weights; a larger
`n_data` makes them agree more, and `jeff.dm_bnn.fit` trains on from there.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff.program.trainable import merge, trainable

__all__ = ["laplace_std", "relative_std"]


def relative_std(params: Any, ratio: float) -> Any:
    """Standard deviations of `ratio` times the root mean square of each leaf.

    The output of a matrix product then has noise of `ratio` times the signal's root
    mean square, for weights that are like independent draws, whatever the layer's
    scale: ``sum_j (ratio * rms)^2 x_j^2`` against ``sum_j rms^2 x_j^2``.

    Args:
      params: Any pytree of arrays.
      ratio: Noise over signal, at least 0.

    Returns:
      A tree like `params` of scalars, in each leaf's dtype; 0 for leaves that are not
      floating.

    Raises:
      ValueError: If `ratio` is negative or not finite.

    Examples:
      >>> print(relative_std({"w": jnp.array([3.0, -4.0, 0.0, 0.0])}, 0.1)["w"])
      0.25

    References:
      Derivation: above.
    """
    if not 0 <= ratio < float("inf"):
        raise ValueError(f"ratio must be at least 0 and finite: {ratio}")
    return jax.tree.map(lambda leaf: _relative(jnp.asarray(leaf), ratio), params)


def laplace_std(
    apply: Callable[..., jax.Array],
    params: Any,
    inputs: Any,
    *,
    prior_std: float,
    n_data: int | None = None,
    chunk: int = 32,
) -> Any:
    """Standard deviations of Laplace's approximation with a diagonal curvature.

    ``std_i = (n_data F_ii + 1 / prior_std^2)^(-1/2)`` with Fisher's information of a
    classifier, ``F_ii = mean_x sum_c p_c(x) (d ln p_c(x) / d w_i)^2``. The sum over
    classes is exact: labels are neither asked for (those give the "empirical" Fisher,
    which is no curvature) nor drawn. For a softmax this is the diagonal of the
    generalised Gauss-Newton matrix. It never is negative, as that of the Hessian may
    be.

    Args:
      apply: ``apply(params, x)`` with logits ``[batch, classes]``, examples apart.
      params: Trained params, a maximum of the posterior (weight decay being the prior).
      inputs: ``[examples, ...]``, or a tree of such arrays.
      prior_std: Standard deviation of the prior, positive. No `std` is larger.
      n_data: How many examples the network was trained on; ``None``: as many as
        `inputs` has, which may be a sample of them. More make a narrower posterior.
      chunk: Examples at a time; each needs ``classes`` copies of the params.

    Returns:
      A tree like `params`, float32; 0 for leaves that are not floating.

    Raises:
      ValueError: If a number is out of range, `inputs` have no common length, or
        outputs are no logits.

    Examples:
      Two classes whose logits are ``w x`` and 0 at ``w = 0``: ``F = x^2 / 4``.

      >>> def apply(w, x):
      ...     return jnp.stack([w * x, 0 * x], -1)
      >>> std = laplace_std(apply, jnp.zeros(()), jnp.full(10, 2.0), prior_std=1.0)
      >>> print(1 / std**2)  # 10 examples and the prior
      11.0

    References:
      D. J. C. MacKay, "A practical Bayesian framework for backpropagation networks",
      Neural Computation 4, 1992; H. Ritter, A. Botev and D. Barber, "A scalable Laplace
      approximation for neural networks", ICLR 2018, section 2 and figure 1 (what the
      diagonal loses); F. Kunstner, L. Balles and P. Hennig, "Limitations of the
      empirical Fisher approximation", NeurIPS 2019 (arXiv 1905.12558).
    """
    if not 0 < prior_std < float("inf"):
        raise ValueError(f"prior_std must be positive and finite: {prior_std}")
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)}
    if len(lengths) != 1 or lengths <= {(), (0,)}:
        raise ValueError(f"inputs must be arrays of one length: {sorted(lengths)}")
    ((examples,),) = lengths
    n_data = examples if n_data is None else n_data
    if n_data < 1 or chunk < 1:
        raise ValueError(f"n_data and chunk must be positive: {n_data=}, {chunk=}")
    chunk = min(chunk, examples)
    floats, fixed = trainable(params)
    inputs = jax.tree.map(jnp.asarray, inputs)
    total = _information(apply, floats, fixed, inputs, chunk)

    def width(information):
        return (n_data / examples * information + prior_std**-2) ** -0.5

    zeros = jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf)), fixed)
    return merge(jax.tree.map(width, total), zeros)


def _relative(leaf: jax.Array, ratio: float) -> jax.Array:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.zeros(())
    wide = leaf.astype(np.promote_types(leaf.dtype, jnp.float32))
    largest = jnp.abs(wide).max(initial=0)  # squares may pass the range of the dtype
    unit = jnp.where(largest > 0, largest, 1)
    return (ratio * largest * jnp.sqrt(jnp.mean(jnp.square(wide / unit)))).astype(
        leaf.dtype
    )


def _information(apply, floats, fixed, inputs, chunk: int) -> Any:
    """``sum_x sum_c p_c (d ln p_c / d w)^2`` for every weight, float32."""

    def log_probs(floats, x):
        one = jax.tree.map(lambda a: a[None], x)
        logits = apply(merge(floats, fixed), one)
        if logits.ndim != 2 or logits.shape[0] != 1:
            raise ValueError(f"apply must give [batch, classes], not {logits.shape}")
        return jax.nn.log_softmax(logits[0].astype(jnp.float32))

    def of_one(floats, x):
        probs = jnp.exp(log_probs(floats, x))
        slopes = jax.jacrev(log_probs)(floats, x)
        return jax.tree.map(
            lambda g: jnp.tensordot(probs, jnp.square(g.astype(jnp.float32)), 1), slopes
        )

    def run(floats, inputs):
        examples = len(jax.tree.leaves(inputs)[0])

        def add(total, start):
            rows = start + jnp.arange(chunk)
            x = jax.tree.map(lambda a: a[jnp.minimum(rows, examples - 1)], inputs)
            each = jax.vmap(of_one, in_axes=(None, 0))(floats, x)
            seen = (rows < examples).astype(jnp.float32)
            more = jax.tree.map(lambda g: jnp.tensordot(seen, g, 1), each)
            return jax.tree.map(jnp.add, total, more), None

        zeros = jax.tree.map(lambda w: jnp.zeros(jnp.shape(w), jnp.float32), floats)
        return jax.lax.scan(add, zeros, jnp.arange(0, examples, chunk))[0]

    return jax.jit(run)(floats, inputs)
