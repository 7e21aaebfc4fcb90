"""`nearkin explore`: a map of an index, or of an embeddings file, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def explore(
    first: Positional[Path],
    output: Path | None = None,
    format: Literal["html", "atlas"] = "html",
    thumbnails: bool = True,
    seed: int = 0,
) -> None:
    """Write a map of the photographs of an index: one HTML file that opens from the disk.

    It shows neighbours, how true the map is at each point, and a worklist: labels that look wrong,
    near-duplicates, leaks between folders, hard classes. Decisions are saved as CSV, for
    `nearkin index INDEX --decisions FILE`, and as images.csv, for `nearkin train --data`.

    Example: nearkin explore shop

    Args:
        first: an index, or an .npz file of embeddings that `nearkin embed` wrote.
        output: the file, by default INDEX.html beside the index; of format atlas a folder.
        format: html; or atlas, files that embedding-atlas reads.
        thumbnails: show the photographs, too; the file is larger by 1 kB for each.
        seed: of the draws by which the map is laid out.
    """
    from nearkin.files import resolved
    from nearkin.search.explore import explore as write
    from nearkin.search.explore import points_of_file, points_of_index, write_atlas
    from nearkin.search.index import CARD, Index

    path = first.expanduser()
    if (path / CARD).is_file():
        points = points_of_index(Index(path), thumbnails)
    elif path.is_file():
        points = points_of_file(path)
    else:
        raise ValueError(f"{first}: wanted an index or an .npz file of embeddings")
    base = resolved(path)
    ending = ".html" if format == "html" else "-atlas"
    target = output or base.with_name((base.stem if path.is_file() else base.name) + ending)
    made = (write if format == "html" else write_atlas)(points, target, seed=seed)
    print(f"{made}: {len(points.names):,} items")
