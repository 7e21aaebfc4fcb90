"""Time and memory as functions of N, with the power of N by which time grows; large.py has the
sizes that take hours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import Row, peak_memory, seconds
from nearkin.measure import evaluate, neighbours
from nearkin.measure.nearest.gallery import Gallery
from nearkin.search.explore import Points, explore
from nearkin.search.photos import find
from nearkin.search.store import LanceStore, table_of

TITLE = "Growth: time and memory as functions of N, 64-D"
WIDTH, A_CLASS = 64, 50


@dataclass(frozen=True)
class Case:
    """What is measured at three sizes. prepare(N) makes what `work` takes, and is not timed.

    power: of N, by which time should grow.
    """

    what: str
    prepare: Callable[[int], object]
    work: Callable[..., object]
    sizes: tuple[int, int, int]
    power: int
    peer: str = ""
    peers_work: Callable[..., object] | None = None


def rows(quick: bool) -> Iterator[Row]:
    """Each case at its three sizes; the exponent stands at the largest."""
    for case in CASES:
        yield from case_rows(case, tuple(n // 20 for n in case.sizes) if quick else case.sizes)


def case_rows(case: Case, sizes: tuple[int, ...]) -> Iterator[Row]:
    """A case, its peer beside it, at all sizes."""
    ours: list[float] = []
    theirs: list[float] = []
    for size in sizes:
        given = case.prepare(size)
        ways = {"ours": lambda given=given: case.work(given)}
        if case.peers_work:
            ways["peer"] = lambda given=given: case.peers_work and case.peers_work(given)
        took = seconds(ways, repeats=3)
        ours.append(took["ours"])
        theirs += [took["peer"]] if case.peers_work else []
        note = ""
        if size == sizes[-1]:
            note = f"time grows as N^{exponent(sizes, ours):.2f}, expected {case.power}"
            note += f"; the peer's as N^{exponent(sizes, theirs):.2f}" if theirs else ""
        yield Row(
            f"{case.what}, {size:,}",
            ours[-1],
            case.peer,
            took.get("peer"),
            memory=peak_memory(alone, case.what, size),
            note=note,
        )


def exponent(sizes: tuple[int, ...], times: list[float]) -> float:
    """The slope of log time over log N, by least squares.

    >>> exponent((10, 20, 40), [1.0, 4.0, 16.0])
    2.0
    """
    return round(float(np.polyfit(np.log(sizes), np.log(times), 1)[0]), 6)


def alone(what: str, size: int) -> None:
    """What a process of its own runs, to show its memory."""
    case = next(case for case in CASES if case.what == what)
    case.work(case.prepare(size))


def embeddings(size: int) -> torch.Tensor:
    """(size, 64) float32: classes of 50, one row after the other."""
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(-(-size // A_CLASS), WIDTH, generator=random)
    return centres[classes(size)] + torch.randn(size, WIDTH, generator=random)


def classes(size: int) -> torch.Tensor:
    return torch.arange(size) // A_CLASS


def faiss_nearest(x: torch.Tensor) -> object:
    import faiss

    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x.numpy())
    return index.search(x.numpy(), 17)


def one_coordinate(size: int) -> torch.Tensor:
    return embeddings(size)[:, :1].contiguous()


def constant(size: int) -> torch.Tensor:
    return torch.ones(size, WIDTH)


def random_rows(size: int) -> torch.Tensor:
    return torch.randn(size, WIDTH, generator=torch.Generator().manual_seed(1))


def nearest(x: torch.Tensor) -> object:
    return neighbours(x, 16, metric="euclidean")


def nearest_of_random(x: torch.Tensor) -> object:
    return nearest(random_rows(len(x)))


def stored(x: torch.Tensor) -> object:
    """Rows put into a new table, and read."""
    with tempfile.TemporaryDirectory() as folder:
        store = LanceStore(Path(folder), x.shape[1])
        plain = {"sha256": "", "size": 0, "mtime": 0, "label": None, "thumbnail": None}
        store.put(table_of([{"path": f"/{i}.jpg"} | plain for i in range(len(x))], x.numpy()))
        return store.scan(["path", "vector"])


def page(x: torch.Tensor) -> object:
    names = [f"/photos/{i}.jpg" for i in range(len(x))]
    labels = [str(kind) for kind in classes(len(x)).tolist()]
    with tempfile.TemporaryDirectory() as folder:
        return explore(Points("shop", names, labels, x.numpy(), "cosine"), Path(folder) / "p.html")


def folder_of(size: int) -> tempfile.TemporaryDirectory:
    """Files of a byte in folders of 50: they are listed, and not opened."""
    made = tempfile.TemporaryDirectory()
    for i in range(size):
        path = Path(made.name) / f"{i // A_CLASS}" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"0")
    return made


CASES = (
    Case(
        "neighbours, k = 16",
        embeddings,
        lambda x: neighbours(x, 16, metric="inner"),
        (5_000, 10_000, 20_000),
        2,
        "faiss IndexFlatIP",
        faiss_nearest,
    ),
    Case(
        "neighbours of one coordinate, k = 16, Euclidean",
        one_coordinate,
        nearest,
        (5_000, 10_000, 20_000),
        2,
        "64 random ones",
        nearest_of_random,
    ),
    Case(
        "neighbours of equal rows, k = 16, Euclidean",
        constant,
        nearest,
        (5_000, 10_000, 20_000),
        1,
        "random ones",
        nearest_of_random,
    ),
    Case(
        "evaluation",
        embeddings,
        lambda x: evaluate(x, classes(len(x))),
        (5_000, 10_000, 20_000),
        2,
    ),
    Case(
        "a gallery opened, and one query",
        embeddings,
        lambda x: Gallery(x).neighbours(x[:1], 10),
        (25_000, 50_000, 100_000),
        1,
    ),
    Case(
        "a store, put and read",
        embeddings,
        stored,
        (25_000, 50_000, 100_000),
        1,
    ),
    Case(
        "the page of all points",
        embeddings,
        page,
        (1_000, 2_000, 4_000),
        1,
    ),
    Case(
        "a folder of photographs, listed",
        folder_of,
        lambda folder: find([folder.name], "parent"),
        (2_500, 5_000, 10_000),
        1,
    ),
)
