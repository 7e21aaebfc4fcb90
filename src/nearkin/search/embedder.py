"""What embeds a photograph for a service: a Model on torch, or its ONNX form beside an index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nearkin.search.index import LIGHT, Index
from nearkin.search.light import light_model
from nearkin.search.values import refuse_other


@dataclass(frozen=True)
class Embedder:
    """What turns a picture file into pixels, and pixels into embeddings.

    prepare: path -> (C, H, W) uint8.
    embed: (B, C, H, W) uint8 -> (B, D) float32.
    """

    prepare: Callable[[Path], np.ndarray]
    embed: Callable[[np.ndarray], np.ndarray]
    identity: str
    dim: int


def embedder_of(model: Any) -> Embedder:
    """A Model's own embedder, on torch."""
    import torch

    if model.preprocessing is None:
        raise ValueError("wanted a Model of photographs, got one of vectors")
    return Embedder(
        lambda path: model.preprocessing.prepare(path).numpy(),
        lambda pixels: np.asarray(model.embed_prepared(torch.from_numpy(pixels))),
        model.identity,
        model.dim,
    )


def embedder_of_index(index: Index) -> Embedder:
    """The ONNX form beside an index where there is one, else its Model."""
    light = light_model(index.path / LIGHT)
    if light is None:
        return embedder_of(index.model)
    refuse_other(light.identity, index.description, index.path / LIGHT)
    return Embedder(light.prepared, light.embed_pixels, light.identity, index.description.dim)
