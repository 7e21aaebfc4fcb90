"""Which method suits one's own data: no training, closed forms and losses, on stored features.

The photographs are embedded once, by a pretrained backbone. Every method then tries several
settings, judged on one half of the training classes while it learns from the other, and the other
way round; where classes are shared, on a quarter of each class's images, and on another. Losses
start from whitening within classes as it has just been chosen. A method is chosen only where it is
surely above no training over the classes that validate. The method that validation chose and
no training then have all of the training part, and are looked at once on the test part: that says
how surely the choice is better.

Dimensions: Q queries, C test classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from nearkin.data import Splits, hold_out, load
from nearkin.data.fingerprint import fingerprint
from nearkin.data.sets.catalogue import is_features, there
from nearkin.data.splits import in_classes_of, places_in
from nearkin.measure import kin_counts, retrieval
from nearkin.measure.statistics import SHARES, Estimate, bootstrap, bootstrap_difference
from nearkin.models import check
from nearkin.models.model import Model
from nearkin.runs.build import refuse_unfit
from nearkin.runs.embedding import Progress, by_name, embed
from nearkin.runs.engine import Place, run
from nearkin.runs.evaluate import headline
from nearkin.runs.executors import complete, share
from nearkin.runs.log import Counted, Silent
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
from nearkin.runs.store import Store
from nearkin.studies.chosen import FILE, FORMAT, Choice, Tried
from nearkin.studies.shared.methods import BARE, UNTRAINED
from nearkin.studies.shared.tuning import HALVES
from nearkin.tensors import usable

FOLDS = (0, 1)
QUARTERS = 4
"""Where classes are shared: halves would leave a closed form so few images of a class that it wants
another shrinkage than all of them do."""
LARGEST_DIM, LARGEST_SIDE = 10**6, 10**4
FEW = 4
"""Training classes, where those of the test are others, or images of a class, without which nothing
can validate."""

CLOSED: dict[str, dict[str, Any]] = {
    "power normalisation": {"backbone": "identity"},
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
    for shrinkage in (0.3, 1.0, 3.0, 10.0, 30.0)
]
"""Few classes want much shrinkage, known classes little."""
PLAIN_SETTINGS = [{"head_power": power} for power in (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)]
LOSS_SETTINGS = [
    {"lr": lr, **hold}
    for lr in (1e-4, 3e-4)
    for hold in ({}, {"head_dropout": 0.5}, {"start_decay": 100.0})
]
WHITENED = "within-class whitened"
START = ("head_start", "head_shrinkage", "head_power")
"""Fields of that form's recipe which losses take over."""


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
    refuse_unfit(replace(choice.recipe_for(data), **recipe.changes()))
    splits = loaded(data, int(choice.backbone.get("size", 0)), place)
    if fingerprint(splits) != choice.fingerprint:
        raise ValueError(f"{path} was chosen on other data ({choice.data}): choose on {data} first")
    *_, features = features_of(splits, data, path.parent, choice.backbone, place)
    mine = replace(choice.recipe_for(str(features)), **{**recipe.changes(), "data": str(features)})
    plain = Recipe(data=str(features), **BARE)
    same = (mine.backbone, mine.head_power) == (plain.backbone, plain.head_power)
    return plain if same and not (mine.epochs or mine.steps) else mine, plain


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


