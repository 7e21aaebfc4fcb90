"""`nearkin train`: one recipe, run and stored."""

from __future__ import annotations

import json
import os
import sys
import warnings
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import OmitArgPrefixes

from nearkin.app.output import Labels, MadeBy, Output
from nearkin.runs.recipe import Recipe

if TYPE_CHECKING:
    from nearkin.runs.engine import Place
    from nearkin.runs.log import Silent
    from nearkin.runs.ranks import Ranks
    from nearkin.runs.row import Row


ONE_CLASS = "tested on one class: whatever is nearest is kin, and R@k tells nothing"
MOST = 500  # rows of a folder whose page is written unasked


def train(
    recipe: OmitArgPrefixes[Recipe],
    output: OmitArgPrefixes[Output] = Output(),
    features: OmitArgPrefixes[MadeBy] = MadeBy(),
    labels: Labels = "",
    like: str = "",
    devices: int = 1,
) -> None:
    """Train and evaluate one recipe; store its row under --out, and its Model in OUT/runs/HASH.

    No training on the same data stands beside it, on the page OUT/report/runs.html. With a
    pretrained network (lite0, lite2, timm:NAME) the flags that are left out are those of
    fine-tuning: batch norm frozen, the side of its pretraining, an epoch of the head alone, small
    rates, and the Model of the epoch that validation chose.

    Example: nearkin train --data mnist-5k --loss ratio-triplet --dim 64 --epochs 8

    Example: nearkin train --data photos/ --labels nested --backbone lite0 --size 224 --out grocery

    Example: nearkin train --data photos/ --backbone lite0 --tail 1 --out quick

    Example: nearkin train --recipe my.json --loss contrastive --loss-options margin=0.5

    Example: nearkin train --data photos/ --like best --out grocery

    Args:
        like: choice.json that `nearkin choose` wrote for these data, or best, the one under --out
            or under out/; other flags change what it says. No training stands beside it on the
            page.
        labels: of a folder of pictures, which folders on the way to one name its class: all
            (nested), the last (parent) or the first (top).
        devices: processes that carry it out together, each with a GPU of its own, or with its share
            of the cores: they change the time, not the numbers. torchrun starts them too.
    """
    if devices != 1:
        start_several(devices, recipe, output, features=features, labels=labels, like=like)
        return
    from nearkin.runs.ranks import joined

    with joined(output.machine.device) as ranks:
        train_here(recipe, output, features, labels, like, ranks)


