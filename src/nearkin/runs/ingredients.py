"""What a run is made of: a recipe with its data, files and objects, which together name it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from nearkin.data import Splits, load
from nearkin.data.fingerprint import fingerprint, of_file
from nearkin.data.items import Items
from nearkin.data.request import Absent
from nearkin.data.sets.catalogue import named, state
from nearkin.models.folder import config_of, is_model, own_model
from nearkin.runs.identity import WEIGHTS, key_of
from nearkin.runs.own import fingerprint_of
from nearkin.runs.place import Place
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Measurement, Row
from nearkin.runs.store import Store


@dataclass(frozen=True)
class Loaded:
    """A data set as its files were when they were read."""

    splits: Splits
    fingerprint: str


LOADED: dict[tuple, tuple[str, Loaded]] = {}
"""The last data sets whose files tell when they change: name, size, ... -> state of files, data."""
MOST_LOADED = 2


def loaded(recipe: Recipe, place: Place) -> Loaded:
    """The data set of a recipe as it lies there now.

    It is kept for the next run that wants the same one, where its files then tell that none of them
    has changed; else it is read again.
    """
    name, root = recipe.data, place.root
    lies = str(named(name, root)[1].absolute())
    key = (name, lies, place.skip_bad, place.private, recipe.size)
    now = state(name, root)
    if now is not None and LOADED.get(key, ("",))[0] == now:
        return LOADED[key][1]
    splits = load(
        name,
        root,
        download=place.download,
        skip_bad=place.skip_bad,
        size=recipe.size,
        private=place.private,
    )
    found = Loaded(splits, fingerprint(splits))
    LOADED.pop(key, None)
    if now is not None and state(name, root) == now:  # nobody wrote while it was read
        LOADED[key] = now, found
        for oldest in list(LOADED)[:-MOST_LOADED]:
            del LOADED[oldest]
    return found


def splits_of(recipe: Recipe, place: Place) -> Splits:
    """The data set of a recipe."""
    return loaded(recipe, place).splits


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    file: the Model's folder or the file of weights; "": none.
    lost: whether it should have been left by a run that diverged.
    fingerprint: of the file, or of what the run was made of that left it; "" where unknown.
    """

    file: str = ""
    lost: bool = False
    fingerprint: str = ""


@dataclass(frozen=True)
class Ingredients:
    """A recipe with all that its run is made of.

    made_of: fingerprints of files and of own objects.
    own_object: in words, which parts are own objects, and which of these cannot be known from
        others, so that their row is never served again.
    """

    recipe: Recipe
    data: Loaded
    start: Start = Start()
    made_of: Mapping[str, str] = field(default_factory=dict)
    own_object: str = ""

    @property
    def key(self) -> str:
        """The name of the run."""
        return key_of(self.recipe.hash, self.data.fingerprint, self.made_of)


def gather(
    recipe: Recipe,
    store: Store,
    place: Place,
    splits: Splits | None = None,
    backbone: nn.Module | None = None,
    loss: nn.Module | None = None,
) -> Ingredients:
    """Read the data, and find out all that the run is made of.

    The recipe of what is handed in as an object names the object's class, or the data set's name.
    """
    if splits is None:
        data = loaded(recipe, place)
    else:
        data, recipe = Loaded(splits, fingerprint(splits)), replace(recipe, data=splits.name)
    start = start_of(recipe, store, place)
    made_of = {"start": start.fingerprint, "weights": of_weights(recipe)}
    own, objects = [], {"backbone": backbone, "loss": loss}
    if isinstance(data.splits.train.inputs, Items):
        own.append(f"data {data.splits.name} (not to be told from others: a Dataset)")
    for part, given in objects.items():
        if given is not None:
            made_of[part], why = fingerprint_of(given)
            name = type(given).__name__
            own.append(f"{part} {name}" + (f" (not to be known from others: {why})" if why else ""))
            options = {f"{part}_options": {}}
            recipe = replace(recipe, **{part: f"own:{name}", **options})  # type: ignore[arg-type]
    return Ingredients(
        recipe=recipe,
        data=data,
        start=start,
        made_of={name: digest for name, digest in made_of.items() if digest},
        own_object=", ".join(own),
    )


