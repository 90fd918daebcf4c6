"""Residual networks for CIFAR as plain functions, and a trained ResNet-8."""

from jeff.models.resnet.fold import fold_batch_norm
from jeff.models.resnet.keras import (
    load_resnet8,
    read_keras_weights,
    resnet8_from_keras,
)
from jeff.models.resnet.model import (
    RESNET_8,
    RESNET_20,
    ResNetConfig,
    apply,
    assemble,
    init,
    layer_shapes,
    preprocess,
)

__all__ = [
    "RESNET_8",
    "RESNET_20",
    "ResNetConfig",
    "apply",
    "assemble",
    "fold_batch_norm",
    "init",
    "layer_shapes",
    "load_resnet8",
    "preprocess",
    "read_keras_weights",
    "resnet8_from_keras",
]
