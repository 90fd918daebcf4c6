"""The whole MBQ run on the toy decoder in NumPy: search, fold, quantize, baselines.

The steps and their order are those of the original program: blocks from first to last;
in each the four groups of linears that share an input, searched on features of the
unscaled block; then folding, then the real quantizer on every linear of the blocks.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from support import mbq_reference as ref
from support.mbq_toy_numpy import (
    LINEARS,
    Linear,
    Toy,
    Weights,
    attention,
    block,
    capture,
    linear,
    mlp,
)

__all__ = [
    "Quantizer",
    "fold",
    "quantize",
    "run_awq_layer",
    "run_search",
    "run_smoothquant",
]

# group -> linears scaled together; where the scale is folded; which ratio weighs it
GROUPS = {
    "self_attn.q_proj": (LINEARS[:3], "input_layernorm", "attn"),
    "self_attn.o_proj": (LINEARS[3:4], "self_attn.v_proj", "attn"),
    "mlp.gate_proj": (LINEARS[4:6], "post_attention_layernorm", "mlp"),
    "mlp.down_proj": (LINEARS[6:], "mlp.up_proj", "mlp"),
}


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """How a run quantizes: weights only (`group`) or weights and activations."""

    bits: int
    group: int | None = None
    activation_bits: int | None = None

    def weight(self, w: np.ndarray) -> np.ndarray:
        """Dequantized weight ``(out, in)``."""
        if self.activation_bits is None:
            return ref.asymmetric(w, self.bits, self.group)
        return ref.symmetric(w, self.bits)

    def linear(self, names: tuple[str, ...] = LINEARS) -> Linear:
        """A linear that also quantizes the inputs of the layers in `names`."""

        def run(p: Weights, name: str, x: np.ndarray) -> np.ndarray:
            if self.activation_bits is not None and name in names:
                x = ref.symmetric(x, self.activation_bits)
            return linear(p, name, x)

        return run


def fold(p: Weights, scales: dict[str, np.ndarray]) -> Weights:
    """The same function with every group's scale moved into what produces its input."""
    p = dict(p)
    for group, s in scales.items():
        names, source, _ = GROUPS[group]
        w = p[f"{source}.weight"]
        p[f"{source}.weight"] = w / (s if w.ndim == 1 else s[:, None])
        if f"{source}.bias" in p:
            p[f"{source}.bias"] = p[f"{source}.bias"] / s
        for name in names:
            p[f"{name}.weight"] = p[f"{name}.weight"] * s
    return p


def quantize(p: Weights, quantizer: Quantizer) -> Weights:
    """The block with every linear's weight quantized (and dequantized)."""
    changed = {f"{n}.weight": quantizer.weight(p[f"{n}.weight"]) for n in LINEARS}
    return p | changed


def _candidate(
    group: str, p: Weights, x: np.ndarray, mask: np.ndarray, q: Quantizer | None
) -> Callable[[np.ndarray | None], np.ndarray]:
    """From a scale to the output of the group's inspected module."""
    names = GROUPS[group][0]
    run = linear if q is None else q.linear(names)

    def inspected(p: Weights, x: np.ndarray) -> np.ndarray:
        if group == "self_attn.q_proj":
            return attention(p, x, mask, run)
        return mlp(p, x, run) if group == "mlp.gate_proj" else run(p, group, x)

    def output(s: np.ndarray | None) -> np.ndarray:
        if q is None or s is None:
            return inspected(p, x)
        changed = {f"{n}.weight": q.weight(p[f"{n}.weight"] * s) for n in names}
        if q.activation_bits is None:
            changed = {n: w / s for n, w in changed.items()}
            return inspected(p | changed, x)
        return inspected(p | changed, x / s)

    return output


@dataclasses.dataclass
class Found:
    """What one group's search gave: alpha = `best` / 20, the losses and the scale."""

    best: int
    losses: np.ndarray
    scale: np.ndarray


