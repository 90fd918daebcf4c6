"""``jeff run mbq``: the embedded vision-language model, quantized by every method."""

from jeff.mbq.study.study import STUDY

__all__ = ["STUDY"]
