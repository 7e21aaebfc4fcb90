"""Why the start of a linear head counts: the features' spectrum, and where a gradient goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nearkin.answers import Answer, Finding, Line, Lines, Table
from nearkin.closed import Moments, powered
from nearkin.data.sets.catalogue import is_features
from nearkin.losses.protocol import call
from nearkin.measure import recalls
from nearkin.measure.statistics import FREE, SHARES, Bounds, Estimate, estimate, paired
from nearkin.runs.engine import Place, splits_of
from nearkin.runs.loop import train
from nearkin.runs.machine import machine
from nearkin.runs.outcome import described
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run
from nearkin.studies.photographs.fine_tuning import photographs
from nearkin.studies.shared.methods import picked
from nearkin.studies.shared.reading import Scores
from nearkin.studies.shared.sets import CUB
from nearkin.studies.shared.tuning import common
from nearkin.studies.shared.words import difference_words, listed, percent
from nearkin.studies.study import Case, Measured, Study, Task

TITLE = "Where the gradient of a head goes"
QUESTION = (
    "Why is a linear head that starts orthogonal on stored features below one that starts as a "
    "closed form? R@1 on new classes over the steps of training, from either start; the variances "
    "of the features' principal directions; and which of these directions a step along the loss's "
    "gradient uses, when it changes the embeddings of the training images. On pictures the whole "
    "pretrained network learns: is the start of its head worth anything then?"
)
STARTS: dict[str, dict[str, Any]] = {
    "orthogonal": {"lr": 1e-3},
    "orthogonal, square roots": {"lr": 1e-3, "head_power": 0.5},
    "whitened, square roots": {"lr": 1e-4, "head_power": 0.5, "head_start": "whitened"},
}
"""Start -> what differs from the common recipe; the rates are those that searches chose there."""

SPOKEN = {
    "orthogonal": "an orthogonal start",
    "orthogonal, square roots": "an orthogonal start on square roots of the features",
    "whitened, square roots": "a whitened start on the same square roots",
}
"""Start -> the same within a sentence."""

LOSSES = "cross-entropy,multi-similarity,proxy-anchor"
STEPS = 500
TRUNK_STEPS = 24
"""Of a whole network, at 96 px: what a core can pay for."""
LOOKS = 10
TRUNK_LOOKS = 6
"""How often a run is looked at, besides its start."""
GROUPS = (1, 4, 16, 64, 256)
"""The principal directions fall into groups that begin behind so many."""

DRAWN = 60
"""Directions whose variance is drawn, evenly on a logarithmic axis."""


def measure(
    data: str = CUB, seeds: int = 3, dim: int = 64, losses: str = LOSSES
) -> dict[Case, Task]:
    """For each loss, start and seed: R@1 over the steps, and the gradient's directions of a head.

    Args:
        data: the data set, of features, on which a head learns; or of pictures, on which a
            pretrained network does, all of it from the first step, its features given square roots.
        seeds: how many, from 0.
        dim: of the embeddings.
        losses: names separated by commas, of those that studies compare.
    """
    base, starts = replace(common(data), steps=STEPS, epochs=LOOKS), STARTS
    if not is_features(data):
        base = replace(photographs(data), steps=TRUNK_STEPS, epochs=TRUNK_LOOKS, head_first=0)
        base = replace(base, batch=64)
        starts = {name: begins for name, begins in STARTS.items() if "head_power" in begins}
    base = replace(base, dim=dim, evaluate_every=1)
    found = {}
    for name, change in picked(losses).items():
        for start, begins in starts.items():
            for seed in range(seeds):
                recipe = replace(base, **change, **begins, seed=seed)
                task = Task(f"starts-{recipe.hash}", partial(followed, recipe), recipe)
                found[Case(name, seed, start=start)] = task
    return found


def followed(recipe: Recipe, place: Place) -> dict[str, Any]:
    """One run, looked at before the first step and at the end of each part."""
    splits = splits_of(recipe, place)
    run = Run(recipe, splits, place.device)
    variances: Any = ()
    scores = None
    if is_features(recipe.data):
        features = powered(run.splits.train.tensor.double().numpy(), recipe.head_power)
        variances, scores = principal(features)
    seen = [look(run, scores)]
    seen += [look(run, scores) for _ in train(run) if run.epoch_ends]
    return {
        "looks": seen,
        "variances": [round(float(v), 10) for v in variances],
        "machine": machine(run.device),
        "data": described(splits),
    }


def principal(features: np.ndarray) -> tuple[np.ndarray, Tensor]:
    """Variances (F,) of the principal directions, the largest first, and the scores (N, F) of the
    items along them, each of length 1; 0 where there is no variance."""
    moments = Moments.of(features.copy(), np.zeros(len(features), int))
    variances, directions = moments.spectrum
    there = variances > 1e-9 * variances[0]
    length = np.sqrt(np.where(there, variances, np.inf) * len(features))
    return variances, torch.from_numpy((features - moments.mean) @ directions / length)


def look(run: Run, scores: Tensor | None) -> dict[str, Any]:
    """The step, R@1 of the test set, and, where the scores are given, the share of each group of
    directions in the change of the training images' embeddings by a step along the gradient of the
    first batch's loss.

    With z = W x and the gradient G of W, a step changes the embeddings of all images by X G^T; the
    share of direction k is |u_k^T X G^T|², u_k the images' scores along it.
    """
    query = run.splits.query
    share = recalls(run.embed(query), query.labels, ks=(1,))["recall@1"]
    if scores is None:
        return {"step": run.step, "recall@1": share}
    found = (scores.T @ change(run)).square().sum(1)  # (F,)
    groups = [float(part.sum() / found.sum()) for part in found.tensor_split(GROUPS)]
    return {"step": run.step, "recall@1": share, "shares": groups}


def change(run: Run) -> Tensor:
    """X G^T (N, D) float64: how a step along the gradient changes the embeddings of all images."""
    run.backbone.eval()  # all inputs, none dropped
    inputs, chosen = run.seen, run.first_batch
    assert inputs is not None, "stored features are in memory"
    (weight,) = [p for p in run.backbone.parameters() if p.requires_grad and p.ndim == 2]
    labels = run.labels[chosen]
    embeddings = run.forward(inputs[chosen])
    value = call(run.loss, embeddings, labels, run.mined(embeddings.detach(), labels))
    (slope,) = torch.autograd.grad(value, [weight])
    run.backbone.train()
    moved = inputs.double() @ slope.double().T
    return moved - moved.mean(0)


def answer(found: Measured) -> Answer:
    """R@1 over steps, the spectrum, the gradient's directions over steps, and a table of both."""
    runs = {(c.method, c["start"], c.seed): m.values for c, m in found.items()}
    losses = list(dict.fromkeys(method for method, _, _ in runs))
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=summary(runs),
        findings=tuple(findings(runs)),
        tables=(table(runs, losses),) if runs else (),
        figures=(
            *(over_steps(runs, loss) for loss in losses),
            *((spectrum(runs),) if of_heads(runs) else ()),
            *(directions(runs, loss) for loss in losses if of_heads(runs)),
        ),
    )


