"""Commands killed at random moments and given again, until they come to their end: that is the end
of a command which nobody killed.

`JOBS` names the commands. `killed(server, job, kills, seed, folder)` gives one in a process of its
own, kills it after a random share of the time that it takes, gives it again, and so on; at last it
lets it come to its end, and returns what is there other than without a kill. tests/test_kills.py
takes a few of each, `make campaign` 100.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
PATIENCE = 5
"""Seconds in which a process ends on a busy machine; without other work one is enough."""
POINTS = ["--data", "features:x.npz", "--batch", "12", "--per-class", "3", "--dim", "3"]


@dataclass(frozen=True)
class Job:
    """A command, what it finds when it begins, and what it comes to."""

    words: list[str]
    result: Callable[[Path], Any]
    make: Callable[[Server, Path], None]


def points(server: Server, folder: Path, width: int = 6, each: int = 12) -> None:
    """Features of eight classes."""
    random, y = np.random.default_rng(0), np.repeat(np.arange(8), each)
    x = random.normal(size=(8, width))[y] + random.normal(size=(len(y), width))
    np.savez(folder / "x.npz", x=x, y=y)


def wide_points(server: Server, folder: Path) -> None:
    """Features of as many numbers as a study's heads want, and as many as its batches."""
    points(server, folder, 140, 40)


