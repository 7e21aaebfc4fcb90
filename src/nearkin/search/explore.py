"""A map of an index, or of an embeddings file, as one HTML file that opens from a disk.

Its points are placed by `measure.plane`; each has its exact neighbours, and how true the map is
there. Beside it stands a worklist, whose decisions a person saves as CSV, for `nearkin index
--decisions` and `nearkin train`.

Dimensions: N items, K neighbours of each, D embedding.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from nearkin.files import write_whole
from nearkin.search.worklist import worklist

NEIGHBOURS = 10
LINKS = 15  # neighbours by which the map is laid out
TILE = 64  # pixels of a thumbnail's side on a sheet
ACROSS = 32  # thumbnails in a row of a sheet
INSIDE = 10_000  # items up to which thumbnails stand inside the file
NO_CLASS = 2**32 - 1


@dataclass
class Points:
    """Items to be shown: names, labels, embeddings (N, D), and what more is known of them."""

    title: str
    names: list[str]
    labels: Sequence[str | None]
    vectors: np.ndarray
    metric: str
    splits: list[str] | None = None
    digests: list[str] | None = None
    thumbnails: Sequence[bytes | None] | None = None


def points_of_index(index: Any, thumbnails: bool = True) -> Points:
    """The items of an index; where it keeps up with several folders, these are its splits."""
    from nearkin.search.photos import file_of
    from nearkin.search.store import vectors_of

    columns = ["path", "label", "sha256", "vector", *(["thumbnail"] if thumbnails else [])]
    items = index.store.scan(columns)
    names = items["path"].to_pylist()
    sources = [file_of(source) for source, _ in index.description.sources]
    splits = None
    if len(sources) > 1:
        splits = [
            next((s.name for s in sources if file_of(name).is_relative_to(s)), "") for name in names
        ]
    return Points(
        index.path.name,
        names,
        items["label"].to_pylist(),
        vectors_of(items),
        index.description.metric,
        splits,
        items["sha256"].to_pylist(),
        items["thumbnail"].to_pylist() if thumbnails else None,
    )


def points_of_file(path: Path) -> Points:
    """The items of an embeddings file: x (N, D), y (N,), and names, classes, metric where it has
    them."""
    from nearkin.data.arrays import names_in, read_arrays
    from nearkin.data.sets.features import checked_names, checked_vectors, text_of, told_metric
    from nearkin.labels import plain_labels

    arrays = read_arrays(path, ("x", "y", "names", "classes"))
    if "x" not in arrays:
        raise ValueError(f"{path}: wanted an array x (N, D), got {', '.join(names_in(path))}")
    x = checked_vectors(path, arrays["x"])
    labels: list[str | None] = [None] * len(x)
    if "y" in arrays:
        kinds = plain_labels(arrays["y"], f"{path}: y must be {len(x)} integers or texts")
        if len(kinds) != len(x):
            raise ValueError(f"{path}: wanted {len(x)} labels y, got {len(kinds)}")
        classes = text_of(arrays["classes"]) if "classes" in arrays else []
        named = bool(classes) and kinds.dtype.kind == "i"
        if named and not 0 <= kinds.min() <= kinds.max() < len(classes):
            raise ValueError(
                f"{path}: y must be in 0..{len(classes) - 1}, as there are {len(classes)} classes, "
                f"got {kinds.min()}..{kinds.max()}"
            )
        labels = [classes[kind] if named else str(kind) for kind in kinds.tolist()]
    names = checked_names(path, arrays, len(x)) or [f"item {i}" for i in range(len(x))]
    return Points(path.stem, names, labels, x, told_metric(path) or "cosine")


@dataclass
class Laid:
    """Points with their places on the map (N, 2), their neighbours (N, K), and how true it is."""

    points: Points
    places: Any
    indices: np.ndarray
    similar: np.ndarray
    true: np.ndarray

    @property
    def distances(self) -> np.ndarray:
        """To the neighbours (N, K)."""
        return distances_of(self.similar, self.points.metric)


def laid(points: Points, seed: int = 0) -> Laid:
    """The map of these points.

    Raises:
        ValueError: there are fewer than three items.
    """
    n = len(points.names)
    if n < 3:
        raise ValueError(f"a map wants three items or more, got {n}")
    import torch

    from nearkin.measure import neighbours
    from nearkin.measure.plane import layout, principal, truth

    x = torch.from_numpy(np.array(points.vectors, dtype=np.float32))
    found = neighbours(x, k=min(LINKS, n - 1), metric=points.metric)
    unit = torch.nn.functional.normalize(x, dim=1) if points.metric == "cosine" else x
    places = layout(found.indices, principal(unit), seed=seed)
    k = min(NEIGHBOURS, n - 1)
    true = truth(found.indices[:, :k], places).numpy()
    near, similar = found.indices[:, :k].numpy(), found.similarities[:, :k].numpy()
    return Laid(points, places.numpy(), near, similar, true)


def explore(points: Points, output: Path, *, seed: int = 0) -> Path:
    """Write the page of these points; the file's path.

    Beyond 10,000 items its thumbnails stand in a folder beside it.
    """
    if output.is_dir():
        raise ValueError(f"{output}: wanted a file to write, it is a folder")
    made = laid(points, seed)
    sheets = sheets_of(points.thumbnails) if points.thumbnails is not None else []
    folder = output.with_name(f"{output.stem}-pictures")
    if len(points.names) > INSIDE:
        for number, sheet in enumerate(sheets):
            write_whole(folder / f"{number}.jpg", lambda file, sheet=sheet: file.write(sheet))
        shown = [f"{quote(folder.name)}/{number}.jpg" for number in range(len(sheets))]
    else:
        shown = [f"data:image/jpeg;base64,{base64.b64encode(s).decode()}" for s in sheets]
    text = page(*contents(made, shown))
    write_whole(output, lambda file: file.write(text.encode()))
    return output


def contents(made: Laid, sheets: list[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the page holds: facts, and arrays of one entry an item."""
    points, (n, k) = made.points, made.indices.shape
    listed = worklist(made.indices, made.distances, points.labels, points.splits, points.digests)
    folders = [str(Path(name).parent) for name in points.names]
    known = {
        "class": sorted({label for label in points.labels if label is not None}),
        "split": sorted(set(points.splits or [])),
        "folder": sorted(set(folders)),
    }
    number = {kind: {name: i for i, name in enumerate(names)} for kind, names in known.items()}
    facts = {
        "title": points.title,
        "metric": points.metric,
        "n": n,
        "k": k,
        "classes": known["class"],
        "splits": known["split"],
        "folders": known["folder"],
        "names": [Path(name).name for name in points.names],
        "worklist": {kind: [asdict(e) for e in each] for kind, each in vars(listed).items()},
        "truth": round(float(made.true.mean()), 4),
        "sheets": sheets,
        "tile": TILE,
        "across": ACROSS,
    }
    flat = made.places - made.places.min(0)
    flat += (flat.max() - flat.max(0)) / 2  # in the middle of a square
    kinds = [NO_CLASS if c is None else number["class"][c] for c in points.labels]
    arrays = {
        "xy": (flat / max(flat.max(), 1e-9) * 65535).round().clip(0, 65535).astype("<u2"),
        "folder": np.array([number["folder"][folder] for folder in folders], "<u4"),
        "class": np.array(kinds, "<u4"),
        "split": np.array([number["split"][s] for s in points.splits or []], "<u2"),
        "near": made.indices.astype("<u4"),
        "similar": made.similar.astype("<f4"),
        "true": (made.true * 255).round().astype("u1"),
    }
    return facts, arrays