def start_of(recipe: Recipe, store: Store, place: Place) -> Start:
    """The file that the recipe starts from: `start` is its path, or the hash of a run in the store.

    Of runs of one recipe on several data it is the one whose data are those that lie there now;
    else the newest.
    """
    if not recipe.start:
        return Start()
    rows = [row for row in store.of_hash(recipe.start) if isinstance(row, Row)]
    for row in rows if len(rows) > 1 else ():
        if row.data.fingerprint == fingerprint_now(row.recipe, place):
            rows = [row]
            break
    if rows:
        row = rows[-1]
        file, key = own_model(store.folder_of(row)), row.key if row.key != row.hash else ""
        if row.status == "diverged" and not file:
            return Start("", True, key)
        return Start(str(file or store.folder_of(row)), False, key)
    path = Path(recipe.start).expanduser()
    return Start(str(path), False, of_start(path))


def of_start(path: Path) -> str:
    """The fingerprint of a Model, or of a file of weights; "" where there is none."""
    if not path.exists():
        return ""
    folder = path if path.is_dir() else path.parent
    return config_of(folder)["identity"] if is_model(folder) else of_file(path)


def fingerprint_now(recipe: Recipe, place: Place) -> str:
    """The fingerprint of a recipe's data as they are now; "" where they are not here."""
    try:
        return loaded(recipe, place).fingerprint
    except Absent:
        return ""


def of_weights(recipe: Recipe) -> str:
    """The fingerprint of the file of weights that the backbone is made with; "" without one."""
    weights = recipe.backbone_options.get("weights", WEIGHTS[0])
    if weights in WEIGHTS or not isinstance(weights, str):
        return ""
    path = Path(weights).expanduser()
    return of_file(path) if path.exists() else ""


@dataclass(frozen=True)
class Lookup:
    """Whether the row of a recipe, or a measurement, is stored.

    row: the row; None: none, or only of other data.
    doubt: why nobody can say whether the row is of the data that lie there now: "before", it holds
        no fingerprint; "absent", the data are not here.
    others: rows of the recipe that are of other data than lie there now.
    """

    row: Any
    doubt: str = ""
    others: int = 0


def find_row(recipe: Recipe, store: Store, place: Place) -> Lookup:
    """The stored row of a recipe on its data as they are now.

    A row of before, which holds no fingerprint, is taken as it stands, and so is the newest row
    where the data are not on this machine.
    """
    rows = [row for row in store.of_hash(recipe.hash) if isinstance(row, Row)]
    before = [row for row in rows if not row.data.fingerprint and same_files(row.recipe, recipe)]
    known = [row for row in rows if row.data.fingerprint and not row.own_object]
    if known:
        try:
            key = gather(recipe, store, place).key
        except Absent:
            return Lookup(known[-1], "absent")
        row = next((row for row in known if row.key == key), None)
        if row or not before:
            return Lookup(row, "", 0 if row else len(known))
    for row in before:
        refuse_left_out(row, place)
        return Lookup(row, "before")
    return Lookup(None)


def find_measurement(hash: str, recipe: Recipe | None, store: Store, place: Place) -> Lookup:
    """The stored measurement of this hash, on the recipe's data as they are now; without a recipe
    it is of no data."""
    rows = [row for row in store.of_hash(hash) if isinstance(row, Measurement)]
    before = [row for row in rows if row.key == row.hash]
    known = [row for row in rows if row.key != row.hash]
    if recipe is None or not known:
        return Lookup(before[0] if before else None, "before" if before and recipe else "")
    now = fingerprint_now(recipe, place)
    if not now:
        return Lookup(known[-1], "absent")
    row = next((row for row in known if row.data and row.data.fingerprint == now), None)
    if row or not before:
        return Lookup(row, "", 0 if row else len(known))
    return Lookup(before[0], "before")


def same_files(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes of one hash name the same files of weights, where none are known by their
    content."""
    weights = [recipe.backbone_options.get("weights") for recipe in (one, other)]
    return weights[0] == weights[1] and one.start == other.start


def refuse_left_out(row: Row, place: Place) -> None:
    """Refuse a row that was made without some pictures for a run that wants them all."""
    if row.data.left_out and not place.skip_bad:
        raise ValueError(
            f"row {row.hash} was made with --skip-bad ({row.data.variant}); without it "
            "take another --out"
        )
