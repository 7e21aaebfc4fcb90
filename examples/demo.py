"""From pictures to search: what `make demo` shows after its study of losses.

    python examples/demo.py OUT

OUT is the folder of the study. The Model of its leading loss indexes the 4,000 digits that it was
trained on, finds the nearest of ten digits that it has never seen, and draws a map of all of them.
"""

import shutil
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from PIL import Image

import nearkin as nk
from nearkin.data.splits import Split
from nearkin.runs.row import Row
from nearkin.runs.store import Store
from nearkin.search.explore import explore, points_of_index

METRIC = "in_train.recall@1"  # whether the nearest training digit is of the same class


def leading(rows: list[Row]) -> tuple[str, float, float, Row]:
    """The loss with the highest mean over seeds, that mean, pixels', and the run of its seed 0."""
    scores: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.metrics.last:
            scores[row.recipe.loss if row.recipe.epochs else ""].append(row)
    means = {
        name: mean((row.metrics.last or {})[METRIC] for row in of) for name, of in scores.items()
    }
    pixels = means.pop("")
    name = max(means, key=means.__getitem__)
    return name, means[name], pixels, min(scores[name], key=lambda row: row.recipe.seed)


def written(split: Split, folder: Path, count: int) -> list[Path]:
    """The first pictures of a split as files: folder/CLASS/NUMBER.png."""
    paths = []
    for i, (pixels, label) in enumerate(zip(split.tensor[:count], split.labels, strict=False)):
        path = folder / split.classes[int(label)] / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0].numpy()).save(path)
        paths.append(path)
    return paths


def main(out: Path) -> None:
    store, splits = Store(out), nk.load("mnist-5k")
    rows = [row for row in store.stored().values() if isinstance(row, Row)]
    loss, score, pixels, row = leading(rows)
    model = nk.Model.load(store.folder_of(row))

    photos, shop = out / "digits", out / "digits-index"
    for old in (photos, shop):
        shutil.rmtree(old, ignore_errors=True)
    written(splits.train, photos, len(splits.train))
    index = nk.Index.create(model, shop)
    index.update(photos, labels="parent")
    new = written(splits.query, out / "new-digits", len(splits.query))[::101]
    answers = index.search(new[:10], k=5)
    right = sum(
        answer.label == path.parent.name for answer, path in zip(answers, new, strict=False)
    )
    page = explore(points_of_index(index), out / "digits-index.html")
    trained = [row.recipe for row in rows if row.recipe.epochs]
    seeds, losses = (len({getattr(r, name) for r in trained}) for name in ("seed", "loss"))
    report = max((out / "report").glob("*.html"), key=lambda path: path.stat().st_mtime)
    nearest = ", ".join(hit.label or "-" for hit in answers[3].hits)
    print(f"""
What you have seen:

1. {losses} losses trained a small network on 4,000 handwritten digits, {seeds} random seeds each.
   By {loss} the nearest neighbour of a new digit is the same digit in {100 * score:.1f} % of
   cases; without any training, by comparing pixels, in {100 * pixels:.1f} %.
   Open {report}: which losses differ, and how surely.
2. The best network put all {len(index):,} digits into an index, and named {right} of
   {len(answers)} new digits rightly. The nearest five of a new {new[3].parent.name} are {nearest}.
   Open {page}: a map of all digits; click one to see its neighbours.

Next, with your own photographs in folders that are named after their classes:
   nearkin train --data photos/ --backbone lite0 --out mine
   nearkin index mine photos/ --output shop && nearkin search shop new.jpg
""")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
