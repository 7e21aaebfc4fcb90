"""A gallery that stays open: prepared once, searched by one query or many, with the same answers.

`neighbours` puts the gallery on the exact grid and rounds it for the screen in every call. Here
both are done once, so that a query costs little more than one product with the gallery.

Dimensions: B queries, M gallery, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nearkin.measure.inputs import as_given, check_count, check_embeddings, check_memory, matrix
from nearkin.measure.nearest.brute import Search, piece_size, screen_of
from nearkin.measure.nearest.exact import Array, Points, blocks, from_keys, points
from nearkin.measure.nearest.screen import Screen, plain_arithmetic, precisions
from nearkin.measure.nearest.search import Neighbours, nearest_keys

FEW = 16
"""Fewer queries than this are not screened in bfloat16, of which torch's product of few rows is
slower than that of float32."""


class Gallery:
    """Embeddings (M, D) prepared for search; equal to `neighbours(query, k, x)` to the last bit.

    Args:
        x: (M, D) floats, of a tensor or of NumPy.
        metric: "cosine", "inner" (product) or "euclidean".
        memory: bytes that a search may use beside the gallery.

    >>> gallery = Gallery(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]))
    >>> gallery.neighbours(torch.tensor([[1.0, 0.1]]), k=2).indices
    tensor([[0, 1]])
    """

    def __init__(self, x: Array, metric: str = "cosine", memory: float = 1e9):
        x = matrix(x, "gallery")
        check_embeddings(x, "gallery", zero=True)
        check_memory(memory)
        self.metric, self.memory = metric, memory
        self.shape = tuple(x.shape)
        self.device = x.device
        self.parts = [
            Part(start, points(rows, metric))
            for start, rows in blocks(x, piece_size(x.shape[1], memory))
        ]

    def __len__(self) -> int:
        return self.shape[0]

    def neighbours(self, query: Array, k: int) -> Neighbours:
        """The k nearest items of each query (B, D), exactly; ties go to the lower index."""
        asked = matrix(query, "query", self.device)
        check_embeddings(asked, "query", zero=True)
        if asked.shape[1] != self.shape[1]:
            raise ValueError(f"query must have {self.shape[1]} columns, got {asked.shape[1]}")
        k = check_count(k, len(self))
        with plain_arithmetic(asked.device):
            asked = points(asked, self.metric)
            keys = [part.nearest_keys(asked, k, self.memory) for part in self.parts]
            found = from_keys(torch.cat(keys, 1).topk(k).values)
        return Neighbours(*(as_given(each, query) for each in found))


@dataclass
class Part:
    """Some items of a gallery, from `start` on, with the screens that were made of them."""

    start: int
    items: Points
    screens: dict[torch.dtype, Screen] = field(default_factory=dict)

    def nearest_keys(self, query: Points, k: int, memory: float) -> Tensor:
        """The k largest keys (B, k or fewer) of each query among these items, in descending order.

        A key counts the whole gallery's index.
        """
        dtypes = precisions(query.rows.device)
        if len(query) < FEW:
            dtypes = tuple(dtype for dtype in dtypes if dtype != torch.bfloat16)
        for dtype in set(dtypes) - set(self.screens):
            self.screens[dtype] = screen_of(None, self.items, dtype)
        search = Search(query, self.items, None, memory, self.screens, dtypes)
        return nearest_keys(search, min(k, len(self.items))) - self.start
