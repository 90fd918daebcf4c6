"""The decoder of Llama, Qwen2 and the vision-language models built on them.

Pre-norm layers of grouped-query attention with rotary positions and a gated MLP, as
plain functions of nested dictionaries. Matrices are stored ``[in, out]``::

    embed                 [vocabulary, width]
    layers                a list of, or one dictionary with everything stacked:
      attention_norm      [width]
      attention           query, key, value, output: kernel; bias of the first three
      mlp_norm            [width]
      mlp                 gate, up, down: kernel
    norm                  [width]
    head.kernel           [width, vocabulary], absent if tied to the embedding

Listed layers are unrolled, stacked ones (`stack_layers`) are scanned, which compiles
faster; every function takes both. Weights may be packed: go through `jeff.rewrite`.
"""

from jeff.models.decoder.cache import Cache, prefill, step
from jeff.models.decoder.config import DecoderConfig, Sequence
from jeff.models.decoder.head import embed
from jeff.models.decoder.model import (
    apply,
    init,
    stack_layers,
    stack_layers_in_place,
    text,
    unstack_layers,
)

__all__ = [
    "Cache",
    "DecoderConfig",
    "Sequence",
    "apply",
    "embed",
    "init",
    "prefill",
    "stack_layers",
    "stack_layers_in_place",
    "step",
    "text",
    "unstack_layers",
]