def search_block(
    p: Weights,
    x: np.ndarray,
    mask: np.ndarray,
    q: Quantizer,
    distance: dict[str, Callable[[np.ndarray, np.ndarray], float]],
    *,
    distorted: np.ndarray | None = None,
    stored: dict[str, np.ndarray] | None = None,
) -> dict[str, Found]:
    """Searches the groups of one block.

    Args:
      p: The block's weights.
      x: Clean input of the block.
      mask: False at padding, ``[B, N]``.
      q: The quantizer.
      distance: Objective by ``"attn"`` and ``"mlp"``.
      distorted: Input from the quantized prefix; then candidates run on features of
        the block quantized as far as searched.
      stored: Scales by group to use for that instead of those just found.
    """
    seen = capture(p, x, mask)[1]
    found: dict[str, Found] = {}
    for group, (_, source, kind) in GROUPS.items():
        if group == "self_attn.o_proj" and (
            p[f"{source}.weight"].shape != p[f"{group}.weight"].shape
        ):
            continue  # grouped queries: the original skips it
        features = seen
        if distorted is not None:
            scales = {g: (stored or {}).get(g, f.scale) for g, f in found.items()}
            r = quantize(fold(p, scales), q) if scales else p
            run = q.linear() if scales else linear
            features = capture(r, distorted, mask, run)[1]
        clean = _candidate(group, p, seen[group], mask, None)(None)
        mean_abs = ref.magnitude(features[group])
        run = _candidate(group, p, features[group], mask, q)
        best, losses = ref.search(clean, mean_abs, run, distance[kind])
        found[group] = Found(best, losses, ref.scale(mean_abs, best / ref.GRID))
    return found


def run_search(
    toy: Toy,
    q: Quantizer,
    *,
    kind: str,
    ratios: list[dict[str, float]] | None,
    distort: bool = False,
    stored: list[dict[str, np.ndarray]] | None = None,
) -> tuple[list[dict[str, Found]], np.ndarray]:
    """Searches all blocks; also the logits after folding and quantizing.

    Args:
      toy: The model and its calibration batch.
      q: The quantizer.
      kind: ``"mae"`` or ``"mse"``.
      ratios: Floored ratio per block and module kind, or ``None`` without reweighting.
      distort: Whether candidates see inputs from the quantized prefix.
      stored: Scales to go on with (per block, by group) instead of those found.
    """
    x, x_q, found, blocks = toy.x0, toy.x0, [], []
    for i, p in enumerate(toy.blocks):
        distance = {}
        for module in ("attn", "mlp"):
            weighted = {} if ratios is None else {
                "answer": toy.answer, "vision": toy.vision, "ratio": ratios[i][module]
            }  # fmt: skip
            distance[module] = _distance(kind, weighted)
        prefix = {} if stored is None else stored[i]
        found.append(
            search_block(
                p, x, toy.mask, q, distance,
                distorted=x_q if distort else None, stored=prefix,
            )
        )  # fmt: skip
        scales = {g: prefix.get(g, f.scale) for g, f in found[-1].items()}
        blocks.append(quantize(fold(p, scales), q))
        x = block(p, x, toy.mask)
        x_q = block(blocks[-1], x_q, toy.mask, q.linear())
    return found, toy.logits(blocks, q.linear())


def _distance(kind: str, weighted: dict[str, Any]) -> Callable[..., float]:
    return lambda a, b: ref.objective(a, b, kind=kind, **weighted)


def run_smoothquant(
    toy: Toy, q: Quantizer, alpha: float = 0.5
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, np.ndarray]], np.ndarray]:
    """Max-abs inputs and scales per block by group, and the quantized logits."""
    x, peaks, scales, blocks = toy.x0, [], [], []
    for p in toy.blocks:
        y, seen = capture(p, x, toy.mask)
        peaks.append({})
        scales.append({})
        for group in ("self_attn.q_proj", "mlp.gate_proj"):
            peak = np.abs(seen[group]).max(axis=(0, 1))
            weights = [p[f"{n}.weight"] for n in GROUPS[group][0]]
            peaks[-1][group] = peak
            scales[-1][group] = ref.smoothquant_scale(peak, weights, alpha)
        blocks.append(quantize(fold(p, scales[-1]), q))
        x = y
    return peaks, scales, toy.logits(blocks, q.linear())


def run_awq_layer(
    toy: Toy,
    bits: int,
    group: int,
    samples: int,
    stored: dict[str, np.ndarray] | None = None,
) -> tuple[dict[str, Found], dict[str, np.ndarray]]:
    """AWQ on the first block: scales by group, then clip limits by linear.

    A group clipped on both sides has its zero point at exactly half a step, so the
    last bit of the scaled weight decides how it is rounded: `stored` scales to clip
    with make the limits comparable.
    """
    p, q = toy.blocks[0], Quantizer(bits, group)
    plain = dict.fromkeys(("attn", "mlp"), _distance("mse", {}))
    found = search_block(p, toy.x0, toy.mask, q, plain)
    seen = capture(p, toy.x0, toy.mask)[1]
    for name, f in found.items():
        s = (stored or {}).get(name, f.scale)
        p = fold(p, {name: s})
        for member in GROUPS[name][0]:
            seen[member] = seen[member] / s
    limits = {
        n: ref.clip_limits(p[f"{n}.weight"], seen[n], bits, group, samples=samples)
        for n in LINEARS[2:]
    }
    return found, limits
