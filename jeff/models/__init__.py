"""Networks: published architectures as plain functions, and the small trained ones."""

from jeff.models import efficientnet, pretrained, tiny_vlm, vqa_words

__all__ = ["efficientnet", "pretrained", "tiny_vlm", "vqa_words"]
