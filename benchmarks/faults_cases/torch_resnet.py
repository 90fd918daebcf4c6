"""The residual network of `jeff.models.resnet` in PyTorch, with the same weights."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

__all__ = ["ResNet", "build"]

_EPSILON = 1e-5  # of torch's normalisation


class Block(nn.Module):
    """Two 3x3 convolutions with a skip."""

    def __init__(
        self, into: int, width: int, stride: int, skip: bool, norm: bool, padding: str
    ):
        """Makes the layers, without weights yet."""
        super().__init__()
        self.first = _conv(into, width, 3, stride, norm, padding)
        self.second = _conv(width, width, 3, 1, norm)
        self.skip = _conv(into, width, 1, stride, norm) if skip else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Works on ``[batch, channels, height, width]``."""
        y = self.second(self.relu(self.first(x)))
        return self.relu(self.skip(x) + y)


class ResNet(nn.Module):
    """Stem, blocks, mean, classifier.

    Args:
      arrays: Kernels ``[k, k, in, out]`` and biases by name, as
        `jeff.models.resnet.layer_shapes` names the layers.
      norm: Whether to keep a batch normalisation behind every convolution, which then
        adds the bias: the same function, as it is trained and as it is published.
      padding: Where a 3x3 convolution that halves a side puts its zeros, ``"both"`` or
        ``"end"``, as in `jeff.models.resnet.apply`.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], norm: bool, padding: str):
        """Makes the layers."""
        super().__init__()
        stem = arrays["stem.kernel"]
        self.stem, self.relu = _conv(3, stem.shape[3], 3, 1, norm), nn.ReLU()
        blocks = []
        while f"blocks.{len(blocks)}.first.kernel" in arrays:
            name = f"blocks.{len(blocks)}"
            into, width = arrays[f"{name}.first.kernel"].shape[2:]
            skip = f"{name}.skip.kernel" in arrays
            blocks.append(Block(into, width, 2 if skip else 1, skip, norm, padding))
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(*arrays["classifier.kernel"].shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores ``[batch, classes]`` of ``[batch, 3, height, width]``."""
        return self.classifier(self.blocks(self.relu(self.stem(x))).mean((2, 3)))


def build(
    arrays: Mapping[str, np.ndarray], *, norm: bool = False, padding: str = "both"
) -> ResNet:
    """The network with weights, in evaluation mode.

    Args:
      arrays: As for `ResNet`.
      norm: As for `ResNet`.
      padding: As for `ResNet`.

    Returns:
      The module.
    """
    net = ResNet(arrays, norm, padding).eval()
    with torch.no_grad():
        for name in {n.rpartition(".")[0] for n in arrays}:
            layer = net.get_submodule(name)
            kernel = torch.from_numpy(np.array(arrays[f"{name}.kernel"]))
            bias = torch.from_numpy(np.array(arrays[f"{name}.bias"]))
            if kernel.ndim == 2:
                layer.weight.copy_(kernel.T)
                layer.bias.copy_(bias)
                continue
            conv = layer[0] if norm else layer
            conv.weight.copy_(kernel.permute(3, 2, 0, 1))
            if norm:
                layer[1].running_var.fill_(1.0 - _EPSILON)
            (layer[1] if norm else conv).bias.copy_(bias)
    return net


class _PaddedAtEnd(nn.Conv2d):
    """A convolution with a row and a column of zeros behind the picture only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Works on ``[batch, channels, height, width]``, of even sides."""
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


def _conv(
    into: int, width: int, k: int, stride: int, norm: bool, padding: str = "both"
) -> nn.Module:
    at_end = padding == "end" and stride == 2
    kind, zeros = (_PaddedAtEnd, 0) if at_end else (nn.Conv2d, k // 2)
    conv = kind(into, width, k, stride, zeros, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(width)) if norm else conv
