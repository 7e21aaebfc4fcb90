"""Batches for the tests of losses: every shape that a loss may meet, the odd ones too."""

import torch
from hypothesis import strategies as st
from torch import Tensor


def drawn(labels: list[int], dim: int, seed: int, kind: str) -> tuple[Tensor, Tensor]:
    """Embeddings (B, dim) in float64 for these labels."""
    x = torch.randn(len(labels), dim, generator=torch.Generator().manual_seed(seed)).double()
    if kind == "duplicates":
        x = x[torch.arange(len(x)) // 2]
    if kind == "collapsed":
        x = x[:1].repeat(len(x), 1)
    if kind == "zero":
        x = torch.zeros_like(x)
    return x, torch.tensor(labels)


def batches(largest: int = 12) -> st.SearchStrategy[tuple[Tensor, Tensor]]:
    """Batches of 1 to `largest`: one class, no positives, duplicates, collapsed, all zero."""
    return st.builds(
        drawn,
        st.lists(st.integers(0, 3), min_size=1, max_size=largest),
        st.integers(1, 4),
        st.integers(0, 99),
        st.sampled_from(["random", "random", "duplicates", "collapsed", "zero"]),
    )


def batch(sizes: list[int], dim: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A shuffled batch in float64 with this many items of each class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    return torch.randn(len(labels), dim, generator=generator).double(), labels


def gradient(loss, x: Tensor, *arguments) -> Tensor:
    """d loss / d x."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(loss(x, *arguments), x)[0]
