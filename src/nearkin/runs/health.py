"""The doctor of a run: shown each step, told of its tests, kept in its folder and read again."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nearkin.data import Split, Splits
from nearkin.data.sets.features import read_features, told_metric, told_parts
from nearkin.data.splits import in_classes_of
from nearkin.doctor import Diagnosis, Doctor, examine
from nearkin.doctor.history import Birth, History, history_of
from nearkin.doctor.illness import sorted_by_severity
from nearkin.files import read_json, write_whole
from nearkin.measure import kin_counts
from nearkin.names import unknown
from nearkin.registry import METRICS
from nearkin.runs.evaluate import nearness
from nearkin.runs.ingredients import splits_of
from nearkin.runs.log import read_steps
from nearkin.runs.place import Place
from nearkin.runs.recipe import DEFAULTS, Recipe
from nearkin.runs.row import Row

if TYPE_CHECKING:
    from nearkin.runs.run import Run

FILE = "doctor.json"
MOST = 4000  # items of stored features that are looked at before a run: a second of work


def attend(doctor: Doctor, run: Run) -> Doctor:
    """Let a doctor look at this run; of stored features, at what they give without training."""
    recipe, splits = run.recipe, run.splits
    doctor.metric = doctor.metric or recipe.metric
    doctor.history.known = {**recipe.plain(), **doctor.history.known}
    run.doctor = doctor
    if not run.ranks.first:  # rank 0 tells
        doctor.tell = None
    doctor.of_data = of_inputs(recipe, splits, MOST)
    doctor.announce(at_once=True)
    query = splits.query
    stored = isinstance(query.inputs, Tensor) and query.inputs.ndim == 2 and len(query) <= MOST
    if stored and splits.gallery is query is not splits.train and run.step == 0:
        doctor.test(run.embed(query), query.labels, nearness(run))
    return doctor


def of_inputs(recipe: Recipe, splits: Splits, most: int) -> list[Diagnosis]:
    """What ails the stored features that a network reads, where there are no more than `most`:
    copies, labels, scale."""
    x, labels, test = inputs_of(splits)
    if not 2 < len(x) <= most:
        return []
    found = examine(x, labels, test if test.any() else None, kind="inputs")
    whitened = recipe.head_start != DEFAULTS["head_start"]  # all directions have one variance then
    return [each for each in found if not (whitened and each.name == "features badly scaled")]


def inputs_of(splits: Splits) -> tuple[Tensor, Tensor, Tensor]:
    """Stored features (N, F) of all splits, their classes (N,), and which are not trained on (N,);
    none where inputs are pictures."""
    parts: list[Split] = [splits.train]
    if splits.query is not splits.train:
        parts.append(splits.query)
    if splits.gallery is not splits.query:
        parts.append(splits.gallery)
    if not all(isinstance(part.inputs, Tensor) and part.inputs.ndim == 2 for part in parts):
        return torch.empty(0, 1), torch.empty(0), torch.empty(0)
    labels = torch.cat([in_classes_of(splits.train, part) for part in parts])
    test = torch.cat([torch.full((len(p),), p is not splits.train) for p in parts])
    return torch.cat([part.tensor for part in parts]), labels, test


def tell_test(run: Run, metrics: dict[str, float]) -> None:
    """Tell a run's doctor of R@1 on the test set, as the end of an epoch has found it."""
    query = run.splits.query
    if run.doctor and "recall@1" in metrics and query is not run.splits.train:
        kinds = in_classes_of(query, run.splits.gallery)
        itself = torch.arange(len(query)) if run.splits.gallery is query else None
        chance = kin_counts(query.labels, kinds, itself).float().mean().item() / len(kinds)
        run.doctor.tested(metrics["recall@1"], len(query), chance)


def keep(run: Run, folder: Path) -> None:
    """Write what a run's doctor has seen into the folder of the run."""
    if run.doctor:
        run.doctor.close()
        text = json.dumps(run.doctor.history.plain())
        write_whole(folder / FILE, lambda file: file.write(text.encode()))


def kept(folder: Path) -> Doctor | None:
    """The doctor who looked at the run of this folder; None where none did."""
    path = folder / FILE
    if not path.exists():
        return None
    made = Doctor()
    try:
        made.history = history_of(read_json(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return made


def of_run(row: Row, folder: Path, place: Place) -> list[Diagnosis]:
    """What ails a run: by what its doctor saw, by the embeddings that it left, and by its data
    where they are stored features and lie there still."""
    doctor, embeddings = kept(folder), folder / "embeddings.npz"
    if doctor is None:
        doctor = Doctor()
        doctor.history = of_row(row)
    found = {each.name: each for each in doctor.diagnoses()}
    tell_harmed(folder / "steps.csv")
    if embeddings.is_file():
        try:
            left = of_features(embeddings, known=row.recipe.plain(), kind="embeddings")
            found = {each.name: each for each in left} | found
        except ValueError as error:  # a run is more than its embeddings
            warnings.warn(f"{error}; they are not looked at", stacklevel=2)
    try:
        inputs = of_inputs(row.recipe, splits_of(row.recipe, place), 10**6)
        found |= {each.name: each for each in inputs}
    except ValueError:  # the data are not here
        pass
    return sorted_by_severity(list(found.values()))


def tell_harmed(path: Path) -> None:
    """Warn where the log of a run's steps is harmed, though nothing that ails a run stands there
    alone."""
    try:
        read_steps(path)
    except ValueError as error:
        warnings.warn(str(error), stacklevel=2)


def of_row(row: Row) -> History:
    """What a row alone tells of a run that no doctor looked at: whether it diverged."""
    done = sum(epoch.steps for epoch in row.epochs)
    born = Birth(max(done, 1), "the loss or the embeddings") if row.status == "diverged" else None
    return History(steps=done, born=born, known=row.recipe.plain())


def of_features(path: Path, **options: Any) -> list[Diagnosis]:
    """What ails the vectors of a file; where it has an array `split`, its query and gallery are
    the test set."""
    split = read_features(path)
    if int(split.labels.bincount().max()) < 2:
        raise ValueError(f"{path}: no class has two items, so that nothing has kin")
    if len(split.classes) < 2:
        raise ValueError(f"{path}: wanted two classes or more, got 1")
    test, part = None, told_parts(path, len(split))
    if part is not None:
        test = torch.from_numpy(part != "train")
        test = test if test.any() and not test.all() else None
    metric = told_metric(path)
    if metric not in ("", *METRICS):
        raise unknown(metric, METRICS, f"metric of {path}")
    return examine(split.tensor, split.labels, test, metric=metric, **options)
