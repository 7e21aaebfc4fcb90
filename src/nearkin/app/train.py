"""`nearkin train`: one recipe, run and stored."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import OmitArgPrefixes

from nearkin.app.output import Labels, MadeBy, Output
from nearkin.runs.recipe import Recipe

if TYPE_CHECKING:
    from nearkin.runs.engine import Place
    from nearkin.runs.log import Silent
    from nearkin.runs.row import Row


def train(
    recipe: OmitArgPrefixes[Recipe],
    output: OmitArgPrefixes[Output] = Output(),
    features: OmitArgPrefixes[MadeBy] = MadeBy(),
    labels: Labels = "",
    like: str = "",
) -> None:
    """Train and evaluate one recipe; store its row under --out, and its Model in OUT/runs/HASH.

    No training on the same data stands beside it, on the page OUT/report/runs.html.

    Example: nearkin train --data mnist-5k --loss ratio-triplet --dim 64 --epochs 8

    Example: nearkin train --data photos/ --labels nested --backbone lite0 --size 224 --out grocery

    Example: nearkin train --recipe my.json --loss contrastive --loss-options margin=0.5

    Example: nearkin train --data photos/ --like best --out grocery

    Args:
        like: choice.json that `nearkin choose` wrote for these data, or best, the one under --out
            or under out/; other flags change what it says. No training stands beside it on the
            page.
        labels: of a folder of pictures, which folders on the way to one name its class: all
            (nested), the last (parent) or the first (top).
    """
    from nearkin.data.sets.catalogue import with_labels
    from nearkin.runs.engine import run
    from nearkin.runs.log import bar
    from nearkin.runs.machine import keep_freed_memory

    keep_freed_memory()
    with bar() as shown:
        place = replace(output.place(), **vars(features))
        recipe = replace(recipe, data=with_labels(recipe.data, labels))
        if like:
            like_chosen(recipe, choice_at(like, output.out), output.out, place, shown)
            return
        row = run(recipe, output.out, place=place, bar=shown)
        if not recipe.trial:
            put_beside(row.row, output.out, place, shown)
    if row.stored:
        hash = row.row.hash
        print(f"nearkin: {hash} is stored in {output.out}: nothing was run", file=sys.stderr)
    print(json.dumps({"hash": row["hash"], "status": row["status"], **row["metrics"]}, indent=2))
    if not recipe.trial:
        write_page(output.out)


def put_beside(row: Row, out: Path, place: Place, bar: Silent) -> None:
    """The row of no training on the same data, which leaves no Model, so that OUT means the one
    that was trained."""
    from nearkin.models.folder import forget
    from nearkin.runs.engine import run
    from nearkin.studies.shared.methods import without_training

    plain = without_training(row.recipe, row.data.size)
    if plain.hash != row.recipe.hash:
        found = run(plain, out, place=replace(place, made_by="", made_size=0))
        forget(found.folder)
        if not found.stored:
            bar.say(f"{found.row.hash}: no training on these data, to stand beside it")


def write_page(out: Path) -> None:
    """The page of the single runs of a folder, where the extra that draws it is installed."""
    from nearkin.extras import MissingExtra, optional

    try:
        with optional():
            from nearkin.app.report import page_of_runs
        print(f"nearkin: page: {page_of_runs(out)}", file=sys.stderr)
    except MissingExtra as error:
        print(f"nearkin: no page: {error}", file=sys.stderr)


def choice_at(like: str, out: Path) -> Path:
    """The file that --like means."""
    from nearkin.studies.choice import FILE

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
    from nearkin.runs.store import Store
    from nearkin.studies.choice import Choice, prepared, verdict

    choice, store = Choice.read(path), Store(out)
    mine, plain = prepared(choice, path, recipe, out, place)
    rows = complete({"chosen": mine, "plain": plain}, out, place=place, bar=bar)
    if rows["plain"].key != rows["chosen"].key:  # so that OUT means the Model that was trained
        forget(store.folder_of(rows["plain"]))
    report(out)
    found = verdict(choice, rows["chosen"], rows["plain"])
    print(f"{store.folder_of(rows['chosen'])}: {found}")
