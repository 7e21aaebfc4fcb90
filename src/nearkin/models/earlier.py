"""Files of before there were Models: the backbone.pt that runs of Nearkin 0.1 left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearkin import models
from nearkin.extras import PACKAGED
from nearkin.files import parse_json
from nearkin.models.preprocess import Preprocessing, photographs_at

if TYPE_CHECKING:
    from nearkin.models.model import Model


def load(path: Path) -> Model:
    """The Model of a backbone.pt, its metric and recipe from the row of its run.

    Where no rows.jsonl stands two folders above, or it lacks the run, the metric is cosine. The
    file does not tell how pictures came to their size: those of timm's models were cropped from
    photographs, those of all others were whole.
    """
    from nearkin.models.model import Model

    backbone = models.rebuild(models.read(path))
    row = row_of(path)
    return Model(
        backbone,
        preprocessing_of(backbone),
        row.get("metric") or "cosine",
        recipe=row.get("recipe"),
        provenance=provenance_of(row),
    )


def preprocessing_of(backbone: Any) -> Preprocessing | None:
    """What pictures go through, as far as the input shape tells; None of features."""
    shape, taken = backbone.made["input_shape"], {"mean": backbone.mean, "std": backbone.std}
    if len(shape) != 3:
        return None
    channels, height, width = shape
    if backbone.made["name"].startswith(("timm", *PACKAGED)):
        return photographs_at(height, channels=channels, **taken)
    return Preprocessing(height, width, channels, 0, 0.0, **taken)


def row_of(path: Path) -> dict:
    """The row of the run that left the file, from rows.jsonl two folders above; {} without one."""
    rows = path.absolute().parents[2] / "rows.jsonl" if len(path.absolute().parents) > 2 else None
    if rows is None or not rows.is_file():
        return {}
    for line in rows.read_text(errors="replace").splitlines():
        if path.absolute().parent.name in line:
            try:
                row = parse_json(line, str(rows))
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and row.get("hash") == path.absolute().parent.name:
                return row
    return {}


def provenance_of(row: dict) -> dict:
    """What a Model keeps of its row."""
    kept = ("hash", "metrics", "data", "cost", "versions", "machine")
    return {name: row[name] for name in kept if name in row}
