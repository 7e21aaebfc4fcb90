"""From a recipe to its row: run once, stored whole, resumed after a kill, never done twice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from nearkin.data import Splits, load
from nearkin.losses.protocol import can_monitor
from nearkin.measure import VERSIONS, confusion
from nearkin.models.folder import own_model
from nearkin.models.model import Model
from nearkin.runs.evaluate import (
    Diverged,
    examine,
    headline,
    keep_attention,
    keep_embeddings,
    nearness,
    refined_metrics,
    watched_batch,
)
from nearkin.runs.log import Silent, StepLog
from nearkin.runs.loop import Run, restore, save, train
from nearkin.runs.machine import Peak, machine, usable, versions
from nearkin.runs.made_by import declared
from nearkin.runs.model import join_left, left_by
from nearkin.runs.model import save as save_model
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Cost, Data, Epoch, Files, Metrics, Row, pictures_left_out
from nearkin.runs.store import Store

SAVE_SECONDS = 30.0  # of training between two checkpoints within an epoch
MOST_THREADS = 1024  # more than any machine's cores; a million end torch without a word
CONFUSED = 20  # classes at most, of a data set whose rows tell which are mistaken for which


@dataclass(frozen=True)
class Place:
    """Where and how runs are done: what changes the cost of a row, but not its numbers.

    But for skip_bad: a row whose pictures were not all there says so in its variant.
    """

    root: str | None = None  # folder of the data sets
    device: str = "auto"
    download: bool = False
    skip_bad: bool = False
    threads: int = 0  # of each process; 0: torch's own choice
    save_seconds: float = SAVE_SECONDS
    private: bool = False  # no picture of one's own is copied into results
    made_by: str = ""  # the backbone that made stored features whose file does not tell it
    made_size: int = 0  # its side in pixels

    def __post_init__(self) -> None:
        if not 0 <= self.threads <= MOST_THREADS:
            raise ValueError(f"threads must be 0 to {MOST_THREADS}, got {self.threads}")


@dataclass(frozen=True)
class Result:
    """A finished run: its row, its Model, and the folder of the files that it left.

    result["metrics"]["last"] and the like read the row's JSON form.
    """

    row: Row
    folder: Path

    @cached_property
    def model(self) -> Model:
        """The Model that the run left, read when it is first asked for.

        Raises:
            ValueError: the run diverged, or its row came without its files.
        """
        if self.row.status == "diverged":
            raise ValueError(f"run {self.row.hash} diverged, and left no Model")
        if not own_model(self.folder):
            raise ValueError(
                f"the row of {self.row.hash} is stored, but its Model is not: run(..., anew=True)"
            )
        return Model.load(self.folder)

    def __getitem__(self, part: str) -> Any:
        return self.row[part]

    def keys(self) -> Iterator[str]:
        """The names of the JSON form's parts; with them dict(result) is that form."""
        return self.row.keys()


@lru_cache(maxsize=2)
def data(
    name: str, root: str | None, download: bool, skip_bad: bool, size: int, private: bool = False
) -> Splits:
    """A data set, kept for the next run that wants the same one."""
    return load(name, root, download=download, skip_bad=skip_bad, size=size, private=private)


def splits_of(recipe: Recipe, place: Place) -> Splits:
    """The data set of a recipe."""
    return data(recipe.data, place.root, place.download, place.skip_bad, recipe.size, place.private)


def run(
    recipe: Recipe,
    out: Path | str = "out",
    *,
    place: Place = Place(),
    study: str = "",
    bar: Silent | None = None,
    anew: bool = False,
) -> Result:
    """Train and examine one recipe, and store its row; a row that is stored is just returned.

    A run that was killed goes on from its last checkpoint, on the CPU to the same numbers. With
    `anew` it is carried out though its row is stored, for the files that it leaves.
    """
    store, bar = Store(out), bar or Silent()
    with store.claim(recipe) as folder:
        stored = store.find(recipe)
        if stored and not anew:
            refuse_left_out(stored, place)
            if place.made_by:
                splits = splits_of(recipe, place)
                join_left(folder, splits, place.made_by, place.made_size, place.root)
            return Result(stored, folder)
        row = carry_out(recipe, store, folder, place, study, bar)
        if not stored:
            store.append(row)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    bar.finish(one_line(row))
    return Result(row, folder)


