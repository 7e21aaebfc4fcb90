"""python -m benchmarks.fleet study|added|operations: what sharing a study among processes does.

    study       200 tiny runs by 4 workers, of which 20 are killed at random moments: every row
                once, equal to the last bit to those of one worker
    added       seconds a run that submitit and Ray add, beside their start
    operations  what one run asks of the disk that machines share, counted by strace

Each prints its figures as one line of JSON. Numbers of runs, workers and kills may follow.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from nearkin.data.sets.tars import pictures_of
from nearkin.leases import Leases
from nearkin.runs.executors import attempt, complete
from nearkin.runs.fleet import Fleet
from nearkin.runs.line_index import state_of
from nearkin.runs.place import Place
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row, to_json
from nearkin.runs.store import Store

CPU = Place(device="cpu", threads=1)
ROOT = Path(__file__).parents[1]
CALLS = "openat,open,mkdir,rename,unlink,stat,newfstatat,getdents64,fsync,ftruncate,readlink,link"
"""System calls that a file system on a server answers."""


def points(folder: Path) -> Path:
    """A file of features: 12 classes of 8 points in 8 dimensions."""
    path, draw = folder / "points.npz", np.random.default_rng(0)
    y = np.repeat(np.arange(12), 8)
    x = draw.normal(size=(12, 8))[y] + 0.7 * draw.normal(size=(96, 8))
    np.savez(path, x=x.astype(np.float32), y=y)
    return path


def recipes(data: Path, count: int) -> list[Recipe]:
    """So many tiny runs, which differ by their seed."""
    base = Recipe(data=f"features:{data}", backbone="linear", dim=4, loss="triplet", batch=16)
    return [replace(base, epochs=1, seed=seed) for seed in range(count)]


def numbers(row: Row) -> dict[str, Any]:
    """A row without what it cost, which differs from run to run."""
    raw = to_json(row)
    for part in ("cost", "versions", "machine"):
        del raw[part]
    raw["epochs"] = [{k: v for k, v in e.items() if k != "seconds"} for e in raw["epochs"]]
    return raw


def worker(data: Path, count: int, out: Path) -> subprocess.Popen:
    """The same study once more, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.fleet", "worker", str(data), str(count), str(out)]
    return subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)


def study(folder: Path, count: int = 200, workers: int = 4, kills: int = 20) -> dict[str, Any]:
    """The study by one worker, and by several of which some are killed."""
    data, draw = points(folder), random.Random(0)
    began = time.perf_counter()
    alone = {
        row.hash: numbers(row) for row in complete(recipes(data, count), folder / "a", place=CPU)
    }
    one = time.perf_counter() - began
    out, began, killed = folder / "b", time.perf_counter(), 0
    store, running = Store(out), [worker(data, count, out) for _ in range(workers)]
    next_kill = draw.uniform(0, count / kills)
    try:
        while any(process.poll() is None for process in running):
            time.sleep(0.02)
            done = len(store.lines().entries)
            if killed < kills and done > next_kill:
                victim = draw.randrange(workers)
                os.killpg(running[victim].pid, signal.SIGKILL)
                running[victim].wait()
                running[victim] = worker(data, count, out)
                killed += 1
                next_kill = max(done, next_kill) + draw.uniform(0, count / kills)
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    shared = time.perf_counter() - began
    lines = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    rows = {row.hash: numbers(row) for row in store.rows()}
    return {
        "runs": count,
        "workers": workers,
        "killed": killed,
        "rows": len(lines),
        "doubles": len(lines) - len({line["hash"] for line in lines}),
        "equal": rows == alone,
        "ended_well": all(process.returncode == 0 for process in running),
        "left_apart": len(list(store.parts.glob("*.json"))),
        "seconds_of_one": round(one, 1),
        "seconds_shared": round(shared, 1),
    }


def stamped(act: Callable[[], object]) -> tuple[float, float]:
    """When a piece of work began and ended, by the clock that all processes of a machine share."""
    began = time.perf_counter()
    assert act() is not None
    return began, time.perf_counter()


