"""A Row is one finished run, a Measurement what a study measures without one; each a JSON line.

The JSON form has the names and places of the fields below, and the number of its schema. Lines of
schema 1, which had no number, are read as well, and so is a line that lacks a part with a default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache, partial
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from nearkin.data.terms import spoken
from nearkin.names import unknown
from nearkin.notebook import facts, share
from nearkin.runs.identity import key_of
from nearkin.runs.migrate import upgraded
from nearkin.runs.recipe import DEFAULTS, Recipe

SCHEMA = 2
"""Of the lines that are written here. Raise it when a field gets another meaning or place."""

Numbers = Mapping[str, float]
"""Name of a metric -> its value, a share in 0..1 as a rule."""

HEADLINES = ("recall@1", "in_train.recall@1")
"""A result holds one of these: test images are sought among each other or, where each class has one
of them, among the training images alone."""


@dataclass(frozen=True)
class Metrics:
    """The test metrics of a run: {"epoch": 4, "recall@1": 0.57, "map@r": ..., ...} or None."""

    last: Numbers | None
    """of the last epoch: the result; None where the run diverged, and of a trial"""
    validated: Numbers | None = None
    """of the epoch that validation chose, where the run validates"""
    best_on_test: Numbers | None = None
    """of the best epoch on test: what choosing the epoch there would report"""
    refined: Mapping[str, float | str] | None = None
    """of the last epoch, test images refined by the loss's graph, and what `graph` came from"""


@dataclass(frozen=True)
class Epoch:
    """One epoch of training; what was not measured then is None."""

    epoch: int
    steps: int = 0
    seconds: float = 0.0
    """of training, since the start of the run"""
    loss: float | None = None
    """mean over the epoch's steps"""
    test: Numbers | None = None
    validation: Numbers | None = None
    monitor: Numbers | None = None
    """what the loss reports of a fixed batch"""


@dataclass(frozen=True)
class Cost:
    """The time, memory and parameters that a run took."""

    seconds: float | None = None
    train_seconds: float | None = None
    """without evaluation and saving"""
    images_per_second: float | None = None
    peak_memory_mb: float | None = None
    """that the first epoch of training adds to the process"""
    parameters: int | None = None
    """of the backbone"""
    loss_parameters: int | None = None


@dataclass(frozen=True)
class Data:
    """The data set of a run as it was loaded: which, of what form, and how large."""

    name: str
    variant: str = ""
    """what the inputs are, as "full frames, short side 128 px" """
    fingerprint: str = ""
    """of the items themselves; "" in rows of schema 1, which do not know it"""
    left_out: int = 0
    """pictures that could not be read, and were left out as --skip-bad asked"""
    showable: bool = False
    """whether the data set's terms let its pictures be shown"""
    shared_classes: bool = False
    """whether test images are of the training classes"""
    size: int = 0
    """side in pixels of the pictures that come to the network; 0 of vectors, and where unknown"""
    train_images: int = 0
    train_classes: int = 0
    query_images: int = 0
    gallery_images: int = 0
    test_classes: int = 0

    @property
    def spoken(self) -> str:
        """What a person calls it."""
        return spoken(self.name)


@dataclass(frozen=True)
class Process:
    """One of the processes that carried out a run together."""

    rank: int
    host: str
    pid: int
    images: int
    """that it embedded in training, up to the last checkpoint or the end"""


@dataclass(frozen=True)
class Machine:
    """What a run was done on."""

    cpu: str = ""
    cores: int | None = None
    """threads of the run's process"""
    gpu: str | None = None
    system: str = ""
    threads: tuple[int, ...] | None = None
    """numbers of threads under which it went on, in their order: more than one where it was resumed
    under another, and then its last bits are not those of a run that was never stopped"""
    processes: tuple[Process, ...] | None = None
    """those that carried it out, where ever there were several at once; of one that was resumed,
    also those before, in their order"""


@dataclass(frozen=True)
class Files:
    """The files that a run left, named within its folder, which is named within the store's."""

    folder: str = ""
    embeddings: str | None = None
    """of the query set (report/items.py describes the file)"""
    attention: str | None = None
    """of a batch, where the loss has any and its pictures may be shown"""


