"""Rows: one JSON line a finished run, appended whole or not at all.

A row is a dictionary of plain data:

    hash       the recipe's hash             study    the study that asked for it, or ""
    recipe     every field of the recipe     status   "done", or "diverged" (loss not finite)
    metric     what near means in it: "cosine", "inner" or "euclidean"
    metrics    {"last": {...},               the last epoch: the result
                "validated": {...} or null,  the epoch that validation chose, where it did
                "refined": {...} or null,    the last epoch, test images refined by the loss's graph
                "best_on_test": {...}}      the best epoch on test: what cheating would say
               each {"recall@1": 0.57, "map@r": ..., ...}, shares in 0..1, with "epoch"
    confusion  class by class, whose nearest other is of which class (of small data sets), or null
    epochs     [{"epoch": 1, "loss": ..., "seconds": ..., "test": {...}, "validation": {...},
                "monitor": {...}}, ...]          what the loss says of a fixed batch, where it does
    cost       {"seconds", "train_seconds", "images_per_second", "parameters", "loss_parameters",
                "peak_memory_mb": what the first epoch of training adds to the process}
    data       {"name", "variant", "train_images", "train_classes", "query_images", ...}
    versions   {"nearkin", "torch", ...}     machine  {"cpu", "cores", "gpu", "system"}
    files      {"folder": relative to the store's folder, "embeddings": of a run that did not
                diverge, relative to that folder (report/kept.py says what is in it),
                "attention": of a batch, where the loss has any and pictures may be shown}
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nearkin.runs.migrate import migrated
from nearkin.runs.recipe import Recipe


class Store:
    """A folder of rows and of what their runs left: rows.jsonl, and runs/HASH/ for each run."""

    def __init__(self, folder: Path | str, name: str = "rows.jsonl"):
        self.folder = Path(folder)
        self.file = self.folder / name

    def rows(self) -> list[dict]:
        """All rows, the first of each hash; a last line that was cut off is not one."""
        rows: dict[str, dict] = {}
        for number, line in enumerate(self.lines(), 1):
            try:
                row = migrated(json.loads(line))
                hash, _, _ = row["hash"], row["study"], row["status"]
                rows.setdefault(hash, row)
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{self.file}: line {number} is not a row: {line[:60]!r}"
                ) from None
        return list(rows.values())

    def lines(self) -> list[str]:
        """The complete lines of the file."""
        try:
            text = self.file.read_text() if self.file.exists() else ""
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.file} is not text of rows: {error}") from None
        return text[: text.rfind("\n") + 1].splitlines()

    def find(self, recipe: Recipe) -> dict | None:
        """The row of a recipe, if it has been run."""
        return next((row for row in self.rows() if row["hash"] == recipe.hash), None)

    def append(self, row: dict) -> None:
        """Add a row: on the disk when this returns, and never half a line between two others.

        A line that an earlier crash cut off is removed first: its run is simply done again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        written = json.dumps(row, allow_nan=False, separators=(",", ":"))
        line = memoryview(written.encode() + b"\n")
        with open(self.file, "a+b", buffering=0) as file:  # nothing is left to be written later
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            whole = text.rfind(b"\n") + 1
            file.truncate(whole)
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), whole)
                raise

    def run_folder(self, hash: str) -> Path:
        """Where the files of a run are."""
        return self.folder / "runs" / hash

    @contextmanager
    def claim(self, recipe: Recipe) -> Iterator[Path]:
        """The run's folder, for one process at a time; whoever comes second waits for the first.

        What a killed process had half written there is removed.
        """
        folder = self.run_folder(recipe.hash)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for partial in folder.glob(".*"):
                partial.unlink(missing_ok=True)
            yield folder
