"""Which of two losses is better, with an interval and a paired test over shared seeds."""

from itertools import product

import nearkin as nk
from nearkin.measure.statistics import estimate, paired

LOSSES, SEEDS = ("contrastive", "ratio-triplet"), range(3)

recipes = [
    nk.Recipe(loss=loss, seed=seed, dim=16, epochs=2, batch=120, per_class=12)
    for loss, seed in product(LOSSES, SEEDS)
]
rows = nk.complete(recipes, "out/comparison")  # a second call finds them stored

scores: dict[str, dict[int, float]] = {loss: {} for loss in LOSSES}
for row in rows:
    scores[row.recipe.loss][row.recipe.seed] = row["metrics"]["last"]["recall@1"]
for loss, values in scores.items():
    e = estimate(list(values.values()))
    print(f"{loss:15} recall@1 {100 * e.mean:.2f} [{100 * e.low:.2f}, {100 * e.high:.2f}] %")
difference = paired(*scores.values())
print(f"difference {100 * difference.estimate.mean:+.2f} points, p = {difference.p:.3f}")
