"""From stored inputs to the batch that a backbone sees: picked, augmented, normalised, at once.

Every random number comes from the generator, so that a resumed run draws what it would have drawn.

Dimensions: B batch, C channels, H x W pixels, S side asked for, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from math import radians
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from nearkin.data.crops import centre_boxes, crop, random_boxes
from nearkin.data.items import Items
from nearkin.data.photographs import Photographs
from nearkin.names import look_up
from nearkin.registry import AUGMENTS

Pictures = Tensor | Photographs
Inputs = Pictures | Items
PHOTOGRAPH_SIDE = 128


def batch(
    inputs: Inputs,
    indices: Tensor,
    *,
    augment: str = "none",
    train: bool = True,
    size: int = 0,
    generator: Generator | None = None,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.5,
    part: Tensor | None = None,
) -> Tensor:
    """The inputs at these indices as float32 (B, C, S, S), on the inputs' device.

        (pixel / 255 - mean) / std

    Args:
        inputs: (N, C, H, W) uint8, or photographs; floats of any shape, such as features (N, D),
            and the items of a Dataset come as they are.
        indices: (B,) integers.
        augment: one of AUGMENTS.
        train: False leaves the augmentation out.
        size: S; 0 keeps small pictures as they are, and is 128 for photographs.
        generator: of torch, on the CPU whatever the inputs' device; None takes torch's own.
        mean: of the pixels in 0..1, one for all channels or one a channel; three of them make
            three channels of a grey picture. ImageNet's are in timm's `pretrained_cfg`.
        std: likewise.
        part: (n,) integers: of the batch only the items at these positions, each as it is in the
            whole batch; None for all.
    """
    change = look_up(augment, AUGMENTS, "augmentation")
    if are_ready(inputs):
        refuse_augment(inputs, augment)
        picked = inputs[of(indices, part)]
        return picked.read() if isinstance(picked, Items) else cast(Tensor, picked)
    assert not isinstance(inputs, Items), "which are ready"
    if size == 0 and isinstance(inputs, Photographs):
        size = PHOTOGRAPH_SIDE
    if not train:
        return normalised(centred(inputs[of(indices, part)], size), mean, std)
    picked = inputs[indices]
    if part is None:
        pictures = change(picked, size, generator)
    elif "part" in signature(change).parameters:
        pictures = change(picked, size, generator, part=part)
    else:  # one's own, which knows of whole batches only
        pictures = change(picked, size, generator)[part]
    return normalised(pictures, mean, std)


def are_ready(inputs: Inputs) -> bool:
    """Whether a backbone takes the inputs as they are."""
    return isinstance(inputs, Items) or (isinstance(inputs, Tensor) and inputs.is_floating_point())


def refuse_augment(inputs: Inputs, augment: str) -> None:
    """Refuse to change what a backbone takes as it is."""
    if are_ready(inputs) and augment != "none":
        what = "items of a Dataset" if isinstance(inputs, Items) else "features"
        raise ValueError(f"{what} cannot be augmented, got augment={augment!r}")


def of(x: Any, part: Tensor | None) -> Any:
    """The rows of x at these positions; all, where no part is named."""
    return x if part is None else x[part]


def normalised(
    pictures: Tensor, mean: float | Sequence[float], std: float | Sequence[float]
) -> Tensor:
    """(B, C, H, W) in 0..255 as float32, with this mean and standard deviation taken out."""
    centre = torch.tensor(mean, device=pictures.device).view(-1, 1, 1)
    spread = torch.tensor(std, device=pictures.device).view(-1, 1, 1)
    channels = max(pictures.shape[1], len(centre), len(spread))
    scaled = pictures.expand(-1, channels, -1, -1).to(torch.float32, copy=True)
    return scaled.mul_(1 / (255 * spread)).sub_(centre / spread)


def centred(
    pictures: Pictures,
    size: int,
    generator: Generator | None = None,
    part: Tensor | None = None,
) -> Tensor:
    """Not augmented: a small picture whole, of a photograph the centre; S x S unless size is 0."""
    pictures = of(pictures, part)
    if isinstance(pictures, Photographs):
        return crop(pictures, centre_boxes(*sides(pictures), share=0.875), size)
    if size == 0 or pictures.shape[-2:] == (size, size):
        return pictures
    return crop(pictures, centre_boxes(*sides(pictures), share=1.0), size)


def shift(
    pictures: Pictures,
    size: int,
    generator: Generator | None = None,
    part: Tensor | None = None,
) -> Tensor:
    """Moved by up to a fourteenth of the side (2 of 28 pixels) each way; black moves in."""
    still = centred(pictures, size, part=part)
    height, width = still.shape[-2:]
    most = max(height, width) // 14
    padded = F.pad(still, (most,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, y, x, H, W)
    drawn = torch.randint(2 * most + 1, (2, len(pictures)), generator=generator)
    y, x = of(drawn.T, part).T.to(still.device)
    return windows[torch.arange(len(still), device=still.device), :, y, x]


def affine(
    pictures: Pictures,
    size: int,
    generator: Generator | None = None,
    part: Tensor | None = None,
) -> Tensor:
    """Turned, moved, scaled and sheared; black moves in.

    As torchvision's RandomAffine(degrees=10, translate=(0.08, 0.08), scale=(0.9, 1.1), shear=8)
    with bilinear interpolation. Differs: moved by fractions of a pixel too.
    """
    still = centred(pictures, size, part=part)
    height, width = still.shape[-2:]
    low, high = torch.tensor(
        [[-radians(10), -0.08, -0.08, 0.9, -radians(8)], [radians(10), 0.08, 0.08, 1.1, radians(8)]]
    )
    drawn = low + (high - low) * torch.rand(len(pictures), 5, generator=generator)
    turn, x, y, scale, shear = of(drawn, part).T
    matrix = inverse_affine(turn, x * width, y * height, scale, shear, height, width)
    grid = F.affine_grid(
        matrix.to(still.device), [len(still), 1, height, width], align_corners=False
    )
    return F.grid_sample(still.float(), grid, align_corners=False)


def inverse_affine(
    turn: Tensor, x: Tensor, y: Tensor, scale: Tensor, shear: Tensor, height: int, width: int
) -> Tensor:
    """Where each output pixel comes from: matrices (B, 2, 3) on coordinates in -1..1.

        M = T R S,   T moves by (x, y) pixels, R turns, S scales and shears along x
        returned: M^-1 = S^-1 R^-1 T^-1,   all about the centre

    Angles in radians, positive clockwise, as in torchvision.
    """
    cos, sin, tan = turn.cos(), turn.sin(), shear.tan()
    # R S = scale [[cos, -cos tan - sin], [sin, -sin tan + cos]]; its inverse, row by row
    a, b = (cos - sin * tan) / scale, (sin + cos * tan) / scale
    c, d = -sin / scale, cos / scale
    across = torch.stack([a, b * height / width, -(a * x + b * y) * 2 / width], 1)
    down = torch.stack([c * width / height, d, -(c * x + d * y) * 2 / height], 1)
    return torch.stack([across, down], 1)


def crop_flip(
    pictures: Pictures,
    size: int,
    generator: Generator | None = None,
    part: Tensor | None = None,
) -> Tensor:
    """RandomResizedCrop(size, scale=(0.08, 1), ratio=(3/4, 4/3)) and RandomHorizontalFlip(0.5)."""
    heights, widths = sides(pictures)
    boxes = random_boxes(heights, widths, generator)
    flips = torch.rand(len(boxes), generator=generator) < 0.5
    side = size or int(widths[0])
    return crop(of(pictures, part), of(boxes, part), side, of(flips, part))


def sides(pictures: Pictures) -> tuple[Tensor, Tensor]:
    """Heights and widths, (B,) each."""
    if isinstance(pictures, Photographs):
        return pictures.heights, pictures.widths
    height, width = pictures.shape[-2:]
    return torch.full((len(pictures),), height), torch.full((len(pictures),), width)
