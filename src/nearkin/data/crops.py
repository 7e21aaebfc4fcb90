"""Crops of whole batches: boxes drawn at random or in the centre, cut out, resized and flipped.

Equal in distribution to torchvision's RandomResizedCrop and RandomHorizontalFlip, and to its
antialiased bilinear resize in every pixel, but for rounding.

Dimensions: B batch, C channels, H x W pixels, S side of the result. A box is (top, left, height,
width) in pixels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from math import log

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from nearkin.data.photographs import Photographs


def random_boxes(
    heights: Tensor,
    widths: Tensor,
    generator: Generator | None = None,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """One box (B, 4) in each picture, with a share of its area in `scale` and a ratio in `ratio`.

        area = u H W,  u uniform in scale;   width / height = exp(v),  v uniform in log(ratio)
        the first of ten such boxes that fits, at a uniform place
        or, where none does, the largest in the centre whose ratio is allowed

    Source: Szegedy et al., Going deeper with convolutions, 2014, arXiv:1409.4842, section 6, in
    the form of torchvision's RandomResizedCrop.
    """
    heights, widths = heights[:, None], widths[:, None]  # (B, 1)

    def uniform(low: float, high: float) -> Tensor:  # (B, 10)
        return low + (high - low) * torch.rand(len(heights), 10, generator=generator)

    area = uniform(*scale) * heights * widths
    aspect = uniform(log(ratio[0]), log(ratio[1])).exp()
    width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (width > 0) & (width <= widths) & (height > 0) & (height <= heights)

    # an eleventh box, which always fits, after the ten
    whole = (widths / heights).clamp(*ratio)
    last_width = torch.minimum(widths, (heights * whole).round())
    last_height = torch.minimum(heights, (widths / whole).round())
    chosen = torch.hstack([fits, torch.ones_like(fits[:, :1])]).int().argmax(1, keepdim=True)
    width = torch.hstack([width, last_width]).gather(1, chosen)
    height = torch.hstack([height, last_height]).gather(1, chosen)

    spare = torch.hstack([heights - height, widths - width])
    place = torch.rand(len(heights), 2, generator=generator) * (spare + 1)
    corner = torch.where(chosen == 10, spare // 2, place)
    return torch.hstack([corner, height, width]).long()


def centre_boxes(heights: Tensor, widths: Tensor, share: float) -> Tensor:
    """The square (B, 4) in the middle of each picture whose side is this share of the short one.

    As torchvision's Resize(s / share) and CenterCrop(s): 0.875 is 224 of 256.
    """
    side = (torch.minimum(heights, widths) * share).round().long()
    return torch.stack([(heights - side) // 2, (widths - side) // 2, side, side], 1)


def crop(
    pictures: Tensor | Photographs, boxes: Tensor, size: int, flips: Tensor | None = None
) -> Tensor:
    """Each box of its picture, resized to size x size, mirrored where `flips` (B,) is true.

    Args:
        pictures: (B, C, H, W) uint8, or B photographs.
        boxes: (B, 4) integers.

    Returns:
        (B, C, S, S): uint8 on the CPU, where each picture is resized by itself and the threads
        share them; float32 in 0..255 on another device, where all are resized at once.
    """
    flips = torch.zeros(len(boxes), dtype=torch.bool) if flips is None else flips
    if pictures.device.type == "cpu":
        return crop_one_by_one(pictures, boxes, size, flips)
    return crop_by_products(pictures, boxes, size, flips)


def crop_one_by_one(
    pictures: Tensor | Photographs, boxes: Tensor, size: int, flips: Tensor
) -> Tensor:
    """crop, picture by picture, with torch's own uint8 resize: the fastest on a CPU."""
    parts, mirrored = cuts(pictures, boxes), flips.tolist()
    out = torch.empty(len(parts), parts[0].shape[0], size, size, dtype=torch.uint8)
    rows = out.numpy()  # to copy without OpenMP, whose threads would get in the way of ours

    def fill(indices: range) -> None:
        for i in indices:
            part = F.interpolate(parts[i][None], (size, size), mode="bilinear", antialias=True)
            rows[i] = (part.flip(-1) if mirrored[i] else part)[0].numpy()

    threads = torch.get_num_threads()
    shares = [range(thread, len(parts), threads) for thread in range(threads)]
    if threads == 1:
        fill(*shares)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, shares))
    return out


def cuts(pictures: Tensor | Photographs, boxes: Tensor) -> list[Tensor]:
    """Of each picture its box, as a view (C, h, w)."""
    if isinstance(pictures, Photographs):
        return pictures.cuts(boxes)
    return [
        picture[:, top : top + height, left : left + width]
        for picture, (top, left, height, width) in zip(pictures, boxes.tolist(), strict=True)
    ]


def crop_by_products(
    pictures: Tensor | Photographs, boxes: Tensor, size: int, flips: Tensor
) -> Tensor:
    """crop, as two matrix products for the whole batch, rows (S, H) and columns (S, W)."""
    boxes, flips = boxes.to(pictures.device), flips.to(pictures.device)
    top, left, height, width = boxes.T
    tallest, widest = int(height.max()), int(width.max())
    if isinstance(pictures, Photographs):
        parts = pictures.padded(top, left, tallest, widest)
    else:
        b = torch.arange(len(boxes), device=boxes.device)[:, None, None]
        y = (top[:, None] + torch.arange(tallest, device=boxes.device))[:, :, None]
        x = (left[:, None] + torch.arange(widest, device=boxes.device))[:, None, :]
        y, x = y.clamp_max(pictures.shape[2] - 1), x.clamp_max(pictures.shape[3] - 1)
        parts = pictures[b, :, y, x].permute(0, 3, 1, 2)  # (B, C, H, W)
    rows, columns = triangle(height, size, tallest), triangle(width, size, widest)
    columns = torch.where(flips[:, None, None], columns.flip(1), columns)
    return rows[:, None] @ parts.float() @ columns.mT[:, None]


def triangle(lengths: Tensor, size: int, most: int) -> Tensor:
    """Weights (B, size, most) that resize `lengths` (B,) pixels to `size`, antialiased bilinear.

        w_ij ~ max(0, 1 - |j + 1/2 - (i + 1/2) s| / max(s, 1)),   s = length / size,  j < length

    Each row sums to 1.
    """
    s = (lengths / size)[:, None, None]
    i = torch.arange(size, device=lengths.device)[:, None] + 0.5
    j = torch.arange(most, device=lengths.device) + 0.5
    weights = (1 - (j - i * s).abs() / s.clamp_min(1)).clamp_min(0)
    weights = weights * (j < lengths[:, None, None])
    return weights / weights.sum(-1, keepdim=True)
