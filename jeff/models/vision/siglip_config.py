"""Sizes of SigLIP's vision tower."""

import dataclasses

__all__ = ["SiglipConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SiglipConfig:
    """Sizes of a tower.

    Attributes:
      width: Channels of a patch.
      layers: Transformer layers.
      heads: Attention heads; divides `width`.
      hidden: Channels inside the MLP.
      image_size: Side of a picture in pixels.
      patch_size: Side of a patch in pixels; what is left over at the right and at the
        bottom is not read.
      channels: Channels of a picture.
      norm_eps: Added to the variance in layer norms.
      scores: Attention scores held at once. Pictures are taken in pieces so that a
        layer needs at most ``max(scores, heads * patches ** 2)`` float32 numbers for
        them, 256 MiB by default.

    Raises:
      ValueError: If a size is no positive int, `heads` does not divide `width`, or a
        patch is larger than a picture.

    Examples:
      >>> tower = SiglipConfig(width=1152, layers=27, heads=16, hidden=4304,
      ...                      image_size=384, patch_size=14)
      >>> tower.side, tower.patches
      (27, 729)
    """

    width: int
    layers: int
    heads: int
    hidden: int
    image_size: int
    patch_size: int
    channels: int = 3
    norm_eps: float = 1e-6
    scores: int = 2**26

    def __post_init__(self) -> None:
        """Checks the sizes."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 1):
                raise ValueError(f"{field.name} must be a positive int, got {value!r}")
        if not 0 < self.norm_eps < float("inf"):
            raise ValueError(f"norm_eps must be positive, got {self.norm_eps!r}")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width {self.width}: {self.heads}")
        if self.patch_size > self.image_size:
            raise ValueError(
                f"patch_size must be at most image_size {self.image_size}, "
                f"got {self.patch_size}"
            )

    @property
    def side(self) -> int:
        """Patches in a row of a picture."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """Patches of a picture."""
        return self.side**2