def base_recipe(data: str, splits: Splits, dim: int) -> Recipe:
    """What the recipes of all methods have in common."""
    features = splits.train.inputs.shape[1]  # type: ignore[union-attr]
    dim = min(dim, features)
    counts = splits.train.labels.bincount()
    classes, images = len(splits.train.classes), len(splits.train)
    per_class = min(4, max(2, int(counts.max())))
    batch = max(2 * per_class, min(128, images // 2 // per_class * per_class, classes * per_class))
    return Recipe(
        data=data,
        backbone="linear",
        dim=dim,
        sampler="classes",
        batch=batch,
        per_class=per_class,
        epochs=6,
        evaluate_every=2,
    )


def closed_forms(base: Recipe) -> dict[str, list[Recipe]]:
    """The recipes that each closed form tries, and that of no training."""
    closed = replace(base, loss="contrastive", metric="cosine", epochs=0)
    found = {UNTRAINED: [replace(base, **BARE)]}
    for name, form in CLOSED.items():
        shrunk = form.get("head_start") in ("whitened", "lda")
        settings = CLOSED_SETTINGS if shrunk else PLAIN_SETTINGS
        found[name] = [replace(closed, **form, **setting) for setting in settings]
    return found


def losses(base: Recipe, form: Recipe) -> dict[str, list[Recipe]]:
    """The recipes that each loss tries; all heads start as this closed form."""
    start = {name: getattr(form, name) for name in START}
    return {
        name: [replace(base, **start, **change, **setting) for setting in LOSS_SETTINGS]
        for name, change in LOSSES.items()
    }


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
    every = QUARTERS if stored.shared_classes else HALVES
    held: dict[str, Any] = {"validate": True, "validate_every": every, "trial": True}

    def tried(what: str, tries: dict[str, list[Recipe]]) -> dict[str, tuple[Recipe, Tried]]:
        trials = {
            (name, number, fold): replace(recipe, **held, seed=fold)
            for name, recipes in tries.items()
            for number, recipe in enumerate(recipes)
            for fold in FOLDS
        }
        shown = Counted(bar or Silent(), f"trials of {what}")
        rows = complete(trials, out, study="choose", jobs=jobs, place=place, bar=shown)
        return {name: settled(name, recipes, rows, metric) for name, recipes in tries.items()}

    base = base_recipe(features, stored, dim)
    best = tried("closed forms", closed_forms(base))
    best |= tried("losses", losses(base, best[WHITENED][0]))
    ranked = sorted(best, key=lambda name: -best[name][1].validation)
    leader, unsure = ranked[0], ""
    if leader != UNTRAINED:
        gain = gain_on_validation(best[leader][0], best[UNTRAINED][0], stored, every, place)
        unsure = "" if gain.low > 0 else level(leader, gain)
    winner = UNTRAINED if unsure else leader
    final = {name: best[name][0] for name in {winner, UNTRAINED}}
    done = complete(final, out, study="choose", place=place)
    found = concluded(winner, ranked, best, done, stored, metric, out)
    if unsure:
        found = replace(found, doubt=unsure)
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


def gain_on_validation(
    recipe: Recipe, plain: Recipe, splits: Splits, every: int, place: Place
) -> Estimate:
    """By how much a recipe is above no training on what validates in both folds, with a 95 %
    interval over its classes. Of many settings tried on few classes, some lead by luck."""
    ahead: list[np.ndarray] = []
    behind: list[np.ndarray] = []
    kinds: list[np.ndarray] = []
    with TemporaryDirectory() as folder:
        for fold in FOLDS:
            held = hold_out(splits, fold, every)
            for one, hits in ((recipe, ahead), (plain, behind)):
                done = run(replace(one, seed=fold), folder, splits=held, place=place)
                right, groups = hits_of(done.model, held)
                hits.append(right)
            kinds.append(np.array(held.query.classes)[groups])
    _, of = np.unique(np.concatenate(kinds), return_inverse=True)
    a, b = ({"": np.concatenate(hits)} for hits in (ahead, behind))
    return bootstrap_difference(a, b, of)[""].estimate


def level(leader: str, gain: Estimate) -> str:
    """Why no training is kept though another method leads on validation."""
    return (
        f"on validation {leader} was {100 * gain.mean:.1f} points above no training "
        f"({100 * gain.low:.1f} to {100 * gain.high:.1f}, 95 %, over {gain.n} classes), which may "
        "be luck: the backbone as it is will do"
    )


def concluded(
    winner: str,
    ranked: list[str],
    best: Mapping[str, tuple[Recipe, Tried]],
    done: Mapping[str, Row],
    splits: Splits,
    metric: str,
    out: Path,
) -> Choice:
    """What the test part says of the choice."""
    store = Store(out)
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
