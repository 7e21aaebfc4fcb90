"""Large sizes: a million embeddings, 100,000 photographs, rows and points.

It takes some hours. What is measured is kept in the folder of temporary files, for this revision
of the code, so that a run that was ended goes on. Each size is measured once, by processor time,
which other work on the machine changes little.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.scale import exponent, stored
from benchmarks.timing import Row, forget_peak, in_a_process, peak_bytes, resident_bytes
from nearkin.app.report import report
from nearkin.data import load
from nearkin.files import write_whole
from nearkin.measure import evaluate, neighbours
from nearkin.measure.nearest.gallery import Gallery
from nearkin.runs.machine import versions
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Data, Metrics
from nearkin.runs.row import Row as Finished
from nearkin.runs.store import Store
from nearkin.search.explore import Points, explore
from nearkin.search.photos import find
from nearkin.search.store import LanceStore, table_of

TITLE = "Large sizes: processor time and memory as functions of N, 128-D"
WIDTH, A_CLASS = 128, 20
MEMORY = 1e9
"""bytes that neighbours and an evaluation may take"""
PIECE = 50_000


@dataclass(frozen=True)
class Case:
    """What is measured at three sizes. prepare(N, folder) makes what `work` takes, and is not
    timed.

    power: of N, by which time should grow. answer: bytes of what is found for an item, where the
    work keeps to MEMORY beside its inputs and outputs.
    """

    what: str
    prepare: Callable[[int, Path], Any]
    work: Callable[[Any], object]
    sizes: tuple[int, int, int]
    power: int
    answer: int | None = None


def rows(quick: bool) -> Iterator[Row]:
    """Each case at its three sizes; the exponent stands at the largest."""
    kept = Path(tempfile.gettempdir()) / f"nearkin-large-{versions()['revision']}"
    for case in CASES:
        sizes = tuple(n // 200 for n in case.sizes) if quick else case.sizes
        took = [measured(kept, case.what, size) for size in sizes]
        power = exponent(sizes, [seconds for seconds, _ in took])
        for size, (seconds, added) in zip(sizes, took, strict=True):
            yield Row(
                f"{case.what}, {size:,}",
                seconds,
                memory=added,
                limit=None if case.answer is None else int(1.1 * MEMORY + case.answer * size),
                note=f"time grows as N^{power:.2f}, expected {case.power}"
                if size == sizes[-1]
                else "",
            )


def measured(kept: Path, what: str, size: int) -> tuple[float, int]:
    """What `spent` says, or said to a process of this revision that was ended."""
    file = kept / f"{what}, {size}.json"
    if not file.exists():
        kept.mkdir(exist_ok=True)
        found = json.dumps(in_a_process(spent, what, size)).encode()
        write_whole(file, lambda out: out.write(found))
    return tuple(json.loads(file.read_text()))


def spent(what: str, size: int) -> tuple[float, int]:
    """Processor seconds of a case's work, and the bytes that it adds to what was resident before,
    in a process that does nothing else."""
    case = next(case for case in CASES if case.what == what)
    silent = redirect_stdout(io.StringIO())
    with tempfile.TemporaryDirectory() as folder, silent:
        os.environ["NEARKIN_CACHE"] = f"{folder}/cache"
        given = case.prepare(size, Path(folder))
        forget_peak()
        before, start = resident_bytes(), time.process_time()
        case.work(given)
        return time.process_time() - start, max(0, peak_bytes() - before)


def mapped(size: int, folder: Path) -> np.ndarray:
    """(size, 128) float32, 20 of each class, one row after the other: a file mapped to memory."""
    path, random = folder / "x.npy", np.random.default_rng(0)
    x = np.lib.format.open_memmap(path, "w+", np.float32, (size, WIDTH))
    for start in range(0, size, PIECE):
        part = classes(size)[start : start + PIECE]
        centres = random.standard_normal((part[-1] - part[0] + 1, WIDTH), np.float32)
        x[start : start + PIECE] = centres[part - part[0]]
        x[start : start + PIECE] += random.standard_normal((len(part), WIDTH), np.float32)
    x.flush()
    del x
    found = np.load(path, mmap_mode="r")
    found.sum()  # so that its pages are there before the work begins
    return found


def classes(size: int) -> np.ndarray:
    return np.arange(size) // A_CLASS


def in_memory(size: int, folder: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(mapped(size, folder)))


def full_store(size: int, folder: Path) -> LanceStore:
    """A table of photographs with their embeddings."""
    store, x = LanceStore(folder / "store", WIDTH), mapped(size, folder)
    plain = {"sha256": "", "size": 0, "mtime": 0, "label": None, "thumbnail": None}
    for start in range(0, size, PIECE):
        part = np.array(x[start : start + PIECE])
        names = [{"path": f"/{start + i}.jpg"} | plain for i in range(len(part))]
        store.put(table_of(names, part))
    return store


def points(size: int, folder: Path) -> tuple[Points, Path]:
    names = [f"/photos/{i}.jpg" for i in range(size)]
    labels = [str(kind) for kind in classes(size)]
    return Points("shop", names, labels, np.array(mapped(size, folder)), "cosine"), folder


def photographs(size: int, folder: Path) -> Path:
    """Pictures of 8 px in folders of 20, one for each class."""
    from PIL import Image

    made = folder / "photos"
    for i in range(size):
        path = made / f"{i // A_CLASS}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), i % 256).save(path)
    return made


def finished(size: int, folder: Path) -> tuple[list[Finished], Path]:
    """Rows of runs that differ in loss and seed."""
    losses = ("contrastive", "triplet", "multi-similarity", "proxy-anchor")
    recipes = [Recipe(loss=losses[i % 4], seed=i // 4) for i in range(size)]
    last = {"epoch": 8, "recall@1": 0.5, "map@r": 0.25}
    data = Data("mnist-5k", "28 px, grey", fingerprint="0" * 12)
    return [Finished(r.hash, r, Metrics(last), data) for r in recipes], folder / "out"


def full_rows(size: int, folder: Path) -> Path:
    add(finished(size, folder))
    return folder / "out"


def add(given: tuple[list[Finished], Path]) -> None:
    """Rows added in parts of 1,000, and read."""
    found, out = given
    store = Store(out)
    for start in range(0, len(found), 1_000):
        store.append(*found[start : start + 1_000])
    assert len(store.rows()) == len(found)


MILLION = (100_000, 300_000, 1_000_000)
TENTH = (25_000, 50_000, 100_000)
CASES = (
    Case(
        "neighbours of a mapped file, k = 16, of 1 GB",
        mapped,
        lambda x: neighbours(x, 16, memory=MEMORY),
        MILLION,
        2,
        16 * (4 + 8),
    ),
    Case(
        "evaluation of a mapped file, 20 a class, of 1 GB",
        mapped,
        lambda x: evaluate(x, classes(len(x)), memory=MEMORY),
        MILLION,
        2,
        0,
    ),
    Case(
        "a gallery opened, and one query",
        in_memory,
        lambda x: Gallery(x).neighbours(x[:1], 10),
        MILLION,
        1,
    ),
    Case("an index, put and read", in_memory, stored, MILLION, 1),
    Case(
        "an index, its approximate part built", full_store, lambda s: s.build("cosine"), MILLION, 1
    ),
    Case("the page of all points", points, lambda p: explore(p[0], p[1] / "p.html"), TENTH, 1),
    Case("photographs of folders, listed", photographs, lambda p: find([p], "parent"), TENTH, 1),
    Case(
        "photographs of folders, as a data set",
        photographs,
        lambda folder: load(f"folder:{folder}"),
        TENTH,
        1,
    ),
    Case("rows, added and read", finished, add, TENTH, 1),
    Case("the page of all rows", full_rows, report, TENTH, 1),
)
