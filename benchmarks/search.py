"""Search: one query and many in an open gallery, from the shell, over HTTP (served.py);
embedding of a folder; the page of many points (maps.py).
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

import nearkin as nk
from benchmarks import maps, served
from benchmarks.timing import Row, seconds
from nearkin.measure.nearest.gallery import Gallery
from nearkin.search.store import LanceStore

TITLE = "Search: galleries, indexes, the shell, a service, the page"


def rows(quick: bool) -> Iterator[Row]:
    """Galleries, a folder of photographs, then the index of it."""
    yield from gallery_rows(5_000 if quick else 100_000)
    with tempfile.TemporaryDirectory() as folder:
        yield from index_rows(Path(folder), 200 if quick else 5_000, quick)
        yield from maps.rows(Path(folder), quick)


def gallery_rows(size: int) -> Iterator[Row]:
    """One exact query, and a hundred, beside the bare products, faiss and LanceDB."""
    import faiss

    random = np.random.default_rng(0)
    x = random.normal(size=(size, 512)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    one, many = x[:1] + 0.01, x[:100] + 0.01
    begun = time.perf_counter()
    gallery = Gallery(torch.from_numpy(x))
    cold = time.perf_counter() - begun
    flat = faiss.IndexFlatIP(512)
    flat.add(x)
    what = f"{size:,} x 512, open and warm"
    times = seconds(
        {
            "ours": lambda: gallery.neighbours(torch.from_numpy(one), 10),
            "product": lambda: x @ one[0],
        },
        repeats=15,
    )  # not in turns with faiss, whose threads go on spinning after each of its searches
    theirs = seconds({"faiss": lambda: flat.search(one, 10)}, repeats=15)["faiss"]
    note = f"opened in {cold:.1f} s; faiss's flat index {1000 * theirs:.1f} ms"
    product = "matrix-vector product, NumPy"
    yield Row(f"one query, {what}", times["ours"], product, times["product"], 1.5, note=note)
    tensor = torch.from_numpy(x)
    times = seconds(
        {
            "ours": lambda: gallery.neighbours(torch.from_numpy(many), 10),
            "product": lambda: torch.from_numpy(many) @ tensor.T,
        },
        repeats=7,
    )
    theirs = seconds({"faiss": lambda: flat.search(many, 10)}, repeats=7)["faiss"]
    note = f"faiss's flat index {1000 * theirs:.1f} ms"
    product = "bare float32 product"
    yield Row(f"100 queries, {what}", times["ours"], product, times["product"], 1.5, note=note)
    same = gallery.neighbours(torch.from_numpy(many), 10).indices
    assert torch.equal(same, nk.neighbours(torch.from_numpy(many), 10, tensor).indices)
    with tempfile.TemporaryDirectory() as folder:
        store = LanceStore(Path(folder), 512)
        table = [
            {"path": str(i), "sha256": "", "size": 0, "mtime": 0, "label": None, "thumbnail": None}
            for i in range(size)
        ]
        from nearkin.search.store import table_of

        store.put(table_of(table, x))
        times = seconds(
            {
                "ours": lambda: gallery.neighbours(torch.from_numpy(one), 10),
                "lance": lambda: store.nearest(one, 10, "cosine", None, 0),
            },
            repeats=5,
        )
    yield Row(f"one query, {what}", times["ours"], "LanceDB, exact", times["lance"])


def photographs(folder: Path, count: int) -> Path:
    """JPEGs of 128 to 256 pixels, smooth with noise, in 50 folders."""
    random = np.random.default_rng(0)
    for i in range(count):
        side = int(random.integers(128, 257))
        small = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
        path = folder / "photos" / f"{i % 50:02d}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=90)
    return folder / "photos"


def large_row(folder: Path, model: nk.Model, count: int) -> Row:
    """Photographs of 12 megapixels, as a phone takes them, and the decoder's share of the time."""
    random, large = np.random.default_rng(1), []
    for i in range(count):
        small = Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        large.append(folder / f"large-{i}.jpg")
        small.resize((4000, 3000), Image.Resampling.BICUBIC).save(large[-1], quality=90)
    prepare = model.preprocessing.prepare  # type: ignore[union-attr]
    pixels = torch.stack([prepare(path) for path in large])
    times = seconds(
        {
            "files": lambda: model.embed(large),
            "tensors": lambda: model.embed_prepared(pixels),
            "decoder": lambda: [prepare(path) for path in large],
        },
        repeats=3,
    )
    share = times["decoder"] / (times["decoder"] + times["tensors"])
    return Row(
        f"{count} JPEGs of 12 megapixels embedded by lite0 at 128 px",
        times["files"],
        "forward pass on decoded pixels",
        times["tensors"],
        note=f"{count / times['files']:.0f} photographs/s; decoding, one after the other, is "
        f"{share:.0%} of the work",
    )


def index_rows(folder: Path, count: int, quick: bool) -> Iterator[Row]:
    """Embedding a folder by lite0 at 128 px; then a search from the shell, and over HTTP."""
    photos = photographs(folder, count)
    model = nk.Model.pretrained("lite0", size=128)
    some = sorted(photos.rglob("*.jpg"))[: min(count, 640)]
    prepare = model.preprocessing.prepare  # type: ignore[union-attr]
    pixels = torch.stack([prepare(path) for path in some])
    times = seconds(
        {
            "files": lambda: model.embed(some),
            "tensors": lambda: [model.embed_prepared(part) for part in pixels.split(64)],
        },
        repeats=3,
    )
    yield Row(
        f"{len(some)} JPEGs of 128 to 256 px embedded by lite0 at 128 px",
        times["files"],
        "forward pass on decoded pixels",
        times["tensors"],
        1 / 0.9,
        note=f"{len(some) / times['files']:.0f} photographs/s",
    )
    yield large_row(folder, model, 4 if quick else 40)
    index = nk.Index.create(model, folder / "shop")
    index.update(photos, labels="parent")
    index.write_light()
    index.write_snapshot()  # both as `nearkin index` does
    words = [sys.executable, "-m", "nearkin", "search", str(folder / "shop"), str(some[0])]
    cpu = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    yield Row(
        f"search from the shell in {count:,} photographs, CPU time with imports",
        median(cpu[1:]),
        budget=1.5,
    )
    yield from served.rows(folder / "shop", some, model, quick)
