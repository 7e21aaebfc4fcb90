"""Shorter embeddings: fewer dimensions, fewer bits a number, and how near two of them are.

Dimensions: N and M embeddings, D numbers in each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearkin.tensors import inner, unit

PRECISIONS = ("float32", "float16", "int8", "binary")
SIMILARITIES = {
    "cosine": "cosine",
    "inner": "inner product",
    "euclidean": "minus the Euclidean distance",
}
"""What each metric's similarity is called: the larger, the nearer, whatever the metric."""


def truncated(x: Tensor, dims: int | None) -> Tensor:
    """The first `dims` numbers of each embedding (N, D); all of them where it is None."""
    if dims is None:
        return x
    if isinstance(dims, bool) or not isinstance(dims, int) or not 1 <= dims <= x.shape[1]:
        raise ValueError(f"truncate must be a whole number in 1..{x.shape[1]}, got {dims!r}")
    return x[:, :dims]


def quantised(x: Tensor, precision: str, limit: float | None = None) -> Tensor:
    """Embeddings (N, D) in another precision.

    float16   x, rounded;  2 bytes a number
    int8      round(127 x / s), clipped to -127..127;  s = limit, or of each embedding its own
              largest |x|, which leaves its cosines to others as they were;  1 byte
    binary    the bits x > 0, eight of them a byte, the first dimension in the highest bit, as
              numpy.packbits has them: (N, ceil(D / 8)) uint8
    """
    if precision == "float32":
        return x
    if precision == "float16":
        return x.clamp(-65504, 65504).half()  # the largest that float16 has
    if precision == "int8":
        most = x.abs().amax(1, keepdim=True) if limit is None else torch.tensor(limit)
        scaled = 127 * x / most.clamp_min(torch.finfo(torch.float32).tiny)
        return scaled.round().clamp(-127, 127).to(torch.int8)
    if precision == "binary":
        return torch.from_numpy(np.packbits((x > 0).numpy(), axis=1))
    raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")


def similarity(a: Any, b: Any, metric: str, dim: int, limit: float | None = None) -> Tensor:
    """Similarities (N, M) float32 of embeddings (N, D) and (M, D), the larger the nearer.

        cosine        a.b / (|a| |b|)
        inner         a.b
        euclidean     -|a - b|
        binary        1 - 2 h / D,  h the number of bits that differ: the cosine of the signs

    Both of one precision: floats, int8 or (uint8) binary. One embedding (D,) counts as (1, D).
    `dim` is D, which packed bits do not tell; where they hold fewer bytes, it is 8 times those.
    """
    a, b = (matrix(x) for x in (a, b))
    kinds = {kind_of(x) for x in (a, b)}
    if len(kinds) > 1:
        raise ValueError(f"wanted embeddings of one precision, got {' and '.join(sorted(kinds))}")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"wanted embeddings of one size, got {tuple(a.shape)}, {tuple(b.shape)}")
    kind = kinds.pop()
    if kind == "binary":
        dims = dim if a.shape[1] == -(-dim // 8) else 8 * a.shape[1]
        a, b = (signs(x)[:, :dims] for x in (a, b))
        return a @ b.T / dims
    a, b = a.float(), b.float()
    if metric == "cosine":
        return inner(unit(a), unit(b)).clamp_(-1, 1)
    if kind == "int8":
        if limit is None:
            raise ValueError(f"int8 embeddings by {SIMILARITIES[metric]} want a limit")
        a, b = a * (limit / 127), b * (limit / 127)
    if metric == "inner":
        return inner(a, b)
    return -torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")  # exact for equal rows


def matrix(x: Any) -> Tensor:
    """Embeddings as a matrix (N, D) on the CPU."""
    x = x.detach().cpu() if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
    x = x[None] if x.ndim == 1 else x
    if x.ndim != 2:
        raise ValueError(f"wanted embeddings (N, D), got {tuple(x.shape)}")
    return x


def kind_of(x: Tensor) -> str:
    """The precision by the type of the numbers."""
    if x.is_floating_point():
        return "floats"
    kinds = {torch.int8: "int8", torch.uint8: "binary"}
    if x.dtype not in kinds:
        raise ValueError(f"wanted embeddings of floats, int8 or uint8 (binary), got {x.dtype}")
    return kinds[x.dtype]


def signs(packed: Tensor) -> Tensor:
    """-1 or 1 for each bit: (N, bytes) uint8 -> (N, 8 bytes) float32."""
    return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1).astype(np.float32) * 2 - 1)