Runs = dict[tuple[str, str, int], Any]


def of(runs: Runs, loss: str, start: str) -> list[Sequence[dict]]:
    """The looks of every seed."""
    return [v["looks"] for (m, s, _), v in runs.items() if (m, s) == (loss, start)]


def of_heads(runs: Runs) -> bool:
    """Whether heads on features learnt, whose directions were looked at; else whole networks."""
    return any("shares" in one["looks"][0] for one in runs.values())


def last_step(runs: Runs) -> int:
    """How many steps the runs took."""
    return max(one["looks"][-1]["step"] for one in runs.values())


def values(looks: Sequence[Sequence[dict]], read: Any, within: Bounds = FREE) -> list[Estimate]:
    """The estimate over seeds at each look."""
    return [estimate([read(one) for one in at], within) for at in zip(*looks, strict=True)]


def lines(runs: Runs, loss: str, read: Any) -> tuple[Line, ...]:
    """What each look holds, over steps, from every start."""
    found = []
    for start in STARTS:
        looks = of(runs, loss, start)
        if looks:
            steps = [one["step"] for one in looks[0]]
            found.append(Line.of(start, steps, values(looks, read, SHARES)))
    return tuple(found)


def over_steps(runs: Runs, loss: str) -> Lines:
    """R@1 from every start."""
    drawn = lines(runs, loss, lambda look: look["recall@1"])
    return Lines(f"R@1 over steps, {loss}", "step", "R@1", drawn, percent=True)


def spectrum(runs: Runs) -> Lines:
    """The variances of the principal directions, as shares of the largest."""
    lines = []
    for start in list(STARTS)[:2]:
        one = next((v for (_, s, _), v in runs.items() if s == start), None)
        if one is not None:
            v = [x / one["variances"][0] for x in one["variances"] if x > 0]
            shown = sorted({round(float(k)) for k in np.geomspace(1, len(v), DRAWN)})
            name = "square roots" if "roots" in start else "features as they are"
            lines.append(Line(name, tuple(map(float, shown)), tuple(v[k - 1] for k in shown)))
    title = "Variance along the features' principal directions"
    return Lines(title, "direction", "share of the largest", tuple(lines), log_x=True, log_y=True)


def names_of_groups() -> list[str]:
    """Each group by the numbers of its directions."""
    ends = [*(str(g) for g in GROUPS), ""]
    starts = [1, *(g + 1 for g in GROUPS)]
    return [
        f"{first}" if str(first) == end else f"{first} to {end}" if end else f"{first} and more"
        for first, end in zip(starts, ends, strict=True)
    ]


def directions(runs: Runs, loss: str) -> Lines:
    """The share of the first 16 directions in what a step changes, from every start."""
    title = f"Share of the first {GROUPS[2]} directions in what a step changes, {loss}"
    drawn = lines(runs, loss, lambda look: sum(look["shares"][:3]))
    return Lines(title, "step", "share", drawn, percent=True)


