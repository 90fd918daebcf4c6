"""Quantize a vision-language model to 3 bits with modality-balanced scales.

The model is the embedded one; any JAX function with repeated blocks works the same way.
Run: python examples/mbq.py
"""

import jax
import jax.numpy as jnp

import jeff
from jeff import mbq
from jeff.data import embedded
from jeff.models import pretrained, tiny_vlm
from jeff.quantize import QuantConfig

# A flax module becomes a pure function of its arrays.
model = pretrained.load_tiny_vlm()
apply, params = jeff.functional(model)

# Sixteen questions to calibrate on: inputs, which token is what, and the answers.
part = embedded.load_vqa().calibration
rows = jnp.arange(16) * 7
vision = pretrained.vqa_features(part.images[: int(part.image_index[rows].max()) + 1])
tokens = jnp.asarray(part.tokens[rows])
batch = mbq.Batch(
    inputs=(vision[part.image_index[rows]], tokens),
    masks=tiny_vlm.token_masks(tokens),
    targets=jnp.asarray(part.answers[rows]),
)


def loss(logits, answers):
    """Sum over the batch of each question's cross entropy."""
    log_p = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_p, answers[:, None], axis=-1).sum()


print(jeff.sites(apply, params, *batch.inputs))

config = mbq.BalanceConfig(
    weights=QuantConfig(bits=3, group_size=64, scale_dtype="float16")
)
quantized = mbq.mbq(apply, params, [batch], config, loss=loss)
for group in quantized.report.groups[:4]:
    linears = ", ".join(name.split(".")[-2] for name in group.sites)
    print(
        f"layer {group.block}: {linears:17} exponent {group.exponent:.2f}, "
        f"folded into {', '.join(group.fold)}"
    )
report = quantized.report
print(f"{report.dense_bytes:,} bytes at 16 bits, {report.stored_bytes:,} now")

answer = jax.jit(jeff.rewrite(apply, *quantized.rules))
for name, logits in (
    ("full precision", apply(params, *batch.inputs)),
    ("3 bits", answer(quantized.params, *batch.inputs)),
):
    right = (logits.argmax(-1) == batch.targets).mean()
    print(
        f"{name}: {right:.0%} of the 16 right, loss {loss(logits, batch.targets):.2f}"
    )
