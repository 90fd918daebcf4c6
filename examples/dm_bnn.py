"""Make your own network Bayesian, choose its voters, and ask how sure it is.

The network is a plain JAX function; a flax, haiku or equinox model works the same way
after `apply, params = jeff.functional(module)`. Run: python examples/dm_bnn.py
"""

import jax
import jax.numpy as jnp
import numpy as np

from jeff import dm_bnn
from jeff.evaluate import accuracy, auroc, ece
from jeff.models import digits_mlp


def apply(params, x):
    """Any function of params and inputs; there is nothing of jeff in it."""
    hidden = jax.nn.relu(x @ params["up"] + params["bias"])
    return jax.nn.relu(hidden @ params["middle"]) @ params["down"]


def is_matrix(name, leaf):
    """Matrices become random, the bias stays a number."""
    return leaf.ndim == 2


train, test = digits_mlp.split()  # 1,197 and 600 handwritten digits of 8x8
keys = jax.random.split(jax.random.key(0), 6)
params = {
    "up": jax.random.normal(keys[0], (64, 64)) * (2 / 64) ** 0.5,
    "bias": jnp.zeros(64),
    "middle": jax.random.normal(keys[1], (64, 64)) * (2 / 64) ** 0.5,
    "down": jax.random.normal(keys[2], (64, 10)) * (2 / 64) ** 0.5,
}

# A Gaussian around every weight, trained by Bayes by Backprop. (For a network that is
# trained already: `dm_bnn.laplace_std` says how wide to make them.)
posterior, history = dm_bnn.fit(
    apply,
    dm_bnn.posterior(params, std=0.05, where=is_matrix),
    (train.images, train.labels),
    keys[3],
    dm_bnn.FitSettings(epochs=60, kl_weight=0.03),
    prior_std=0.3,
)
print(f"log-likelihood of a training digit: {history.log_likelihood[-1]:.3f} nats")

# Which mode? Decomposition is for one input at a time and for hardware.
one = jnp.asarray(test.images[:1])
for hardware in ("cpu", "datapath"):
    plan = dm_bnn.plan(apply, posterior, one, voters=100, hardware=hardware)
    print(f"{hardware}: {plan.explain()}")

# Which tree of voters? A small one shows where the variance comes from.
pilot = (8, 4, 4)
vote = jax.jit(dm_bnn.predict, static_argnames=("apply", "voters", "mode"))
logits = vote(
    apply, posterior, jnp.asarray(train.images[:100]), keys[4], voters=pilot, mode="lrt"
)
variances = dm_bnn.components(np.asarray(jax.nn.softmax(logits)), pilot)
for mode in ("hybrid", "dm"):
    cost = dm_bnn.tree_cost(apply, posterior, one, levels=3, mode=mode)
    best = dm_bnn.plan_voters(cost, variances, budget=2_000_000)
    print(
        f"{mode}: 2 million products are best spent on {best.voters}, worth "
        f"{best.effective_voters:.0f} independent voters"
    )

# How sure is it, about digits and about noise?
noise = jax.random.uniform(keys[5], test.images.shape)
x = jnp.concatenate([test.images, noise])
said = dm_bnn.predictive(vote(apply, posterior, x, keys[5], voters=100, mode="lrt"))
labels, probs = jnp.asarray(test.labels), said.probs[:600]
print(f"{accuracy(probs, labels):.1%} right, ECE {ece(probs, labels):.3f}")
is_noise = jnp.arange(1200) >= 600
print(f"told from noise: AUROC {auroc(said.mutual_information, is_noise):.3f}")
