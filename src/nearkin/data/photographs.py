"""Photographs: pictures of many sizes in one tensor of pixels, cut and padded without a loop.

Dimensions: B pictures, C channels.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Photographs:
    """B pictures of many sizes; picking some of them copies no pixel.

    pixels: (bytes,) uint8, of all pictures of the cache.
    starts, heights, widths: (B,) int64, of these pictures.
    digests: (B, 16) uint8, the same for the same pixels, or None where nobody has made them.
    """

    pixels: Tensor
    starts: Tensor
    heights: Tensor
    widths: Tensor
    channels: int
    digests: Tensor | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, indices: Tensor) -> Photographs:
        """The photographs at these indices."""
        indices = indices.to(self.starts.device)
        return replace(
            self,
            starts=self.starts[indices],
            heights=self.heights[indices],
            widths=self.widths[indices],
            digests=None if self.digests is None else self.digests[indices],
        )

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def to(self, device: torch.device | str) -> Photographs:
        """The pixels copied to the device; the sizes stay on the CPU."""
        return replace(self, pixels=self.pixels.to(device))

    def cuts(self, boxes: Tensor) -> list[Tensor]:
        """Of each picture its box (top, left, height, width), as a view (C, height, width)."""
        top, left, height, width = boxes.T
        starts = self.starts + (top * self.widths + left) * self.channels
        numbers = torch.stack([starts, height, width, self.widths * self.channels]).T.tolist()
        return [
            self.pixels.as_strided((self.channels, h, w), (1, row, self.channels), start)
            for start, h, w, row in numbers
        ]

    def padded(self, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
        """Of each picture the box of this size, (B, C, height, width) uint8.

        Where a box leaves its picture, the nearest pixel inside stands. On the pixels' device.
        """
        device = self.pixels.device
        starts, heights, widths, top, left = (
            numbers.to(device)[:, None, None]
            for numbers in (self.starts, self.heights, self.widths, top, left)
        )
        y = torch.minimum(top + torch.arange(height, device=device)[:, None], heights - 1)
        x = torch.minimum(left + torch.arange(width, device=device), widths - 1)
        first = starts + (y * widths + x) * self.channels  # (B, height, width)
        return torch.stack([self.pixels[first + c] for c in range(self.channels)], 1)

    def dense(self) -> Tensor:
        """Pictures that are all of one size, as one tensor (B, C, H, W)."""
        height, width = int(self.heights[0]), int(self.widths[0])
        rows = self.pixels.unfold(0, height * width * self.channels, 1)[self.starts]
        return rows.view(-1, height, width, self.channels).permute(0, 3, 1, 2).contiguous()


def stored_side(size: int) -> int:
    """The short side at which photographs are stored for batches of this side: 8/7 of it, or 256.

    >>> stored_side(224), stored_side(448)
    (256, 512)
    """
    return max(256, ceil(size * 8 / 7))


def digests_of(pictures: Photographs) -> Tensor:
    """16 bytes of each picture's shape and pixels: (B, 16) uint8."""
    lengths = pictures.heights * pictures.widths * pictures.channels
    sizes = torch.stack([pictures.starts, pictures.starts + lengths, pictures.widths], 1).tolist()
    pixels = pictures.pixels.cpu().numpy()

    def digest(of: list[int]) -> bytes:
        start, end, width = of
        content = hashlib.blake2b(f"{width} {pictures.channels}".encode(), digest_size=16)
        content.update(pixels[start:end].data)
        return content.digest()

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found = b"".join(pool.map(digest, sizes))
    return torch.frombuffer(bytearray(found), dtype=torch.uint8).view(-1, 16)
