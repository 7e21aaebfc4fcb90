"""A service over HTTP: how long its slowest answers take, and whether its memory grows.

The client is this process. It asks 20 times a second whatever the answers do, so that a request
which waits for another one is counted with its waiting.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch

import nearkin as nk
from benchmarks.timing import Row, seconds
from nearkin.models.preprocess import photographs_at
from nearkin.search.index import LIGHT
from nearkin.search.light import light_model

RATE = 20  # requests a second
WARM = 1_000  # requests after which the memory of a service should stand still
GROWTH = 1.02  # what its fluctuations are taken for


@contextmanager
def service(shop: Path) -> Iterator[tuple[str, int]]:
    """A service of an index in a process of its own: its address and its process's number."""
    words = [sys.executable, "-m", "nearkin", "serve", str(shop), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split(": ")[0], process.pid
    finally:
        process.terminate()
        process.wait()


def rows(shop: Path, photos: Sequence[Path], model: nk.Model, quick: bool) -> Iterator[Row]:
    """The 99th percentile of /search, beside the bare embedding; then the memory."""
    yield from slowest_rows(shop, photos, model, 40 if quick else 400)
    with tempfile.TemporaryDirectory() as folder:
        yield memory_row(Path(folder), photos, 60 if quick else 10_000)


def slowest_rows(shop: Path, photos: Sequence[Path], model: nk.Model, count: int) -> Iterator[Row]:
    """Beside the Model by torch, and beside its ONNX form, which is what serves."""
    bodies, found = [path.read_bytes() for path in photos[:20]], []

    def ask(body: bytes) -> None:
        begun = time.perf_counter()
        with urllib.request.urlopen(f"{url}/search", body) as answer:
            answer.read()
        found.append(time.perf_counter() - begun)

    with service(shop) as (url, _):
        for body in bodies[:3]:
            ask(body)
        found.clear()
        threads = []
        for i in range(count):
            threads.append(threading.Thread(target=ask, args=(bodies[i % len(bodies)],)))
            threads[-1].start()
            time.sleep(1 / RATE)
        for thread in threads:
            thread.join()
    light = light_model(shop / LIGHT)
    bare = {
        "bare embedding of one photograph": lambda: model.embed([photos[0]]),
        "the same by ONNX": lambda: light.embed([photos[0]]),
    }
    for name, took in seconds(bare, repeats=20).items():
        yield Row(
            f"/search at {RATE} requests/s, 99th percentile of {count:,}",
            float(np.quantile(found, 0.99)),
            name,
            took,
            None if "ONNX" in name else 3.0,
            note=f"median {1000 * median(found):.1f} ms, {os.cpu_count()} cores with the client, "
            f"load {os.getloadavg()[0]:.1f}",
        )


def memory_row(folder: Path, photos: Sequence[Path], count: int) -> Row:
    """What a service holds after so many requests, beside what it held when it was warm.

    Its Model is small, so that the requests take their time for what could leak: bodies, files,
    decoded pictures, batches, answers.
    """
    torch.manual_seed(0)
    net = nk.models.make("network", {"filters": "4", "units": ""}, (3, 16, 16), 6)
    index = nk.Index.create(nk.Model(net, photographs_at(16), "cosine"), folder / "small")
    index.add(*photos[:100])
    bodies, warm = [path.read_bytes() for path in photos[:20]], min(WARM, count // 2)
    with service(folder / "small") as (url, pid):
        line = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)

        def ask(first: int, last: int) -> None:
            for i in range(first, last):
                line.request("POST", "/search", bodies[i % len(bodies)])
                answer = line.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()

        ask(0, warm)
        before, begun = resident(pid), time.perf_counter()
        ask(warm, count)
        each, after = (time.perf_counter() - begun) / (count - warm), resident(pid)
        line.close()
    return Row(
        f"memory of a service after {count:,} requests (small Model; the time is that of one)",
        each,
        f"after {warm:,} requests",
        memory=after,
        peer_memory=before,
        limit=int(GROWTH * before),
    )


def resident(pid: int) -> int:
    """Bytes of a process that lie in memory now."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in status if line.startswith("VmRSS:")).split()[1])


def main(quick: bool) -> None:
    """Serve alone: an index of 500 photographs by lite0 at 128 px, then the small one."""
    from benchmarks.__main__ import show
    from benchmarks.search import photographs

    with tempfile.TemporaryDirectory() as folder:
        photos = photographs(Path(folder), 120 if quick else 500)
        model = nk.Model.pretrained("lite0", size=128)
        index = nk.Index.create(model, Path(folder) / "shop")
        index.update(photos, labels="parent")
        index.write_light()
        found = sorted(photos.rglob("*.jpg"))
        show("A service", rows(Path(folder) / "shop", found, model, quick))


if __name__ == "__main__":
    main("--quick" in sys.argv)