def write_atlas(points: Points, output: Path, *, seed: int = 0) -> Path:
    """Write the map as embedding-atlas reads it, for `embedding-atlas FOLDER/dataset.parquet --x x
    --y y --neighbors neighbors --image image`: dataset.parquet, and metadata.json of its views.

    Source: embedding-atlas 0.26, https://github.com/apple/embedding-atlas.
    """
    import pyarrow as pa
    from pyarrow import parquet

    made = laid(points, seed)
    links = [
        {"ids": near, "distances": far}
        for near, far in zip(made.indices.tolist(), made.distances.tolist(), strict=True)
    ]
    columns: dict[str, Any] = {
        "id": list(range(len(points.names))),
        "x": made.places[:, 0].astype(np.float64),
        "y": made.places[:, 1].astype(np.float64),
        "path": points.names,
        "class": points.labels,
        "true": made.true.astype(np.float64),
        "neighbors": links,
    }
    shown = {"id": "id", "projection": {"x": "x", "y": "y"}, "neighbors": "neighbors"}
    if points.splits is not None:
        columns["split"] = points.splits
    if points.thumbnails is not None:
        pictures = zip(points.thumbnails, points.names, strict=True)
        columns["image"] = [{"bytes": b, "path": name} for b, name in pictures]
        shown["image"] = "image"
    table = pa.table(columns)
    text = json.dumps({"props": {"data": shown}, "database": {"type": "wasm", "load": True}})
    write_whole(output / "dataset.parquet", lambda file: parquet.write_table(table, file))
    write_whole(output / "metadata.json", lambda file: file.write(text.encode()))
    return output