def table(runs: Runs, losses: list[str]) -> Table:
    """For every loss and start: R@1 before, at best and at the end; the gradient's groups."""
    lines, groups = [], len(GROUPS) + 1 if of_heads(runs) else 0
    for loss in losses:
        for start in STARTS:
            looks = of(runs, loss, start)
            if looks:
                recall = values(looks, lambda o: o["recall@1"], SHARES)
                best = max(recall, key=lambda one: one.mean)
                first = [[run[0]] for run in looks]
                shares = [
                    values(first, lambda o, g=g: o["shares"][g], SHARES)[0] for g in range(groups)
                ]
                lines.append((loss, start, recall[0], best, recall[-1], *shares))
    heads = ("R@1 at the start", "at its best", "at the end")
    directions = tuple(f"directions {name}" for name in names_of_groups()[:groups])
    return Table(
        title=f"{last_step(runs)} steps from every start",
        columns=("loss", "start", *heads, *directions),
        rows=tuple(lines),
        percent=(*heads, *directions),
        note=(
            "Mean ± half of the 95 % t-interval over seeds; R@1 on the test classes, at its best "
            "chosen there."
        )
        + (DIRECTIONS if groups else ""),
    )


DIRECTIONS = (
    " Directions: principal ones of the training features, the largest variance first; their share "
    "in how the first step along the gradient changes the embeddings of the training images."
)


def summary(runs: Runs) -> tuple[str, ...]:
    """How far apart the starts are, over all losses, before and after training."""
    if not of_heads(runs):
        return of_networks(runs)
    first, last, least = [], [], []
    for start in STARTS:
        looks = [run for (_, s, _), v in runs.items() if s == start for run in [v["looks"]]]
        if looks:
            best = [max(one["recall@1"] for one in run) for run in looks]
            first.append(f"{percent(float(np.mean([run[0]['recall@1'] for run in looks])))}")
            last.append(f"{percent(float(np.mean(best)))}")
            least.append(float(np.mean([sum(run[0]["shares"][:3]) for run in looks])))
    if len(first) < len(STARTS):
        return ()
    ways = map(rise, STARTS, first, last)
    return (
        f"In the mean over losses, R@1 rises at its best {listed(list(ways))}.",
        f"Of what the first step changes, {percent(least[0], 0)} lies in the {GROUPS[2]} "
        f"directions in which the features vary most if the head starts orthogonal, and "
        f"{percent(least[2], 0)} if it starts whitened.",
    )


def of_networks(runs: Runs) -> tuple[str, ...]:
    """From where to where a network that learns as a whole goes, for each loss and start."""
    said = []
    for loss in dict.fromkeys(method for method, _, _ in runs):
        ends: dict[str, tuple[Scores, Scores]] = {}
        for (method, start, seed), one in runs.items():
            if method == loss:
                for at, scores in zip((0, -1), ends.setdefault(start, ({}, {})), strict=True):
                    scores[seed] = one["looks"][at]["recall@1"]
        ways = [
            f"from {percent(estimate(first.values()).mean)} to "
            f"{percent(estimate(last.values()).mean)} with {networks_start(start)}"
            for start, (first, last) in ends.items()
        ]
        said.append(
            f"Where the whole network learns for {last_step(runs)} steps by {loss}, R@1 goes "
            f"{listed(ways)}."
        )
        if len(ends) == 2:
            (one, (_, before)), (other, (_, after)) = ends.items()
            apart = difference_words(paired(after, before))
            said.append(
                f"At the end {networks_start(other)} has {apart} over {networks_start(one)}."
            )
    return tuple(said)


def rise(start: str, first: str, last: str) -> str:
    """From which start to which R@1, and what it was before training."""
    return f"to {last} from {SPOKEN[start]} ({first} before training)"


def networks_start(start: str) -> str:
    """The start of a network's head in words: all of these are given square roots."""
    return f"{'a whitened' if start.startswith('whitened') else 'an orthogonal'} head"


def findings(runs: Runs) -> list[Finding]:
    """What either start reaches, and how much of the first gradient goes to few directions."""
    if not of_heads(runs):
        return [Finding(said) for said in of_networks(runs)]
    found = []
    for loss in dict.fromkeys(method for method, _, _ in runs):
        said, parts = [], []
        for start in STARTS:
            looks = of(runs, loss, start)
            if looks:
                recall = [one.mean for one in values(looks, lambda o: o["recall@1"])]
                first = values([[run[0]] for run in looks], lambda o: sum(o["shares"][:3]))[0]
                said.append(rise(start, percent(recall[0]), percent(max(recall))))
                parts.append(percent(first.mean, 0))
        text = f"With {loss}, R@1 rises at its best {listed(said)}. The {GROUPS[2]} directions in "
        text += f"which the features vary most take {listed(parts)} of what the first step changes."
        found.append(Finding(text))
    return found


STUDY = Study(TITLE, QUESTION, answer, measure=measure)