def refuse_left_out(row: Row, place: Place) -> None:
    """A row that was made without some pictures is none of a run that wants them all."""
    if row.data.left_out and not place.skip_bad:
        raise ValueError(
            f"row {row.hash} was made with --skip-bad ({row.data.variant}); without it "
            "take another --out"
        )


def carry_out(
    recipe: Recipe, store: Store, folder: Path, place: Place, study: str, bar: Silent
) -> Row:
    """One run from its start, or from its last checkpoint, to its row."""
    if place.threads:
        torch.set_num_threads(place.threads)
    splits = declared(splits_of(recipe, place), place.made_by, place.made_size, place.root)
    device = usable(place.device)
    peak = Peak(torch.device(device))
    start, diverged = start_of(recipe, store)
    current = Run(recipe, splits, device, start)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        restore(current, checkpoint)
    clock = Clock(current, peak)
    log = StepLog(folder, current.step)
    bar.start(title(recipe), current.total, current.step)
    if not current.total and not diverged:
        diverged = close_epoch(current, clock, log)
    try:
        for step in train(current) if not diverged else ():
            if step.watched:
                speed = clock.images_per_second()
                log.write(step, speed)
                bar.advance(step.step, step.watched["loss"], speed)
                diverged = not math.isfinite(step.watched["loss"])
            if current.epoch_ends:
                diverged = diverged or not math.isfinite(current.loss_sum.item())
                diverged = close_epoch(current, clock, log, diverged)
            if diverged:
                break
            if current.epoch_ends or clock.save_is_due(place.save_seconds):
                log.flush()
                clock.outside(lambda: save(current, checkpoint))
    finally:
        log.close()
    if diverged:
        return conclude(current, folder, study, None, clock.memory)
    model = left_by(current, place.root, whole=not study)
    row = conclude(current, folder, study, model, clock.memory)
    save_model(model, row, folder)
    return row


def start_of(recipe: Recipe, store: Store) -> tuple[str, bool]:
    """The file that the recipe starts from, "" where it starts from none; and whether the run that
    should have left it diverged. `start` may also be the hash of a run in the same store."""
    kept = own_model(store.run_folder(recipe.start))
    if not recipe.start or kept:
        return str(kept) if recipe.start else "", False
    lost = any(r.hash == recipe.start and r.status == "diverged" for r in store.rows())
    return "" if lost else recipe.start, lost


class Clock:
    """Counts a run's seconds of training, and apart from them those of evaluation and saving.

    memory: megabytes that the run takes in training, as its first epoch shows them.
    """

    def __init__(self, current: Run, peak: Peak):
        self.run, self.peak = current, peak
        self.memory: int | None = None
        self.saved = self.mark = time.perf_counter()
        self.speed_mark = (current.seconds, current.step)

    def tick(self) -> None:
        """What has passed since the last tick was training."""
        now = time.perf_counter()
        self.run.seconds += now - self.mark
        self.mark = now

    def outside(self, act: Callable[[], None]) -> None:
        """Do what is not training."""
        self.tick()
        act()
        now = time.perf_counter()
        self.run.other_seconds += now - self.mark
        self.mark = self.saved = now

    def save_is_due(self, seconds: float) -> bool:
        return time.perf_counter() - self.saved > seconds

    def images_per_second(self) -> float:
        """In training, since this was last asked."""
        self.tick()
        seconds, step = self.speed_mark
        self.speed_mark = (self.run.seconds, self.run.step)
        images = (self.run.step - step) * self.run.recipe.batch
        return images / max(self.run.seconds - seconds, 1e-9)


def close_epoch(current: Run, clock: Clock, log: StepLog, diverged: bool = False) -> bool:
    """Note what the epoch came to: mean loss, and the metrics where they are due; and say whether
    the run has diverged, which its embeddings may show before its loss does."""
    recipe, number = current.recipe, current.epoch
    steps = current.step - sum(e["steps"] for e in current.epochs)
    clock.tick()
    if clock.memory is None:  # evaluation has not begun
        clock.memory = clock.peak.megabytes()
    entry: dict = {"epoch": number, "steps": steps, "seconds": round(current.seconds, 3)}
    entry["loss"] = None if diverged or not steps else current.loss_sum.item() / steps
    current.loss_sum.zero_()
    last = current.step == current.total
    if can_monitor(current.loss) and not diverged:
        clock.outside(lambda: entry.update(monitor=watched_batch(current)))

    def measure() -> None:
        for name, splits in (("test", current.splits), ("validation", current.validation)):
            if splits is not None and not (recipe.trial and name == "test"):
                entry[name] = examine(current, splits, final=last)
                log.evaluated(current.step, entry[name], name)

    if not diverged and (last or number % recipe.evaluate_every == 0):
        try:
            clock.outside(measure)
        except Diverged:
            diverged = True
    current.epochs.append(entry)
    return diverged


