"""What it costs to search the first numbers of an embedding alone, with and without Matryoshka."""

from pathlib import Path

import numpy as np

import nearkin as nk
from nearkin.measure.statistics import estimate

DIM, CUTS, OUT = 64, (64, 32, 16, 8, 4, 2), Path("out/matryoshka")


def main(epochs: int = 8, seeds: int = 3) -> dict[str, dict[int, float]]:
    """R@1 in per cent of the first d numbers of 64: loss -> d -> mean over seeds."""
    inner = {"loss": "triplet", "dims": "64,32,16,8,4,2"}
    methods: dict[str, dict] = {
        "triplet": {"loss": "triplet"},
        "matryoshka of triplet": {"loss": "matryoshka", "loss_options": inner},
    }
    found: dict[str, dict[int, float]] = {}
    for name, method in methods.items():
        recipes = [
            nk.Recipe(dim=DIM, epochs=epochs, batch=120, per_class=12, seed=seed, **method)
            for seed in range(seeds)
        ]
        scores: dict[int, list[float]] = {d: [] for d in CUTS}
        for row in nk.complete(recipes, OUT):
            with np.load(OUT / "runs" / row.recipe.hash / "embeddings.npz") as file:
                x, y = file["x"], file["y"]
            for d in CUTS:
                metrics = nk.evaluate(x[:, :d], y, metric="euclidean", ks=[1], precision_ks=[])
                scores[d].append(100 * metrics["recall@1"])
        found[name] = {d: estimate(values).mean for d, values in scores.items()}
    return found


if __name__ == "__main__":
    table = main()
    print(f"{'recall@1, %, first':24}" + "".join(f"{d:>7}" for d in CUTS))
    for name, scores in table.items():
        print(f"{name:24}" + "".join(f"{scores[d]:7.1f}" for d in CUTS))