def photographs(server: Server, folder: Path) -> None:
    """Eight classes of twelve pictures."""
    points(server, folder)
    for kind in range(8):
        (folder / "photos" / f"c{kind}").mkdir(parents=True)
        for i in range(12):
            pixels = np.random.default_rng(20 * kind + i).integers(0, 255, (24, 24, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / f"c{kind}" / f"{i}.png")


def with_model(server: Server, folder: Path) -> None:
    """Photographs, and a Model that embeds them."""
    import torch

    import nearkin as nk
    from nearkin.models import make
    from nearkin.models.preprocess import Preprocessing

    photographs(server, folder)
    torch.manual_seed(0)
    net: Any = make("network", {"filters": "4", "units": "8"}, (3, 24, 24), 4)
    nk.Model(net, Preprocessing(24, 24, 3, 0, 0.0, net.mean, net.std)).save(folder / "model")


def with_rows(server: Server, folder: Path) -> None:
    """A few runs, of which a page can be made; the same in every folder."""
    made = folder.parent / "made"
    if not made.exists():
        made.mkdir()
        points(server, made)
        words = [word for word in JOBS["train"].words if word not in ("--epochs", "4")]
        for seed in ("0", "1"):
            finished(server, [*words, "--seed", seed, "--epochs", "1"], made)
    shutil.copytree(made, folder, dirs_exist_ok=True)


def rows(folder: Path) -> list[Any]:
    """All rows but what they cost, and the numbers of what their runs kept."""
    from nearkin.runs.row import Row, to_json
    from nearkin.runs.store import Store

    found = []
    for row in sorted(Store(folder / "o").stored().values(), key=lambda row: row.key):
        plain = to_json(row)
        for part in ("cost", "machine", "versions"):
            plain.pop(part, None)
        for epoch in plain.get("epochs", ()):
            epoch.pop("seconds", None)
        kept: dict[str, Any] = {}
        if isinstance(row, Row) and row.files.folder:
            run = folder / "o" / row.files.folder
            kept = {
                path.relative_to(run).as_posix(): len(path.read_bytes())
                for path in run.rglob("*")
                if path.suffix == ".npz"
            }
            if (run / "embeddings.npz").exists():
                with np.load(run / "embeddings.npz") as arrays:
                    kept["x"] = arrays["x"].tolist() if "x" in arrays else ""
        found.append((plain, kept))
    return found


def arrays(folder: Path) -> dict[str, Any]:
    """What the file of embeddings holds."""
    with np.load(folder / "made.npz") as found:
        return {name: found[name].tolist() for name in found.files}


def items(folder: Path) -> list[Any]:
    """The items of the index, and what a search finds."""
    import nearkin as nk

    index = nk.Index(folder / "made")
    found = index.store.scan(["path", "label", "sha256", "vector"]).to_pylist()
    names = {item["path"]: "/".join(Path(item["path"]).parts[-2:]) for item in found}
    kept = ("label", "sha256", "vector")
    return sorted([names[item["path"]], *(item[key] for key in kept)] for item in found)


def page(folder: Path) -> dict[str, str]:
    """The pages, without what tells the time."""
    found = {}
    for path in sorted((folder / "o" / "report").rglob("*")):
        if path.is_file():
            text = path.read_bytes().decode(errors="replace")
            found[path.name] = re.sub(r"\d{4}-\d\d-\d\d", "", text) if path.suffix == ".md" else ""
    return found


JOBS = {
    "train": Job(
        [
            "train",
            *POINTS,
            "--backbone",
            "mlp",
            "--loss",
            "triplet",
            "--epochs",
            "4",
            "--out",
            "o",
        ],
        rows,
        points,
    ),
    "study": Job(
        [
            *("study", "graph-gain", "--data", "features:x.npz", "--seeds", "1", "--epochs", "1"),
            *("--options", "tune=false", "--jobs", "2", "--out", "o"),
        ],
        rows,
        wide_points,
    ),
    "embed": Job(
        ["embed", "--data", "folder:photos", "--backbone", "identity", "--output", "made.npz"],
        arrays,
        photographs,
    ),
    "index": Job(["index", "model", "photos", "--output", "made"], items, with_model),
    "report": Job(["report", "o"], page, with_rows),
}


class Server:
    """A process that has imported what commands need, and forks one for each command: four seconds
    less for each kill."""

    def __init__(self) -> None:
        source = str(Path(__file__).parents[1] / "src")
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": source},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **question: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def begin(self, words: list[str], folder: Path) -> int:
        """Begin a command in a process group of its own; its number."""
        return self.ask(words=words, folder=str(folder))

    def code(self, pid: int, seconds: float) -> int | None:
        """The exit code of a command; None where it has not ended in so many seconds."""
        return self.ask(pid=pid, seconds=seconds)

    def end(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def serve() -> None:
    """What the server does."""
    import nearkin.app.embed
    import nearkin.app.report
    import nearkin.app.study
    import nearkin.app.train
    import nearkin.runs.engine  # noqa: F401

    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        question = json.loads(line)
        if "words" in question:
            pid = os.fork()
            if not pid:
                carry_out(question["words"], Path(question["folder"]))
            print(pid, file=answers, flush=True)
        else:
            print(json.dumps(code_of(**question)), file=answers, flush=True)


def code_of(pid: int, seconds: float) -> int | None:
    """The exit code of a process; None where it has not ended in so many seconds."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.01)


def carry_out(words: list[str], folder: Path) -> None:
    """The command, in this process, which it ends."""
    from nearkin import stopping
    from nearkin.__main__ import main

    code, stopping.SECONDS = 1, PATIENCE - 1.0  # in which it saves on a busy machine
    try:
        os.setsid()
        os.chdir(folder)
        os.environ["NEARKIN_CACHE"] = str(folder / "cache")
        said = os.open(folder.with_suffix(".said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(said, number)
        sys.argv = ["nearkin", *words]
        main()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    finally:
        os._exit(code)


def finished(server: Server, words: list[str], folder: Path) -> float:
    """Let the command come to its end; the seconds that it took."""
    start = time.monotonic()
    code = server.code(server.begin(words, folder), 600)
    if code:
        raise AssertionError(f"ended with {code}: {said_in(folder)}")
    return time.monotonic() - start


def said_in(folder: Path) -> str:
    """The end of what the last command printed."""
    return folder.with_suffix(".said").read_text(errors="replace")[-300:]


def killed(server: Server, job: Job, kills: int, seed: int, folder: Path) -> list[str]:
    """What is wrong with the end of a command that was killed so many times on its way."""
    draw, wrong = random.Random(seed), []
    whole, other = folder / "whole", folder / "killed"
    for each in (whole, other):
        each.mkdir(parents=True)
        job.make(server, each)
    took = finished(server, job.words, whole)
    wanted = json.dumps(job.result(whole), sort_keys=True)
    left, ends = kills, 0
    while left:
        pid = server.begin(job.words, other)
        code = server.code(pid, draw.uniform(0, 1) * took)
        if code is None:
            left -= 1
            number = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
            start = time.monotonic()
            server.code(pid, 30)
            if (late := time.monotonic() - start) > PATIENCE:
                wrong.append(f"it took {late:.1f} s to end by {number.name}")
            continue
        if code:
            return [*wrong, f"given again, it ended with {code}: {said_in(other)}"]
        wrong += differing(job, wanted, other)  # it was at its end before the kill
        took = 0.9 * took
        ends += 1
        other = folder / f"killed-{ends}"
        other.mkdir()
        job.make(server, other)
    finished(server, job.words, other)
    return wrong + differing(job, wanted, other)


def differing(job: Job, wanted: str, folder: Path) -> list[str]:
    """What a command came to, where that is not what it should be; files that it left hidden."""
    found = json.dumps(job.result(folder), sort_keys=True)
    wrong = [] if found == wanted else [f"it came to {found[:200]}, wanted {wanted[:200]}"]
    names = ("checkpoint.pt", "validated.pt", ".unpacking", ".partial")
    left = [p for p in folder.rglob("*") if p.name.startswith(names) or p.suffix == ".partial"]
    return wrong + [f"it left {path.relative_to(folder)}" for path in left]


if __name__ == "__main__":
    serve()