def added(folder: Path, count: int = 30) -> dict[str, Any]:
    """Seconds between the end of one run and the start of the next: here, by submitit and by Ray,
    whose tasks come one after the other. Starting them is the time until the first run begins;
    Ray's second process is started among the others, which the median leaves out."""
    data = points(folder)
    fleets = {
        "here": Fleet(),
        "submitit": Fleet("slurm", 1, {"cluster": "local", "timeout_min": 10}),
        "ray": Fleet("ray", 1),
    }
    found: dict[str, Any] = {"runs": count}
    for name, fleet in fleets.items():
        store, began = Store(folder / name), time.perf_counter()
        work = {
            recipe.hash: partial(stamped, partial(attempt, recipe, store, CPU, "", None))
            for recipe in recipes(data, count)
        }
        spans = sorted(
            span for span in fleet.executor(store.folder)(work, lambda _: None).values() if span
        )
        gaps = [after[0] - before[1] for before, after in pairwise(spans)]
        found[name] = {
            "start": round(spans[0][0] - began, 2),
            "median": round(median(gaps), 4),
            "mean": round(mean(gaps), 4),
            "run": round(median(end - start for start, end in spans), 3),
        }
    return found


def operations(folder: Path, count: int = 10) -> dict[str, Any]:
    """Calls of the file system below --out that one run makes, and one look at a run that another
    worker has; and how many of these a disk here answers a second."""
    data = points(folder)
    few, many = (traced(data, runs, folder / f"o{runs}") for runs in (2, 2 + count))
    found = {name: round((many[name] - few[name]) / count, 1) for name in sorted(many)}
    again = traced(data, 2 + count, folder / f"o{2 + count}")
    again = {name: round(again[name] / (2 + count), 1) for name in sorted(again)}
    leases, taken = Leases(), folder / "taken"
    taken.mkdir()
    (taken / "lease.1").write_text("another 1 2 3 4")
    began = time.perf_counter()
    for _ in range(1000):
        leases.taken(taken)
    look = (time.perf_counter() - began) / 1000
    row = Store(folder / f"o{2 + count}").file
    state = state_of(row)
    assert state
    left = [p for p in (folder / f"o{2 + count}" / "runs").rglob("*") if p.is_file()]
    return {
        "a_run": found,
        "a_run_in_all": round(sum(found.values()), 1),
        "a_stored_run_in_all": round(sum(again.values()), 1),
        "seconds_of_a_look": round(look, 6),
        "bytes_of_a_row": state.size // (2 + count),
        "files_of_a_run": round(len(left) / (2 + count), 1),
        "bytes_of_a_run": sum(p.stat().st_size for p in left) // (2 + count),
        "beats_a_second": 1 / Leases().beat,
        "seconds_of_a_header": round(header(folder / "x.tar"), 7),
    }


def header(archive: Path, count: int = 2000) -> float:
    """Seconds that a member of a tar archive takes to be listed."""
    with tarfile.open(archive, "w") as tar:
        for i in range(count):
            for name, content in ((f"{i:05}.png", b"x" * 1000), (f"{i:05}.cls", b"a")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    began = time.process_time()
    assert sum(1 for _ in pictures_of(archive)) == count
    return (time.process_time() - began) / (2 * count)


def traced(data: Path, count: int, out: Path) -> Counter[str]:
    """How often each call was made below a folder while so many runs were done."""
    log = out.with_suffix(".strace")
    words = ["strace", "-f", "-y", "-qq", "-e", f"trace={CALLS}", "-o", str(log)]
    words += [sys.executable, "-m", "benchmarks.fleet", "worker", str(data), str(count), str(out)]
    subprocess.run(words, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    found: Counter[str] = Counter()
    with open(log, errors="replace") as lines:
        for line in lines:
            call = re.match(r"\d+ +(\w+)\(", line)
            if call and str(out) in line:
                found[call[1]] += 1
    return found


def main(words: Sequence[str]) -> None:
    """Do what the first word says."""
    what, *rest = words
    if what == "worker":
        complete(recipes(Path(rest[0]), int(rest[1])), rest[2], place=CPU)
        return
    acts = {"study": study, "added": added, "operations": operations}
    folder = Path(tempfile.mkdtemp(prefix="fleet"))
    try:
        print(json.dumps({what: acts[what](folder, *map(int, rest))}))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
