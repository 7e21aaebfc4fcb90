"""What a run tells while it goes on: steps.csv, TensorBoard, a bar, or lines for a log."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
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


class Unwritten(StepLog):
    """The log of a rank that writes nothing, since rank 0 does."""

    def __init__(self) -> None: ...
    def write(self, step: Step, images_per_second: float) -> None: ...
    def evaluated(self, step: int, metrics: dict[str, float], split: str) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


def bytes_until(path: Path, step: int) -> int:
    """How much of a steps.csv tells of the steps up to this one, its head included; what is no line
    of a step ends it."""
    kept = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        number = line.split(b",")[0]
        if not line.endswith(b"\n") or (kept and not (number.isdigit() and int(number) <= step)):
            break
        kept += len(line)
    return kept


def read_steps(path: Path) -> list[dict[str, str]]:
    """The complete lines of a steps.csv; none where there is no such file.

    Raises:
        ValueError: a line is no list of numbers, one a column of the head.
    """
    if not path.exists():
        return []
    text = path.read_text(errors="replace")
    if not text:
        return []
    try:
        head, *lines = [*csv.reader(text[: text.rfind("\n") + 1].splitlines())] or [[text]]
    except csv.Error as error:
        raise ValueError(f"{path}: no log of steps ({error})") from None
    if "step" not in head:
        raise ValueError(f"{path}: wanted the head of a log of steps, got {','.join(head)!r:.40}")
    for number, line in enumerate(lines, 2):
        if len(line) != len(head) or not all(map(is_number, line)) or not line[0].isdigit():
            raise ValueError(f"{path}: line {number} is no line of a log of steps")
    return [dict(zip(head, line, strict=True)) for line in lines]


def is_number(text: str) -> bool:
    """Whether a cell holds a number, or nothing."""
    try:
        float(text or 0)
    except ValueError:
        return False
    return True


class Silent:
    """A bar that nobody sees."""

    def expect(self, runs: int) -> None: ...
    def start(self, title: str, total: int, done: int) -> None: ...
    def advance(self, step: int, loss: float | None, images_per_second: float) -> None: ...
    def finish(self, line: str) -> None: ...
    def say(self, line: str) -> None: ...
    def count(self, what: str, done: int, total: int) -> None: ...


class Counted(Silent):
    """Runs as a number that grows, where a line of each says nothing to a person."""

    def __init__(self, bar: Silent, what: str):
        self.bar, self.what = bar, what
        self.runs = self.done = 0

    def expect(self, runs: int) -> None:
        self.runs, self.done = runs, 0
        if runs:
            self.bar.count(self.what, 0, runs)

    def finish(self, line: str) -> None:
        self.done += 1
        self.bar.count(self.what, self.done, self.runs)

    def say(self, line: str) -> None:
        self.bar.say(line)


class Bar(Silent):
    """rich's bar with loss, images/s and time left; one line per finished run above it."""

    def __init__(self, progress: Any):
        self.progress = progress
        self.all = self.task = self.counted = None
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

    def count(self, what: str, done: int, total: int) -> None:
        """How far some work is that is no run, such as embedding."""
        if self.counted is None:
            self.counted = self.progress.add_task(what, total=total, note="")
        self.progress.update(self.counted, completed=done, total=total)
        if done >= total:
            self.progress.remove_task(self.counted)
            self.counted = None


EVERY = 30.0
"""Seconds from one line of progress to the next, where there is no terminal."""


class Lines(Silent):
    """Lines for a log: one for each finished run, and every half a minute how far a run is."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = monotonic):
        self.write, self.clock = write, clock
        self.runs, self.done = 1, 0
        self.began = self.written = clock()

    def expect(self, runs: int) -> None:
        self.runs, self.done = runs, 0

    def start(self, title: str, total: int, done: int) -> None:
        self.title, self.total, self.first = title, total, done
        self.began = self.written = self.clock()

    def advance(self, step: int, loss: float | None, images_per_second: float) -> None:
        if loss is None or not self.due():
            return
        left = (self.written - self.began) / max(step - self.first, 1) * (self.total - step)
        run = f"run {self.done + 1} of {self.runs}, " if self.runs > 1 else ""
        self.write(
            f"nearkin: {run}{self.title}: step {step:,} of {self.total:,}, loss {loss:.4f}, "
            f"{images_per_second:,.0f} images/s, {duration(left)} left"
        )

    def finish(self, line: str) -> None:
        self.done += 1
        self.write(f"{self.done}/{self.runs} {line}" if self.runs > 1 else line)

    def say(self, line: str) -> None:
        self.write(f"nearkin: {line}")

    def count(self, what: str, done: int, total: int) -> None:
        if not done:
            self.began = self.written = self.clock()
        elif self.due():
            left = (self.written - self.began) / done * (total - done)
            self.write(f"nearkin: {what}: {done:,} of {total:,}, {duration(left)} left")

    def due(self) -> bool:
        """Whether it is time for a line, which is then taken as written."""
        now = self.clock()
        if now - self.written < EVERY:
            return False
        self.written = now
        return True


def duration(seconds: float) -> str:
    """Seconds as a person reads them.

    >>> duration(48.2), duration(600), duration(8000)
    ('48 s', '10 min', '2 h 13 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def bar() -> Iterator[Silent]:
    """A bar on the terminal; where there is none, lines now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield Lines(to_log)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Bar(progress)


def to_log(line: str) -> None:
    """A line on stderr, at once."""
    print(line, file=sys.stderr, flush=True)