def distances_of(similar: np.ndarray, metric: str) -> np.ndarray:
    """Distances of similarities: of cosines the length of the chord, of others what is lacking to
    an item's own nearest."""
    if metric == "cosine":
        return np.sqrt(np.clip(2 - 2 * similar.astype(np.float64), 0, None))
    return -similar if metric == "euclidean" else similar.max() - similar


def sheets_of(thumbnails: Sequence[bytes | None]) -> list[bytes]:
    """JPEGs of 32 x 32 thumbnails each, in the items' order."""
    from PIL import Image

    from nearkin.data.pictures import opened

    sheets = []
    for start in range(0, len(thumbnails), ACROSS**2):
        some = thumbnails[start : start + ACROSS**2]
        sheet = Image.new("RGB", (ACROSS * TILE, math.ceil(len(some) / ACROSS) * TILE), "white")
        for place, small in enumerate(some):
            if small is None:
                continue
            with opened(BytesIO(small), Path("thumbnail.jpg")) as picture:
                picture.thumbnail((TILE, TILE))
                x, y = place % ACROSS * TILE, place // ACROSS * TILE
                middle = x + (TILE - picture.width) // 2, y + (TILE - picture.height) // 2
                sheet.paste(picture, middle)
        out = BytesIO()
        sheet.save(out, "JPEG", quality=75)
        sheets.append(out.getvalue())
    return sheets


def page(facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """The whole page as text: markup, style, program and data."""
    parts = []
    at = 0
    for name, array in arrays.items():
        data = array.tobytes()
        parts.append(data + bytes(-len(data) % 4))
        facts.setdefault("arrays", {})[name] = [at, array.dtype.str.lstrip("<|"), array.size]
        at += len(parts[-1])
    head = json.dumps(facts, ensure_ascii=True).encode()
    packed = gzip.compress(len(head).to_bytes(4, "little") + head + b"".join(parts), 6, mtime=0)
    source = files("nearkin.search").joinpath("page")
    text = source.joinpath("explore.html").read_text(encoding="utf-8")
    for mark, value in (
        ("TITLE", html.escape(f"Map of {facts['title']}")),
        ("STYLE", source.joinpath("explore.css").read_text(encoding="utf-8")),
        ("PROGRAM", program()),
        ("DATA", base64.b64encode(packed).decode()),
    ):
        text = text.replace(f"@@{mark}@@", value)
    return text


PROGRAM = (
    *("items", "points", "colours", "overlay", "finding"),
    *("panels", "decisions", "controls", "begin"),
)
"""The files of the page's program in the order in which they are read: items, which holds what all
share, comes first, and begin, which calls all others, last."""


def program() -> str:
    """The page's program as one text."""
    source = files("nearkin.search").joinpath("page", "explore")
    return "\n".join(source.joinpath(f"{n}.js").read_text(encoding="utf-8") for n in PROGRAM)
