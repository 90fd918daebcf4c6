"""With the same noise all contenders give the same outputs: checked before timing."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_cases import subject
from bnn_cases.peers import Peers
from jeff import dm_bnn
from jeff.dm_bnn import keys
from jeff.dm_bnn.flipout import flipped
from jeff.dm_bnn.rule import local

__all__ = ["differences"]

_ROWS, _VOTERS = 3, 2
_MOST = 1e-5


def differences(posterior: Any, peers: Peers, seed: int) -> dict[str, float]:
    """Largest differences of outputs for the same noise, over the largest output.

    Args:
      posterior: Of `subject.apply`.
      peers: The peers' process.
      seed: Of inputs and noise.

    Returns:
      By peer.

    Raises:
      SystemExit: If a peer's outputs are others.
    """
    x = subject.inputs(seed, _ROWS, posterior[min(posterior)].shape[0])
    checks = {
        "bayesian_torch": functools.partial(_weights, "bayesian_torch"),
        "blitz": functools.partial(_weights, "blitz"),
        "bayesian_torch_flipout": _flipout,
        "torch_lrt": _local,
    }
    found = {}
    for name, check in checks.items():
        if name not in peers.names:
            continue
        ours, theirs = check(posterior, x, peers, seed)
        found[name] = float(np.abs(ours - theirs).max() / np.abs(ours).max())
        if not found[name] < _MOST:
            raise SystemExit(f"{name} computes something else: {found[name]:.1e}")
    return found


def _weights(name, posterior, x, peers, seed):
    """jeff draws; its noise is handed to a peer that draws every weight."""
    key = jax.random.key(seed)

    @jax.jit
    def run(posterior, x):
        return dm_bnn.predict(
            subject.apply, posterior, x, key, voters=_VOTERS, mode="naive"
        )

    noise = [
        np.asarray(_noise(key, leaf, voter, *w.shape))
        for voter in range(_VOTERS)
        for leaf, w in sorted(posterior.items())
    ]
    theirs = peers.injected(name, _ROWS, _VOTERS, noise)
    return np.asarray(run(posterior, x)), theirs


def _noise(key, leaf, voter, inner, outer):
    """What `predict` draws for a kernel, as torch holds it: ``[outputs, inputs]``."""
    of_leaf = keys.leaf_key(key, leaf)
    of_voter = keys.voter_key(of_leaf, (voter,), 1, shared=False)

    def column(number):
        return jax.random.normal(jax.random.fold_in(of_voter, number), (inner,))

    return jax.vmap(column)(jnp.arange(outer))


def _flipout(posterior, x, peers, seed):
    rng = np.random.default_rng(seed)
    normal, uniform, ours = [], [], []
    for _ in range(_VOTERS):
        h = jnp.asarray(x)
        for i, (_, w) in enumerate(sorted(posterior.items())):
            h = jax.nn.relu(h) if i else h
            noise = rng.standard_normal(w.shape, np.float32)
            sizes = (_ROWS, w.shape[0]), (_ROWS, w.shape[1])
            signs = [rng.choice(np.float32([-1, 1]), size) for size in sizes]
            normal.append(noise.T)
            uniform += signs
            h = flipped(jnp.matmul, h, w, noise, *signs)
        ours.append(h)
    name = "bayesian_torch_flipout"
    theirs = peers.injected(name, _ROWS, _VOTERS, normal, uniform)
    return np.stack(ours), theirs


def _local(posterior, x, peers, seed):
    rng = np.random.default_rng(seed)
    h, normal = jnp.broadcast_to(x, (_VOTERS, *x.shape)), []
    for i, (_, w) in enumerate(sorted(posterior.items())):
        h = jax.nn.relu(h) if i else h
        noise = rng.standard_normal((_VOTERS, _ROWS, w.shape[1]), np.float32)
        normal.append(noise)

        def draw(key, count, noise=noise):
            del key, count
            return jnp.asarray(noise.reshape(-1))

        h = local(jnp.matmul, h, w, jax.random.key(0), draw)
    return np.asarray(h), peers.injected("torch_lrt", _ROWS, _VOTERS, normal)