@dataclass(frozen=True)
class Row:
    """A finished run: what was asked for, on which data, what came of it, and at what cost.

    A trial, which only chose settings, is told by its recipe.
    row["metrics"]["last"] and the like read its JSON form.
    """

    hash: str
    """of the recipe"""
    recipe: Recipe
    metrics: Metrics
    data: Data
    status: str = "done"
    """"done", or "diverged": the loss or the embeddings were not finite"""
    study: str = ""
    """the study that asked for it first; "" of a single run"""
    own_object: str = ""
    """which parts were handed in as objects that no recipe can name; "" where none was"""
    made_of: Mapping[str, str] = field(default_factory=dict)
    """fingerprints of what else it was made of, that the recipe does not hold: the start, a file of
    weights, own objects"""
    metric: str = "cosine"
    """what near means: "cosine", "inner" or "euclidean" """
    epochs: tuple[Epoch, ...] = ()
    by_class: Mapping[str, tuple[float, ...]] | None = None
    """of the last epoch, for each test class in turn: `queries` that have kin, and the means over
    them of "recall@1" and "map@r"; None of a trial, and of more than 2,000 classes"""
    confusion: tuple[tuple[int, ...], ...] | None = None
    """[i][j]: items of class i whose nearest other is of class j; of small data sets"""
    cost: Cost = Cost()
    versions: Mapping[str, str] = field(default_factory=dict)
    """of Python and of the packages that numbers depend on"""
    metric_versions: Mapping[str, int] = field(default_factory=dict)
    """of metrics whose computation has changed; 1 where it does not say"""
    machine: Machine = Machine()
    files: Files = Files()

    @property
    def key(self) -> str:
        """What no other row has: the recipe's hash, and with it what the run was made of."""
        return key_of(self.hash, self.data.fingerprint, self.made_of)

    def __getitem__(self, part: str) -> Any:
        return to_json(self)[part]

    def keys(self) -> Iterator[str]:
        """The names of the JSON form's parts; with them dict(row) is that form."""
        return iter(to_json(self))

    def _repr_html_(self) -> str:
        last, recipe = self.metrics.last or {}, self.recipe
        measured = [(name, share(last.get(key))) for name, key in SHOWN.items()]
        return facts(
            f"Run {self.hash}: {self.status}",
            [
                ("data", f"{self.data.name} {self.data.variant}".strip()),
                ("backbone", recipe.backbone),
                ("dimension", recipe.dim),
                ("loss", self.own_object or recipe.loss),
                ("epochs", recipe.epochs),
                ("seed", recipe.seed),
                *measured,
                ("seconds", None if self.cost.seconds is None else f"{self.cost.seconds:.1f}"),
            ],
        )


SHOWN = {
    "R@1 on test": "recall@1",
    "R@1 in training images": "in_train.recall@1",
    "MAP@R on test": "map@r",
    "NMI on test": "nmi",
    "5-NN accuracy": "knn_accuracy",
}
"""What a notebook shows -> the metric of the last epoch."""


@dataclass(frozen=True)
class Measurement:
    """What a study measured without a run of a recipe: `values` have the names that it chose."""

    hash: str
    """of what was measured"""
    values: Mapping[str, Any]
    data: Data | None = None
    """the data set, where it was measured on one"""
    study: str = ""
    status: str = "done"
    cost: Cost = Cost()
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Machine = Machine()

    @property
    def key(self) -> str:
        """What no other measurement has: its hash, and with it the data."""
        return key_of(self.hash, self.data.fingerprint if self.data else "")


Stored = Row | Measurement


def to_json(stored: Stored) -> dict[str, Any]:
    """The JSON form: plain dictionaries, lists, strings and numbers."""
    return {"schema": SCHEMA, **plain(stored)}


ABSENT = {"test", "validation", "monitor", "embeddings", "attention", "threads", "processes"}
"""Fields that the JSON form leaves out where they are None, as most are."""


PLAIN = {str, int, float, bool, NoneType}


