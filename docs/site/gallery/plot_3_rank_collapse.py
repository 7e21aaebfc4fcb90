"""
Rank collapse
=============

Attention without a residual connection makes all embeddings of a batch alike, the deeper the more.
With one it does not.
"""

import matplotlib.pyplot as plt
import torch

import nearkin as nk

torch.manual_seed(0)
x = torch.randn(64, 16)
graph = nk.graphs.full(x)


def residual_share(x: torch.Tensor) -> float:
    """How much of the embeddings is not common to all of them, as a share of their norm."""
    return float((x - x.mean(0)).norm() / x.norm())


# %%
# Eight layers of dot-product attention, with and without the residual connection, untrained.

depth = 8
figure, frame = plt.subplots(figsize=(6, 4))
for name, without in {"whole layer": (), "without the residual": ("residual",)}.items():
    torch.manual_seed(1)
    layers = [nk.graphs.DotProduct(16, without=without).eval() for _ in range(depth)]
    at, shares = x, [residual_share(x)]
    with torch.no_grad():
        for layer in layers:
            at, _ = layer(at, graph)
            shares.append(residual_share(at))
    frame.plot(range(depth + 1), shares, marker="o", label=name)
frame.set(xlabel="layers", ylabel="share that is not common to all", yscale="log")
frame.legend()
figure.tight_layout()
