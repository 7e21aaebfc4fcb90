"""What a run tells while it goes on: steps.csv, TensorBoard, and a bar for whoever watches."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nearkin.runs.loop import Step

COLUMNS: tuple[str, ...] = ("step", "epoch", "images", "images_per_second", "loss", "gradient_norm")
COLUMNS += ("effective_rank", "active", "learning_rate")


class StepLog:
    """The watched steps of one run, in a CSV file and in TensorBoard's; usable after a kill.

    What an earlier, killed try wrote beyond its last checkpoint (step `start`) is cut off; what
    it wrote before stays where it is, so that another kill cannot lose it.
    """

    def __init__(self, folder: Path, start: int):
        from torch.utils.tensorboard import SummaryWriter

        path = folder / "steps.csv"
        kept = bytes_until(path, start) if start else 0
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        try:
            self.file = open(path, "a", newline="")  # noqa: SIM115 - closed by close()
        except OSError:
            self.board.close()
            raise
        self.file.truncate(kept)
        self.csv = csv.DictWriter(self.file, COLUMNS, restval="", extrasaction="ignore")
        if not kept:
            self.csv.writeheader()

    def write(self, step: Step, images_per_second: float) -> None:
        watched = {"images_per_second": round(images_per_second, 1), **step.watched}
        self.csv.writerow(
            {"step": step.step, "epoch": step.epoch, "images": step.images, **watched}
        )
        for name, value in watched.items():
            self.board.add_scalar(f"train/{name}", value, step.step)

    def evaluated(self, step: int, metrics: dict[str, float], split: str) -> None:
        for name, value in metrics.items():
            self.board.add_scalar(f"{split}/{name}", value, step)

    def flush(self) -> None:
        """What a checkpoint has, the files have too."""
        self.file.flush()
        self.board.flush()

    def close(self) -> None:
        try:
            self.flush()
            os.fsync(self.file.fileno())
        finally:
            self.file.close()
            self.board.close()


def bytes_until(path: Path, step: int) -> int:
    """How much of a steps.csv tells of the steps up to this one, its head included."""
    kept = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        if not line.endswith(b"\n") or (kept and int(line.split(b",")[0]) > step):
            break
        kept += len(line)
    return kept


def read_steps(path: Path) -> list[dict[str, str]]:
    """The complete lines of a steps.csv; none where there is no such file."""
    if not path.exists():
        return []
    text = path.read_text()
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


class Silent:
    """A bar that nobody sees."""

    def expect(self, runs: int) -> None: ...
    def start(self, title: str, total: int, done: int) -> None: ...
    def advance(self, step: int, loss: float | None, images_per_second: float) -> None: ...
    def finish(self, line: str) -> None: ...
    def say(self, line: str) -> None: ...


class Bar(Silent):
    """rich's bar with loss, images/s and time left; one line per finished run above it."""

    def __init__(self, progress: Any):
        self.progress = progress
        self.all = self.task = None
        self.runs, self.done = 1, 0

    def expect(self, runs: int) -> None:
        """So many runs are to be done now, stored ones not counted."""
        if self.all is not None:
            self.progress.remove_task(self.all)
        self.runs, self.done = runs, 0
        named = {"description": f"{runs} runs", "note": ""}
        self.all = self.progress.add_task(total=runs, **named) if runs > 1 else None

    def start(self, title: str, total: int, done: int) -> None:
        if self.all is not None:
            self.progress.update(self.all, description=f"run {self.done + 1} of {self.runs}")
        self.task = self.progress.add_task(title, total=total, completed=done, note="")

    def advance(self, step: int, loss: float | None, images_per_second: float) -> None:
        note = "" if loss is None else f"loss {loss:.4f}  {images_per_second:,.0f} images/s"
        self.progress.update(self.task, completed=step, note=note)

    def finish(self, line: str) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None
        self.done += 1
        if self.all is not None:
            self.progress.update(self.all, completed=self.done)
        self.progress.console.print(line, highlight=False, soft_wrap=True)

    def say(self, line: str) -> None:
        """A line beside those of runs."""
        self.progress.console.print(f"nearkin: {line}", highlight=False, soft_wrap=True)


@contextmanager
def bar() -> Iterator[Bar]:
    """A bar on the terminal; where there is none, only the lines of finished runs."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bar(progress)