def start_several(devices: int, recipe: Recipe, output: Output, **given: Any) -> None:
    """Start the processes of one run on this machine, and wait for them."""
    from nearkin.app.parse import TYPED
    from nearkin.runs.build import refuse_unfit
    from nearkin.runs.launch import launch
    from nearkin.runs.machine import cores
    from nearkin.runs.refusals import refuse_too_many

    if "RANK" in os.environ:
        raise ValueError("--devices starts processes; torchrun has started them already")
    refuse_unfit(recipe)
    refuse_too_many(recipe, devices)
    threads = output.machine.threads or max(1, cores() // max(devices, 1))
    output = replace(output, machine=replace(output.machine, threads=threads))
    given |= {"recipe": recipe, "output": output}
    launch(devices, output.machine.device, as_one, typed=TYPED.get(), **given)


def as_one(typed: frozenset[str], **given: Any) -> None:
    """One of several processes of a run; typed: the flags that its command had."""
    from nearkin.app.main import one_line_warnings
    from nearkin.app.parse import TYPED

    TYPED.set(typed)
    with one_line_warnings():
        train(**given)


def train_here(
    recipe: Recipe, output: Output, features: MadeBy, labels: Labels, like: str, ranks: Ranks
) -> None:
    """Train in this process, alone or as one of several."""
    from nearkin.data.sets.catalogue import with_labels
    from nearkin.runs.engine import run
    from nearkin.runs.log import Silent, bar
    from nearkin.runs.machine import keep_freed_memory
    from nearkin.runs.made_by import refuse_unfit

    keep_freed_memory()
    if not ranks.first:
        warnings.simplefilter("ignore")  # rank 0 says it
    with bar() if ranks.first else nullcontext(Silent()) as shown:
        place = replace(output.place(), **vars(features))
        recipe = replace(recipe, data=with_labels(recipe.data, labels))
        refuse_unfit(recipe.data, **vars(features))
        if like:
            like_chosen(recipe, choice_at(like, output.out), output.out, place, shown)
            return
        recipe = fitting(recipe, place)
        row = run(recipe, output.out, place=place, bar=shown)
        plain = None if recipe.trial else put_beside(row.row, output.out, place, shown)
    if not ranks.first:
        return
    if row.stored:
        hash = row.row.hash
        print(f"nearkin: {hash} is stored in {output.out}: nothing was run", file=sys.stderr)
    print(json.dumps({"hash": row["hash"], "status": row["status"], **row["metrics"]}, indent=2))
    if not recipe.trial:
        write_page(output.out)
    if row.row.data.test_classes == 1 and "in_train.recall@1" not in (row.row.metrics.last or {}):
        print(f"nearkin: {ONE_CLASS}", file=sys.stderr)
    if plain:
        print(f"nearkin: {beside(row.row, plain)}", file=sys.stderr)


def fitting(recipe: Recipe, place: Place) -> Recipe:
    """The recipe, with the defaults of fine-tuning where its network is pretrained and they were
    not typed; one from a file is taken as it stands."""
    from nearkin.app.fine_tuning import fine_tuned
    from nearkin.app.parse import TYPED
    from nearkin.models.pretrained import is_pretrained
    from nearkin.runs.build import refuse_unfit
    from nearkin.runs.engine import splits_of

    if not is_pretrained(recipe.backbone) or "backbone" not in TYPED.get():
        return recipe
    refuse_unfit(fine_tuned(recipe, TYPED.get()))  # before any picture is read
    return fine_tuned(recipe, TYPED.get(), splits_of(recipe, place))


def beside(row: Row, plain: Row) -> str:
    """How a run ended, beside no training: the epoch that validation chose, else the last."""
    from nearkin.studies.shared.words import percent

    found, bare = row.metrics.validated or row.metrics.last, plain.metrics.last
    if not found or not bare:
        return "the run diverged: it leaves no Model" if not found else "no training diverged"
    metric = "in_train.recall@1" if "in_train.recall@1" in bare else "recall@1"
    a, b = found[metric], bare[metric]
    which = "below" if a < b else "above" if a > b else "no better than"
    advice = ": keep the network as it was, or try `nearkin choose`" if a <= b else ""
    name = "R@1 among the training images" if metric != "recall@1" else "R@1"
    return f"{name} {percent(a)}, {which} no training ({percent(b)}){advice}"


def put_beside(row: Row, out: Path, place: Place, bar: Silent) -> Row | None:
    """The row of no training on the same data, in a folder of its own below OUT, whose rows and
    Model are those that were asked for; None where it is the run itself."""
    from nearkin.models.folder import forget
    from nearkin.report.single_runs import BESIDE
    from nearkin.runs.engine import run
    from nearkin.studies.shared.methods import without_training

    plain = without_training(row.recipe, row.data.size)
    if plain.hash == row.recipe.hash:
        return None
    try:
        found = run(plain, out / BESIDE, place=replace(place, made_by="", made_size=0))
    except (ValueError, OSError) as error:  # the run that was asked for is done
        warnings.warn(f"no training could not be measured: {error}", stacklevel=2)
        return None
    with suppress(OSError):  # of a folder that is read-only, where it was done before
        forget(found.folder)
    if not found.stored:
        bar.say(f"{found.row.hash}: no training on these data, to stand beside it")
    return found.row


def write_page(out: Path) -> None:
    """The page of the single runs of a folder, where the extra that draws it is installed, and the
    folder does not hold so many that the page would cost more than the run."""
    from nearkin.extras import MissingExtra, optional
    from nearkin.runs.store import Store

    rows = len(Store(out).lines().entries)
    if rows > MOST:
        print(
            f"nearkin: {out} holds {rows:,} rows: `nearkin report {out}` writes its page",
            file=sys.stderr,
        )
        return
    try:
        with optional():
            from nearkin.app.report import page_of_runs
        print(f"nearkin: page: {page_of_runs(out)}", file=sys.stderr)
    except (MissingExtra, OSError, ValueError) as error:  # as where MPLBACKEND is none; it is done
        print(f"nearkin: no page: {error}", file=sys.stderr)


def choice_at(like: str, out: Path) -> Path:
    """The file that --like means."""
    from nearkin.studies.chosen import FILE

    if like != "best":
        return Path(like).expanduser()
    for folder in dict.fromkeys((out, Path("out"))):
        if (folder / FILE).is_file():
            return folder / FILE
    raise ValueError(f"--like best: neither {out} nor out holds a {FILE}: `nearkin choose` first")


def like_chosen(recipe: Recipe, path: Path, out: Path, place: Place, bar: Silent) -> None:
    """Train what was chosen, beside no training; write the page, and say which is ahead."""
    from nearkin.app.report import report
    from nearkin.models.folder import forget
    from nearkin.runs.executors import complete
    from nearkin.runs.ranks import current
    from nearkin.runs.store import Store
    from nearkin.studies.choice import prepared
    from nearkin.studies.chosen import Choice, verdict

    choice, store = Choice.read(path), Store(out)
    mine, plain = prepared(choice, path, recipe, out, place)
    rows = complete({"chosen": mine, "plain": plain}, out, place=place, bar=bar)
    if not current().first:
        return
    if rows["plain"].key != rows["chosen"].key:  # so that OUT means the Model that was trained
        forget(store.folder_of(rows["plain"]))
    report(out)
    found = verdict(choice, rows["chosen"], rows["plain"])
    print(f"{store.folder_of(rows['chosen'])}: {found}")
