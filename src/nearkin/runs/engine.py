"""From a recipe to its row: run once, stored whole, resumed after a kill, never done twice."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearkin import models
from nearkin.data import Splits, own_splits
from nearkin.data.fingerprint import of_tensor
from nearkin.data.items import Items
from nearkin.data.sets.catalogue import is_features
from nearkin.doctor import Doctor
from nearkin.files import remove
from nearkin.losses.protocol import can_monitor
from nearkin.models.folder import own_model
from nearkin.models.model import Model
from nearkin.runs.build import refuse_unfit
from nearkin.runs.checkpoint import OtherData, restore, save
from nearkin.runs.clock import Clock
from nearkin.runs.evaluate import Diverged, examine, watched_batch
from nearkin.runs.health import attend, keep, tell_test
from nearkin.runs.ingredients import Ingredients, Lookup, find_row, gather
from nearkin.runs.ingredients import splits_of as splits_of
from nearkin.runs.log import Silent, StepLog, Unwritten
from nearkin.runs.loop import train
from nearkin.runs.machine import Peak, usable, versions
from nearkin.runs.made_by import declared
from nearkin.runs.manners import as_found
from nearkin.runs.model import join_left, left_by
from nearkin.runs.model import save as save_model
from nearkin.runs.outcome import conclude, one_line, title
from nearkin.runs.place import MOST_THREADS, Place
from nearkin.runs.ranks import current as current_ranks
from nearkin.runs.recipe import DEFAULTS, Recipe
from nearkin.runs.refusals import refuse_no_start
from nearkin.runs.row import Row
from nearkin.runs.run import Run
from nearkin.runs.store import Store, sweep
from nearkin.runs.validated import VALIDATED, chosen_weights, is_spent, keep_if_best
from nearkin.stopping import Terminated, asked, saving

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Result:
    """A finished run: its row, its Model, the folder of the files that it left, and whether it was
    stored before it was asked for.

    result["metrics"]["last"] and the like read the row's JSON form.
    """

    row: Row
    folder: Path
    stored: bool = field(default=False, compare=False)

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


def run(
    recipe: Recipe,
    out: Path | str = "out",
    *,
    splits: Any = None,
    backbone: nn.Module | None = None,
    loss: nn.Module | None = None,
    place: Place = Place(),
    study: str = "",
    bar: Silent | None = None,
    anew: bool = False,
) -> Result:
    """Train and examine one recipe, and store its row; a row that is stored is just returned.

    A stored row is of the same recipe on the same data: where the data have changed, the run is
    done anew, and says so. A run that was killed goes on from its last checkpoint, on the CPU with
    as many threads to the same numbers. The process is left as it was found.

    Where torch.distributed is initialised, its processes carry out the run together, each with a
    slice of every batch, and all call this alike; rank 0 measures and writes, and all have the row.

    Args:
        out: folder of the store.
        splits, backbone, loss: objects in place of those that the recipe names; see `Run`, and for
            data in other forms than Splits `nearkin.data.own_splits`. Their row is known by
            fingerprints of the data, the initial weights, the source of the classes and the values
            that the objects hold. Where one of these cannot be made, the row says so in
            `own_object`, and is never returned in place of a run.
        place: machine, folder of the data sets and the like.
        study: the study that asks.
        bar: told of what goes on.
        anew: carry it out though its row is stored, for the files that it leaves.
    """
    store, ranks = Store(out), current_ranks()
    bar = bar if bar and ranks.first else Silent()
    if splits is not None:
        splits = own_splits(splits, size=recipe.size)
    asked = recipe
    recipe = with_fitting_head(recipe, splits) if backbone is None else recipe
    note = "these data are features: backbone linear" if recipe is not asked else ""
    if splits is None and backbone is None and loss is None:
        found = ranks.lead(lambda: find_row(recipe, store, place))
        if ranks.first:
            announce([found], bar)
        if found.row and anew:
            return carry_out(recipe, store, place, study, bar, again=found.row, note=note)
        if found.row:
            if place.made_by and ranks.first:
                folder, known = store.folder_of(found.row), splits_of(recipe, place)
                join_left(folder, known, place.made_by, place.made_size, place.root)
            return served(found.row, store)
    return carry_out(recipe, store, place, study, bar, splits, backbone, loss, note=note)


def with_fitting_head(recipe: Recipe, splits: Splits | None) -> Recipe:
    """The recipe, with a linear head on features where it names no other backbone: the default one
    takes pictures alone. The row holds the linear head by its name."""
    unasked = recipe.backbone == DEFAULTS["backbone"] and not recipe.backbone_options
    inputs = splits and splits.train.inputs
    stored = isinstance(inputs, Tensor) and inputs.ndim == 2 if splits else is_features(recipe.data)
    return replace(recipe, backbone="linear") if unasked and stored else recipe


def announce(found: Sequence[Lookup], bar: Silent) -> None:
    """Say which rows are of other data, and of which nobody can tell."""
    before = sum(one.doubt == "before" for one in found)
    absent = sum(one.doubt == "absent" for one in found)
    other = sum(one.others > 0 for one in found)
    if before:
        bar.say(f"stored rows without a fingerprint of their data, taken as they stand: {before}")
    if absent:
        bar.say(f"stored rows whose data are not here, so that nobody can compare them: {absent}")
    if other:
        warnings.warn(
            f"runs that are stored, but of other data than lie there now: {other}; these are done "
            "anew",
            stacklevel=3,
        )


def served(row: Row, store: Store) -> Result:
    """A stored row; what a kill right after it was stored has left in its folder is removed."""
    folder = store.folder_of(row)
    if not current_ranks().first:
        return Result(row, folder, stored=True)
    with suppress(OSError):  # of a folder that is read-only, or where the run is done anew just now
        left = [folder / name for name in (CHECKPOINT, VALIDATED) if (folder / name).exists()]
        if left or list(folder.glob(".*")):
            with store.claims(folder, wait=False):
                sweep(folder)
                for path in left:
                    remove(path)
    return Result(row, folder, stored=True)


def carry_out(
    recipe: Recipe,
    store: Store,
    place: Place = Place(),
    study: str = "",
    bar: Silent | None = None,
    splits: Splits | None = None,
    backbone: nn.Module | None = None,
    loss: nn.Module | None = None,
    again: Row | None = None,
    wait: bool = True,
    note: str = "",
) -> Result:
    """Do a run that is not stored, unless another process stores it meanwhile.

    again: a stored row whose run is done again for the files that it leaves.
    wait: for another process that is at this run; otherwise a `Taken` says so.
    note: told once nothing is refused any more.
    """
    ranks, device = current_ranks(), usable(place.device)
    bar = bar if bar and ranks.first else Silent()
    if backbone is None and loss is None:
        refuse_unfit(recipe)  # before any picture is read
        refuse_no_start(recipe, store)
    with as_found(place.threads, device), ExitStack() as held:
        versions()  # the code is what it is now, whatever is committed later
        collect = partial(gather, recipe, store, place, splits, backbone, loss)
        if ranks.count > 1:
            ranks.lead(lambda: collect() and None)  # one downloads and caches before all read
        parts = ranks.agree(collect)
        ranks.refuse_others(**shared(parts))
        key = ranks.lead(lambda: again.key if again else parts.key)
        row = ranks.lead(lambda: None if again else store.row(key))
        if row:
            return served(row, store)
        known = declared(parts.data.splits, place.made_by, place.made_size, place.root)
        peak = Peak(torch.device(device), exact=not recipe.trial)
        make = partial(Run, parts.recipe, known, device, parts.start.file, ranks=ranks)
        objects: Any = {"backbone": backbone, "loss": loss}
        run = make(**objects, fingerprint=parts.data.fingerprint)
        folder = ranks.lead(lambda: held.enter_context(store.claim(key, wait)))
        row = ranks.lead(lambda: None if again else store.row(key))
        if row:  # another process was faster
            return Result(row, folder, stored=True)
        if note:
            bar.say(note)
        with saving():
            row = follow(run, parts, folder, place, study, bar, peak)

        def store_it() -> None:
            if not again:
                store.append(row)
            remove(folder / CHECKPOINT)
            remove(folder / VALIDATED)

        ranks.lead(store_it)
    bar.finish(one_line(row))
    return Result(again or row, folder)


def shared(parts: Ingredients) -> dict[str, Any]:
    """What must be the same in all processes of a run; the items of a Dataset cannot be compared,
    and own objects are those of rank 0."""
    data = parts.data.splits.train
    same = {"recipes": parts.recipe.plain(), "labels": of_tensor(data.labels)}
    return same if isinstance(data.inputs, Items) else {**same, "data": parts.data.fingerprint}


def follow(
    current: Run,
    parts: Ingredients,
    folder: Path,
    place: Place,
    study: str,
    bar: Silent,
    peak: Peak,
) -> Row:
    """One run from its start, or from its last checkpoint, to its row."""
    checkpoint, diverged = folder / CHECKPOINT, parts.start.lost
    with current.ranks.file(checkpoint) as kept:
        if kept:
            take_up(current, kept, place)
    clock = Clock(current, peak)
    log = StepLog(folder, current.step) if current.ranks.first else Unwritten()
    if not study:
        attend(Doctor(tell=lambda line: bar.say(f"doctor: {line}")), current)
        tell_repeats(current, bar)
    bar.start(title(current.recipe), current.total, current.step)
    try:
        if not current.total and not diverged:
            diverged = close_epoch(current, clock, log)
        for step in train(current) if not diverged else ():
            if step.watched:
                speed = clock.images_per_second()
                log.write(step, speed)
                bar.advance(step.step, step.watched["loss"], speed)
                diverged = not math.isfinite(step.watched["loss"])
            if current.epoch_ends:
                diverged = diverged or not math.isfinite(current.loss_sum.item())
                diverged = close_epoch(current, clock, log, diverged)
                if not diverged and not current.recipe.trial:
                    clock.outside(lambda: keep_if_best(current, folder))
                    if current.step < current.total and is_spent(current):
                        clock.outside(lambda: examine_to_the_end(current))
                        break
            if diverged:
                break
            # a trial is soon done again
            epoch_is_kept = current.epoch_ends and not current.recipe.trial
            if epoch_is_kept or clock.save_is_due(place.save_seconds) or asked():
                log.flush()
                clock.outside(lambda: save(current, checkpoint))
                if asked():
                    raise Terminated
    except FloatingPointError:  # of a loss that raises what is not finite
        diverged = close_epoch(current, clock, log, True)
    finally:
        log.close()

    def closed() -> Row:
        keep(current, folder)
        if diverged:
            return conclude(current, parts, folder, study, None, clock.memory)
        weights = None if current.recipe.trial else chosen_weights(current, folder)
        model = left_by(current, place.root, whole=not study, weights=weights)
        row = conclude(current, parts, folder, study, model, clock.memory, weights)
        save_model(model, row, folder)
        return row

    splits = current.splits
    return current.led(closed, *([] if diverged else [splits.query, splits.gallery]))


def tell_repeats(current: Run, bar: Silent) -> None:
    """Say that a batch must hold images several times, since there are fewer than it has places."""
    batch, images = current.recipe.batch, len(current.splits.train)
    if current.total and batch > images:
        bar.say(
            f"a batch of {batch:,} is larger than the {images:,} training images: each stands in "
            f"it {round(batch / images)} times or so"
        )


def take_up(current: Run, checkpoint: Path, place: Place) -> None:
    """Go on from a checkpoint, with as many threads as left it where the place does not say how
    many; of other data, begin anew."""
    threads = models.read(checkpoint).get("threads")
    last = threads[-1] if isinstance(threads, list) and threads else 0
    if not place.threads and last in range(1, MOST_THREADS + 1):
        torch.set_num_threads(last)
    try:
        restore(current, checkpoint)
    except OtherData:
        warnings.warn(
            f"{checkpoint} was of other data than lie there now: begun anew", stacklevel=2
        )
        remove(checkpoint)


def close_epoch(current: Run, clock: Clock, log: StepLog, diverged: bool = False) -> bool:
    """Append this epoch's record: its mean loss, and the metrics where they are due.

    Returns:
        Whether the run has diverged; its embeddings can show it before its loss.
    """
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
        tell_test(current, entry.get("test", {}))

    if not diverged and (last or number % recipe.evaluate_every == 0):
        try:
            clock.outside(measure)
        except Diverged:
            diverged = True
    current.epochs.append(entry)
    return diverged


def examine_to_the_end(current: Run) -> None:
    """Measure at the epoch at which a run stops early all that is measured at the last one."""
    parts = (("test", current.splits), ("validation", current.validation))
    found = {name: examine(current, splits, final=True) for name, splits in parts if splits}
    current.epochs[-1] |= found