def conclude(
    current: Run, folder: Path, study: str, model: Model | None, memory: int | None
) -> Row:
    """The row of a finished run, of one that diverged without a Model; its embeddings are kept in
    the folder, but not of a trial."""
    recipe, splits, diverged = current.recipe, current.splits, model is None
    last = mistaken = None
    files = Files(f"runs/{recipe.hash}")
    if model and not recipe.trial:
        last = {"epoch": current.epochs[-1]["epoch"], **current.epochs[-1]["test"]}
        query = splits.query
        embeddings = current.embed(query)
        keep_embeddings(folder / "embeddings.npz", current, embeddings, model)
        files = replace(files, embeddings="embeddings.npz")
        if len(query.classes) <= CONFUSED:
            mistaken = confusion(embeddings, query.labels, metric=nearness(current)).tolist()
        if keep_attention(folder / "attention.npz", current):
            files = replace(files, attention="attention.npz")
    metrics = Metrics(
        last=last,
        validated=chosen(current.epochs, headline(splits), "validation"),
        best_on_test=chosen(current.epochs, headline(splits), "test"),
        refined=refined_metrics(current) if recipe.refine and last else None,
    )
    return Row(
        hash=recipe.hash,
        recipe=recipe,
        metrics=metrics,
        data=described(splits),
        status="diverged" if diverged else "done",
        study=study,
        metric=nearness(current),
        epochs=tuple(Epoch(**entry) for entry in current.epochs),
        confusion=tuple(map(tuple, mistaken)) if mistaken else None,
        cost=cost(current, memory),
        versions=versions(),
        metric_versions=dict(VERSIONS),
        machine=machine(current.device),
        files=files,
    )


def cost(current: Run, memory: int | None) -> Cost:
    """The time, memory and parameters of a finished run."""
    images = current.step * current.recipe.batch
    return Cost(
        seconds=round(current.seconds + current.other_seconds, 3),
        train_seconds=round(current.seconds, 3),
        images_per_second=round(images / current.seconds, 1) if images else None,
        peak_memory_mb=memory,
        parameters=sum(p.numel() for p in current.backbone.parameters()),
        loss_parameters=sum(p.numel() for p in current.loss.parameters()),
    )


def described(splits: Splits) -> Data:
    """The data set of a run, as its row has it."""
    return Data(
        name=splits.name,
        variant=splits.variant,
        left_out=pictures_left_out(splits.variant),
        showable=splits.showable,
        shared_classes=splits.shared_classes,
        train_images=len(splits.train),
        train_classes=len(splits.train.classes),
        query_images=len(splits.query),
        gallery_images=len(splits.gallery),
        test_classes=len(splits.query.classes),
    )


def chosen(epochs: list[dict], metric: str, by: str) -> dict | None:
    """The test metrics of the epoch that is best on `by` ("validation" or "test"); None where
    either was not examined."""
    seen = [e for e in epochs if by in e and "test" in e]
    if not seen:
        return None
    best = max(seen, key=lambda e: e[by][metric])
    return {"epoch": best["epoch"], **best["test"]}


def title(recipe: Recipe) -> str:
    return f"{recipe.loss} {recipe.data} {recipe.dim}-D seed {recipe.seed}"


def one_line(row: Row) -> str:
    """A finished run in one line."""
    found = row.metrics.last
    if row.recipe.trial and row.status == "done":
        found = row.epochs[-1].validation
    named = {"in_train.recall@1": "R@1 in train", "recall@1": "R@1", "knn_accuracy": "5-NN"}
    shares = [f"{name} {100 * found[k]:.1f} %" for k, name in named.items() if found and k in found]
    score = "diverged" if found is None else ", ".join(shares)
    return f"{row.hash}  {title(row.recipe)}  {score}  {row.cost.seconds or 0:.0f} s"
