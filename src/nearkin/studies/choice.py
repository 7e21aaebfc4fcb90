"""Which method suits one's own data: no training, closed forms and losses, on stored features.

The photographs are embedded once, by a pretrained backbone. Every method then tries as many
settings, judged on training classes (or images, where classes are shared) that it has not learnt
from. The one that validation chose, no training, and the best method of the other kind are trained
on all of the training part, and looked at once on the test part: that says how surely the choice is
better.

Dimensions: Q queries, C test classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nearkin.data import Splits, load
from nearkin.data.fingerprint import fingerprint
from nearkin.data.sets.catalogue import is_features, there
from nearkin.data.splits import in_classes_of, places_in
from nearkin.files import read_json, write_whole
from nearkin.measure import kin_counts, retrieval
from nearkin.measure.statistics import SHARES, Estimate, bootstrap, bootstrap_difference
from nearkin.models import check
from nearkin.models.model import Model
from nearkin.runs.embedding import Progress, by_name, embed
from nearkin.runs.engine import Place
from nearkin.runs.evaluate import headline
from nearkin.runs.executors import complete, share
from nearkin.runs.log import Silent
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row, parsed
from nearkin.runs.store import Store
from nearkin.studies.shared.methods import BARE, UNTRAINED
from nearkin.studies.shared.tuning import HALVES
from nearkin.tensors import usable

FORMAT = 1
FILE = "choice.json"
FOLDS = (0, 1)
LARGEST_DIM, LARGEST_SIDE = 10**6, 10**4
FEW = 4
"""Training classes, where those of the test are others, or images of a class, without which nothing
can validate."""

CLOSED: dict[str, dict[str, Any]] = {
    "PCA-whitened": {"head_start": "pca-whitened"},
    "within-class whitened": {"head_start": "whitened"},
    "LDA": {"head_start": "lda"},
}
LOSSES: dict[str, dict[str, Any]] = {
    "normalised cross-entropy": {"loss": "normalised-cross-entropy"},
    "multi-similarity": {"loss": "multi-similarity"},
    "proxy-anchor": {"loss": "proxy-anchor", "loss_start": "means"},
    "margin": {"loss": "margin"},
    "Fisher NCA": {"loss": "fisher-nca", "metric": "cosine"},
}
CLOSED_SETTINGS = [
    {"head_power": power, "head_shrinkage": shrinkage}
    for power in (0.5, 1.0)
    for shrinkage in (0.3, 1.0, 4.0)
]
PLAIN_SETTINGS = [{"head_power": power} for power in (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)]
LOSS_SETTINGS = [
    {"lr": lr, **hold}
    for lr in (1e-4, 3e-4)
    for hold in ({}, {"head_dropout": 0.5}, {"start_decay": 100.0})
]
"""Six settings of every method."""
START: dict[str, Any] = {"head_start": "whitened", "head_shrinkage": 1.0, "head_power": 0.5}


@dataclass(frozen=True)
class Tried:
    """A method under its best setting: the mean of its metric on validation, and what it took."""

    method: str
    validation: float
    seconds: float


@dataclass(frozen=True)
class Made:
    """The backbone of a choice; nothing of it where features were given."""

    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0


@dataclass(frozen=True)
class Choice:
    """What `choose` found out, as choice.json holds it.

    recipe: of the method on stored features, without their file.
    backbone: made the features of photographs: name, options, size; empty where they were given.
    fingerprint: of the data set.
    metric: by which it was chosen.
    test, untrained: the metric of the chosen method and of no training on the test part, with 95 %
        intervals over its classes; difference: of the two, paired.
    sure: whether that interval lies above 0.
    doubt: what the numbers do not tell, in words; "".
    """

    format: int
    method: str
    recipe: Mapping[str, Any]
    backbone: Mapping[str, Any]
    data: str
    fingerprint: str
    metric: str
    tried: tuple[Tried, ...]
    test: Estimate
    untrained: Estimate
    difference: Estimate
    sure: bool
    doubt: str
    seconds: float

    @classmethod
    def read(cls, path: Path) -> Choice:
        """The choice in a file, checked."""
        found = read_json(path)
        format = found.get("format") if isinstance(found, dict) else None
        if isinstance(format, int) and format > FORMAT:
            raise ValueError(f"{path}: written by a newer Nearkin (format {format})")
        try:
            choice = parsed(cls, found, "choice")
            parsed(Made, choice.backbone, "backbone")
            Recipe(**choice.recipe)
        except (ValueError, TypeError) as error:
            why = " ".join(str(error).split())
            raise ValueError(f"{path} is no choice that `nearkin choose` wrote ({why})") from None
        return choice

    def write(self, path: Path) -> None:
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        write_whole(path, lambda file: file.write(text.encode()))

    def recipe_for(self, data: str) -> Recipe:
        """The chosen recipe, on these stored features."""
        return replace(Recipe(**self.recipe), data=data)


def features_of(
    splits: Splits, data: str, out: Path, backbone: Mapping[str, Any], place: Place
) -> Iterator[Progress | str]:
    """Embed the splits by a backbone, once: yields how far it is, and last the name of the data set
    of features, in a file under `out`. Features are taken as they are."""
    if is_features(data):
        yield data
        return
    model = by_name(backbone["name"], backbone["options"], splits, backbone["size"])
    text = json.dumps([fingerprint(splits), model.identity])
    path = out / f"features-{hashlib.sha256(text.encode()).hexdigest()[:12]}.npz"
    if not path.is_file():
        yield from embed(
            model, splits, path, key=text, device=usable(place.device), threads=place.threads
        )
    yield f"features:{path}"


def prepared(
    choice: Choice, path: Path, recipe: Recipe, out: Path, place: Place
) -> tuple[Recipe, Recipe]:
    """The chosen recipe on these data, with what else `recipe` changes; and that of no training.

    Raises:
        ValueError: the choice was made on other data.
    """
    data = recipe.data
    splits = loaded(data, int(choice.backbone.get("size", 0)), place)
    if fingerprint(splits) != choice.fingerprint:
        raise ValueError(f"{path} was chosen on other data ({choice.data}): choose on {data} first")
    *_, features = features_of(splits, data, path.parent, choice.backbone, place)
    mine = replace(choice.recipe_for(str(features)), **{**recipe.changes(), "data": str(features)})
    plain = Recipe(data=str(features), **BARE)
    untouched = mine.backbone == plain.backbone and not (mine.epochs or mine.steps)
    return plain if untouched else mine, plain


def verdict(choice: Choice, row: Row, plain: Row) -> str:
    """Whether a run ended above no training, in a sentence."""
    ahead, behind = (each.metrics.last[choice.metric] for each in (row, plain))  # type: ignore[index]
    if row.key == plain.key:
        return (
            f"no training, as was chosen: the backbone as it is has {choice.metric} "
            f"{100 * ahead:.1f} % on the test part"
        )
    words = "above" if ahead > behind else "NOT above"
    return (
        f"{choice.method} ends {words} no training: {choice.metric} {100 * ahead:.1f} % against "
        f"{100 * behind:.1f} % on the test part"
    )


def loaded(data: str, size: int, place: Place) -> Splits:
    """The splits of a data set, its pictures for a backbone of this size."""
    size = 0 if is_features(data) else size
    return load(data, place.root, download=place.download, skip_bad=place.skip_bad, size=size)


def refuse_too_few(splits: Splits) -> None:
    """Refuse data of which no part can validate."""
    counts = splits.train.labels.bincount()
    counts = counts[counts > 0]
    if splits.shared_classes:
        if int(counts.max()) < FEW:
            raise ValueError(
                f"{splits.name}: too few to choose by: no class has {FEW} training images"
            )
    elif len(counts) < FEW:
        raise ValueError(
            f"{splits.name}: too few to choose by: wanted {FEW} training classes or more, so that "
            f"some can validate, got {len(counts)}"
        )


def candidates(data: str, splits: Splits, dim: int) -> dict[str, list[Recipe]]:
    """The recipes that each method tries, six of each, but one of no training."""
    features = splits.train.inputs.shape[1]  # type: ignore[union-attr]
    dim = min(dim, features)
    counts = splits.train.labels.bincount()
    classes, images = len(splits.train.classes), len(splits.train)
    per_class = min(4, max(2, int(counts.max())))
    batch = max(2 * per_class, min(128, images // 2 // per_class * per_class, classes * per_class))
    base = Recipe(
        data=data,
        backbone="linear",
        dim=dim,
        sampler="classes",
        batch=batch,
        per_class=per_class,
        epochs=6,
        evaluate_every=2,
    )
    closed = replace(base, loss="contrastive", metric="cosine", epochs=0)
    found = {UNTRAINED: [replace(base, **BARE)]}
    for name, form in CLOSED.items():
        plain = form["head_start"] == "pca-whitened"
        settings = PLAIN_SETTINGS if plain else CLOSED_SETTINGS
        found[name] = [replace(closed, **form, **setting) for setting in settings]
    for name, change in LOSSES.items():
        started = replace(base, **START, **change)
        found[name] = [replace(started, **setting) for setting in LOSS_SETTINGS]
    return found


def choose(
    data: str,
    out: Path,
    *,
    dim: int = 128,
    backbone: str = "lite0",
    size: int = 224,
    jobs: int = 1,
    place: Place = Place(),
    bar: Silent | None = None,
) -> Iterator[Progress | Choice]:
    """Find the method that suits a data set best; yields how far the embedding is, and last the
    choice, which then stands in OUT/choice.json.

    Raises:
        ValueError: the data are too few for any part of them to validate.
    """
    share(place, jobs)
    if not 1 <= dim <= LARGEST_DIM:
        raise ValueError(f"dim must be in 1..{LARGEST_DIM:,}, got {dim}")
    if not 0 <= size <= LARGEST_SIDE:
        raise ValueError(f"size must be in 0..{LARGEST_SIDE:,} pixels, got {size}")
    check(backbone, {})
    there(data, place.root)
    splits = loaded(data, size, place)
    refuse_too_few(splits)
    made_by = {"name": backbone, "options": {}, "size": size}
    features = data
    for progress in features_of(splits, data, out, made_by, place):
        if isinstance(progress, str):
            features = progress
        else:
            yield progress
    stored = load(features, place.root)
    metric = headline(stored)
    tries = candidates(features, stored, dim)
    every = {} if stored.shared_classes else {"validate_every": HALVES}
    trials = {
        (name, number, fold): replace(recipe, **every, validate=True, trial=True, seed=fold)
        for name, recipes in tries.items()
        for number, recipe in enumerate(recipes)
        for fold in FOLDS
    }
    rows = complete(trials, out, study="choose", jobs=jobs, place=place, bar=bar)
    best = {name: settled(name, recipes, rows, metric) for name, recipes in tries.items()}
    ranked = sorted(best, key=lambda name: -best[name][1].validation)
    final = {name: best[name][0] for name in {ranked[0], UNTRAINED}}
    done = complete(final, out, study="choose", place=place, bar=bar)
    found = concluded(ranked, best, done, stored, metric, out)
    choice = replace(
        found,
        backbone={} if is_features(data) else made_by,
        data=splits.name,
        fingerprint=fingerprint(splits),
    )
    choice.write(out / FILE)
    yield choice


def settled(
    name: str, recipes: list[Recipe], rows: Mapping[tuple[str, int, int], Row], metric: str
) -> tuple[Recipe, Tried]:
    """The setting and epoch of a method that are best on validation, in the mean over folds."""
    found: dict[tuple[int, int], list[float]] = {}
    seconds = 0.0
    for number, fold in ((n, f) for n in range(len(recipes)) for f in FOLDS):
        row = rows[name, number, fold]
        seconds += row.cost.seconds or 0.0
        for epoch in row.epochs:
            if epoch.validation and metric in epoch.validation:
                found.setdefault((number, epoch.epoch), []).append(epoch.validation[metric])
    means = {key: float(np.mean(v)) for key, v in found.items() if len(v) == len(FOLDS)}
    if not means:
        return recipes[0], Tried(name, 0.0, seconds)
    number, epoch = max(means, key=means.__getitem__)
    recipe = recipes[number]
    recipe = replace(recipe, epochs=epoch) if recipe.epochs else recipe
    return recipe, Tried(name, means[number, epoch], seconds)


def concluded(
    ranked: list[str],
    best: Mapping[str, tuple[Recipe, Tried]],
    done: Mapping[str, Row],
    splits: Splits,
    metric: str,
    out: Path,
) -> Choice:
    """What the test part says of the choice."""
    winner, store = ranked[0], Store(out)
    hits = {name: hits_of(Model.load(store.folder_of(row)), splits) for name, row in done.items()}
    (chosen, groups), (plain, _) = hits[winner], hits[UNTRAINED]
    test, untrained = (
        bootstrap({metric: x}, groups, within=SHARES)[metric] for x in (chosen, plain)
    )
    apart = bootstrap_difference({metric: chosen}, {metric: plain}, groups)[metric].estimate
    sure = winner != UNTRAINED and apart.low > 0
    recipe = replace(best[winner][0], data="")
    return Choice(
        FORMAT,
        winner,
        {k: v for k, v in recipe.changes().items() if k != "data"},
        {},
        "",
        "",
        metric,
        tuple(best[name][1] for name in ranked),
        test,
        untrained,
        apart,
        sure,
        "" if sure else doubt(winner, apart, len(np.unique(groups))),
        sum(row.cost.seconds or 0.0 for row in done.values()),
    )


def hits_of(model: Model, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) whether the nearest of each query is of its class, and (Q,) that class.

    Searched is what a new photograph would be searched in: the training images where classes are
    shared, else the gallery.
    """
    query = splits.query
    gallery = splits.train if splits.shared_classes else splits.gallery
    x = model.embed(query.inputs)
    other = x if gallery is query else model.embed(gallery.inputs)
    kinds, itself = in_classes_of(query, gallery), places_in(query, gallery)
    if not kin_counts(query.labels, kinds, itself).any():
        raise ValueError(f"{splits.name}: no test image has another of its class to be found")
    found = retrieval(
        x, query.labels, other, kinds, itself=itself, ks=[1], precision_ks=[], metric=model.metric
    )
    return found.values["recall@1"].double().numpy(), found.labels.numpy()


def doubt(winner: str, apart: Estimate, classes: int) -> str:
    """Why the choice is not sure, and what would make it so."""
    if winner == UNTRAINED:
        return "on validation nothing was better than no training: the backbone as it is will do"
    if apart.mean <= 0:
        return (
            "validation chose it, yet on the test classes it is not above no training: the data "
            "are too few to tell"
        )
    half = (apart.high - apart.low) / 2
    wanted = int(np.ceil(classes * (half / apart.mean) ** 2))
    return (
        f"{classes} test classes are too few to tell it from no training; with a difference like "
        f"this one it takes about {wanted:,}"
    )