def plain(value: Any) -> Any:
    """Dataclasses and mappings as dictionaries, sequences as lists."""
    if type(value) in PLAIN:  # most values are: rows are long, and stores hold many
        return value
    if is_dataclass(value):
        named = {f.name: getattr(value, f.name) for f in fields(value)}
        return {k: plain(v) for k, v in named.items() if v is not None or k not in ABSENT}
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def from_json(raw: Any) -> Stored:
    """The row or the measurement of this JSON form.

    Raises: ValueError in one line, where a part is missing, unknown, or of another kind.
    """
    if not isinstance(raw, dict):
        raise ValueError(f"wanted a row, got {raw!r:.60}")
    schema = raw.get("schema", 1)
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise ValueError(f"wanted a row of schema {SCHEMA} or below, got schema {schema!r:.60}")
    raw = {k: v for k, v in raw.items() if k != "schema"}
    if schema == 1:
        raw = upgraded(raw)
    row = parsed(Measurement if "values" in raw else Row, raw, "row")
    if not re.fullmatch(r"[\w-]+", row.hash):
        raise ValueError(f"row: wanted a hash, which names a folder, got {row.hash!r:.60}")
    if isinstance(row, Measurement):
        return row
    folder = PurePath(row.files.folder)
    if folder.is_absolute() or ".." in folder.parts:
        raise ValueError(f"row: files: folder must lie within the store's, got {str(folder)!r}")
    if row.status not in ("done", "diverged"):
        raise ValueError(f"row: status must be done or diverged, got {row.status!r}")
    if row.metrics.last is not None and not any(name in row.metrics.last for name in HEADLINES):
        raise ValueError(f"row: metrics: last holds no {' or '.join(HEADLINES)}")
    return row


def parsed(kind: Any, raw: Any, place: str) -> Any:
    """A value of JSON as the kind that a field is annotated with; `place` is for the error."""
    return reader(kind)(raw, place)


@cache
def reader(kind: Any) -> Callable[[Any, str], Any]:
    """What makes a value of JSON one of this kind; kept, as rows hold many numbers of few kinds."""
    if isinstance(kind, UnionType):
        kinds = get_args(kind)
        if not any(is_dataclass(k) or get_origin(k) for k in kinds):
            return lambda raw, place: checked(raw, kinds, place)
        some = reader(next(k for k in kinds if k is not NoneType))
        if NoneType not in kinds:
            return some
        return lambda raw, place: None if raw is None else some(raw, place)
    if kind is Any:
        return lambda raw, place: raw
    if kind is Recipe:
        return recipe_of
    if is_dataclass(kind):
        return lambda raw, place: part(kind, raw, place)
    if get_origin(kind) is tuple:
        one = reader(get_args(kind)[0])
        return lambda raw, place: tuple(one(value, place) for value in checked(raw, (list,), place))
    if get_origin(kind) is Mapping:
        return partial(named, get_args(kind)[1])
    return lambda raw, place: checked(raw, (kind,), place)


def named(kind: Any, raw: Any, place: str) -> dict[str, Any]:
    """A mapping from its JSON form, to values of this kind."""
    read, found = reader(kind), checked(raw, (dict,), place)
    if set(map(type, found.values())) <= {float} and kind is float:  # as metrics are
        return dict(found)
    return {k: read(v, f"{place}: {k}") for k, v in found.items()}


def checked(raw: Any, kinds: tuple[Any, ...], place: str) -> Any:
    """The value where it is of one of these kinds; an int passes for a float."""
    if type(raw) not in kinds and not (type(raw) is int and float in kinds):
        kinds = (*kinds, int) if float in kinds else kinds
        wanted = " or ".join("nothing" if k is NoneType else k.__name__ for k in kinds)
        raise ValueError(f"{place}: wanted {wanted}, got {raw!r:.60}")
    return raw


def part(kind: Any, raw: Any, place: str) -> Any:
    """A dataclass from its JSON form."""
    readers, required = readers_of(kind)
    for name in checked(raw, (dict,), place):
        if name not in readers:
            raise unknown(name, readers, f"part of {place}")
    missing = [name for name in required if name not in raw]
    if missing:
        raise ValueError(f"{place}: {', '.join(missing)} missing")
    at = "" if place == "row" else f"{place}: "
    return kind(**{name: readers[name](value, f"{at}{name}") for name, value in raw.items()})


@cache
def readers_of(kind: Any) -> tuple[dict[str, Callable[[Any, str], Any]], list[str]]:
    """The reader of every field, and the names of those without a default."""
    hints = get_type_hints(kind)
    known = {f.name: reader(hints[f.name]) for f in fields(kind)}
    bare = [f for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    return known, [f.name for f in bare]


def recipe_of(raw: Any, place: str) -> Recipe:
    """The recipe of a row: its fields, of which those that are missing are the defaults."""
    for name in checked(raw, (dict,), place):
        if name not in DEFAULTS:
            raise unknown(name, DEFAULTS, f"field of {place}")
    try:
        return Recipe(**raw)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
