"""What it costs to keep an embedding in fewer dimensions and fewer bits."""

from typing import Any

import torch

import nearkin as nk

DIM, CUTS, PRECISIONS = 64, (64, 16, 4), ("float32", "float16", "int8", "binary")


def recall(model: nk.Model, split, **short) -> float:
    """R@1 in per cent, of each item among all the others."""
    x = model.embed(split, **short)
    similarity = model.similarity(x, x).fill_diagonal_(-torch.inf)
    return 100 * (split.labels[similarity.argmax(1)] == split.labels).double().mean().item()


def main(epochs: int = 8, seed: int = 0) -> dict[tuple[str, int], float]:
    """(precision, dimensions) -> R@1 in per cent, of a network trained for its short forms too."""
    splits = nk.load("mnist-5k")
    options = {"loss": "triplet", "dims": "64,32,16,8,4"}
    settings: dict[str, Any] = {"epochs": epochs, "batch": 120, "per_class": 12, "seed": seed}
    model = nk.fit("network", "matryoshka", splits, loss_options=options, dim=DIM, **settings)
    return {
        (precision, dims): recall(model, splits.query, precision=precision, truncate=dims)
        for precision in PRECISIONS
        for dims in CUTS
    }


if __name__ == "__main__":
    found = main()
    print("recall@1, %" + "".join(f"{dims:>9}-D" for dims in CUTS))
    for precision in PRECISIONS:
        print(f"{precision:11}" + "".join(f"{found[precision, dims]:11.1f}" for dims in CUTS))
