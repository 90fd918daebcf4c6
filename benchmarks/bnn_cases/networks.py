"""Small Bayesian networks that are trained here, and what their voters say."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import base, dm_bnn, prng

__all__ = ["Net", "in_blocks", "is_kernel", "layered", "mean_logits", "voters"]


class Net(NamedTuple):
    """A program with weights.

    Attributes:
      init: ``init(key)``, params to start training from.
      apply: ``apply(params, x)``, logits ``[examples, classes]``.
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array], jax.Array]


def layered(sizes: Sequence[int]) -> Net:
    """A network with biases, and ReLU between its layers.

    Args:
      sizes: Inputs, hidden units, outputs.

    Returns:
      The network, another one (for `jax.jit`) at every call. Its params are
      ``{"fc1": {"kernel": [inputs, units], "bias": [units]}, "fc2": ...}``, float32;
      they start from He's normal kernels and biases of zero.

    Examples:
      >>> net = layered((784, 200, 10))
      >>> params = jax.eval_shape(net.init, jax.random.key(0))
      >>> jax.eval_shape(net.apply, params, jnp.zeros((2, 784))).shape
      (2, 10)

    References:
      K. He et al., "Delving deep into rectifiers", ICCV 2015 (arXiv 1502.01852),
      equation 10.
    """
    names = [f"fc{i}" for i in range(1, len(sizes))]

    def init(key: jax.Array) -> dict[str, Any]:
        layers = zip(names, itertools.pairwise(sizes), strict=True)
        return {
            name: {
                "kernel": (2 / n) ** 0.5
                * jax.random.normal(prng.named_key(key, name), (n, m), jnp.float32),
                "bias": jnp.zeros(m, jnp.float32),
            }
            for name, (n, m) in layers
        }

    def apply(params: dict[str, Any], x: jax.Array) -> jax.Array:
        for name in names:
            x = x @ params[name]["kernel"] + params[name]["bias"]
            x = jax.nn.relu(x) if name != names[-1] else x
        return x

    return Net(init, apply)


def is_kernel(name: str, leaf: jax.Array) -> bool:
    """Kernels are random, biases are not."""
    del leaf
    return name.endswith("kernel")


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6))
def voters(
    net: Net,
    posterior: Any,
    x: jax.Array,
    key: jax.Array,
    tree: int | tuple[int, ...],
    mode: str = "lrt",
    chunk: int | None = None,
) -> jax.Array:
    """Logits of all voters.

    Args:
      net: The network.
      posterior: Its params, some of them random.
      x: ``[examples, inputs]``.
      key: Of the voters.
      tree: Voters, or branches at each level.
      mode: Of `jeff.dm_bnn.predict`.
      chunk: Likewise.

    Returns:
      ``[voters, examples, classes]``.
    """
    return dm_bnn.predict(
        net.apply, posterior, x, key, voters=tree, mode=mode, chunk=chunk
    )


@functools.partial(jax.jit, static_argnums=0)
def mean_logits(net: Net, params: Any, x: jax.Array) -> jax.Array:
    """Logits of the decoded params, as of one voter, ``[1, examples, classes]``."""
    return net.apply(base.decoded(params), x)[None]


def in_blocks(
    net: Net,
    posterior: Any,
    x: np.ndarray,
    key: jax.Array,
    tree: int | tuple[int, ...],
    mode: str,
    block: int,
) -> np.ndarray:
    """`voters` of many examples, a block at a time, branch by branch.

    Args:
      net: As in `voters`.
      posterior: Likewise.
      x: Likewise.
      key: Of the voters. In the modes that draw weights these are the same in all
        blocks; of local reparameterisation, where every example has noise of its own,
        each block has a key.
      tree: As in `voters`.
      mode: Likewise.
      block: Examples at a time.

    Returns:
      ``[voters, examples, classes]``, on the host.
    """
    found = []
    for number, start in enumerate(range(0, len(x), block)):
        own = prng.named_key(key, "block", number) if mode == "lrt" else key
        logits = voters(net, posterior, x[start : start + block], own, tree, mode, 1)
        found.append(np.asarray(logits))
    return np.concatenate(found, axis=1)
