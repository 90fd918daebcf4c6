"""Networks: published architectures as plain functions, and the small trained ones."""

from jeff.models import (
    chat,
    decoder,
    digits_mlp,
    efficientnet,
    embedded_classifiers,
    generation,
    llama,
    llava_onevision,
    pretrained,
    qwen2_vl,
    registry,
    resnet,
    tensors,
    tiny_vlm,
    vqa_words,
)

__all__ = [
    "chat",
    "decoder",
    "digits_mlp",
    "efficientnet",
    "embedded_classifiers",
    "generation",
    "llama",
    "llava_onevision",
    "pretrained",
    "qwen2_vl",
    "registry",
    "resnet",
    "tensors",
    "tiny_vlm",
    "vqa_words",
]
