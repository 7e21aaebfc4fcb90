"""Does a deep stack of attention make all images of a batch alike? Measured layer by layer.

Dimensions: B batch, D features, L layers.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import product
from math import exp, log
from typing import Any

import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from nearkin.answers import Answer, Finding, Line, Lines, Table
from nearkin.graphs import Refiner
from nearkin.runs.engine import Place, splits_of
from nearkin.runs.identity import named
from nearkin.runs.loop import train
from nearkin.runs.outcome import described
from nearkin.runs.recipe import Plain, Recipe
from nearkin.runs.run import Run
from nearkin.studies.shared import graph_report
from nearkin.studies.shared.reading import where
from nearkin.studies.shared.sets import CUB
from nearkin.studies.shared.words import signed
from nearkin.studies.study import Case, Measured, Study, Task
from nearkin.tensors import unit

TITLE = "Rank collapse"
QUESTION = (
    "Attention alone loses rank doubly exponentially with depth: after a few layers all nodes are "
    "alike (Dong, Cordonnier & Loukas 2021). Do the residual and the feed-forward part prevent it "
    "in message passing over a batch, before and after training, from 1 to 8 layers? And does a "
    "sparse graph slow it, within the parts of the batch that hear of one another?"
)

DEPTH, DIM = 8, 64
FLOOR = 1e-17  # residuals below float64's own precision are drawn here
COMBINATIONS = {
    "attention alone": "residual feedforward",
    "with feed-forward": "residual",
    "with residual": "feedforward",
    "with both": "",
}
"""Name -> parts left out."""

GRAPHS: dict[str, dict[str, Plain]] = {
    "full": {},
    "full, without norms": {"without": "norms"},
    "8 nearest": {"builder": "knn", "k": 8, "symmetry": "union"},
    "2 nearest": {"builder": "knn", "k": 2, "symmetry": "union"},
    "random, as 8 nearest": {"builder": "random", "like": "knn", "k": 8, "symmetry": "union"},
    "random, as 2 nearest": {"builder": "random", "like": "knn", "k": 2, "symmetry": "union"},
}
"""Sparse ones beside random ones of the same degrees, for it could be the degree alone."""


@dataclass(frozen=True)
class Setting:
    """One stack of layers."""

    graph: str
    combination: str
    data: str
    epochs: int
    seed: int


def measure(data: str = CUB, seeds: int = 5, epochs: int = 0) -> dict[Case, Task]:
    """The residuals of every stack, before and after training.

    Args:
        data: the data set.
        seeds: how many, from 0.
        epochs: of training; 0: 4 on features, 2 on pictures, some 200 or 300 steps.
    """
    epochs = epochs or (4 if data.startswith("features:") else 2)
    found = {}
    for seed, graph, combination in product(range(seeds), GRAPHS, COMBINATIONS):
        setting = Setting(graph, combination, data, epochs, seed)
        text = repr(replace(setting, data=named(data)))  # without the folder of this machine
        found[Case(combination, seed, graph=graph)] = Task(
            sha256(text.encode()).hexdigest()[:12],
            partial(residuals_of, setting),
            recipe_of(setting),
        )
    return found


def recipe_of(setting: Setting) -> Recipe:
    """The run that trains this stack."""
    given = dict(GRAPHS[setting.graph])
    left_out = f"{given.pop('without', '')} {COMBINATIONS[setting.combination]}".strip()
    change = graph_report.options(**given, layers=DEPTH, without=left_out)
    base = graph_report.recipe(setting.data, setting.epochs, change)
    return replace(base, dim=DIM, seed=setting.seed, lr=3e-4)


def residuals_of(setting: Setting, place: Place) -> dict[str, Any]:
    """The relative residuals of one training batch, before and after training."""
    recipe = recipe_of(setting)
    run = Run(recipe, splits := splits_of(recipe, place), "cpu")
    found: dict[str, Any] = {"data": described(splits), "untrained": watched(run)}
    for _ in train(run):
        pass
    return found | {"trained": watched(run)}


def watched(run: Run) -> list[float]:
    """The residuals of a batch that is the same before and after training, in float64."""
    refiner: Any = deepcopy(run.loss.refiner)
    return relative_residuals(refiner.double().eval(), unit(run.embed_first_batch().double()))


@torch.no_grad()
def relative_residuals(refiner: Refiner, embeddings: Tensor) -> list[float]:
    """|res X_l| / |X_l| of the nodes before the first layer and after each: L + 1 numbers.

        res X = X - each row's mean over its connected component of the graph
        |X| = sqrt(largest column sum of |x_ij| * largest row sum of |x_ij|)

    On the full graph there is one component. Source: Dong, Cordonnier & Loukas, Attention is not
    all you need, ICML 2021, eq. 3 and its released code, which takes the mean as here.
    """
    nodes, _, graph = refiner.refine(embeddings)
    _, parts = connected_components(graph.matrix().numpy(), directed=False)
    member = torch.nn.functional.one_hot(torch.from_numpy(parts).long()).double()  # (B, parts)
    average = member @ (member / member.sum(0)).T  # (B, B)
    states = [refiner.input_linear(embeddings), *nodes]
    return [(norm(x - average @ x) / norm(x)).item() for x in states]


def norm(x: Tensor) -> Tensor:
    """sqrt(|X|_1 |X|_inf): largest column sum times largest row sum, of absolute values."""
    return (x.abs().sum(0).max() * x.abs().sum(1).max()).sqrt()


def answer(found: Measured) -> Answer:
    """The curves over depth, their numbers, and what they say."""
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=tuple(summary(found)),
        findings=tuple(map(Finding, findings(found))),
        tables=(table(found),),
        figures=(
            *(curves(found, when) for when in ("untrained", "trained")),
            *(by_graph(found, when) for when in ("untrained", "trained")),
        ),
    )


def mean_residuals(found: Measured, graph: str, combination: str, when: str) -> list[float]:
    """The geometric mean over seeds at each depth from 0; empty where nothing was measured."""
    chosen = [m.values[when] for m in where(found, method=combination, graph=graph).values()]
    return [exp(sum(log(max(v, FLOOR)) for v in at) / len(at)) for at in zip(*chosen, strict=True)]


def table(found: Measured) -> Table:
    """Residuals after 1, 2, 4 and 8 layers of every stack."""
    depths = (1, 2, 4, 8)
    lines = []
    for graph in GRAPHS:
        for combination in COMBINATIONS:
            both = [mean_residuals(found, graph, combination, w) for w in ("untrained", "trained")]
            if all(both):
                lines.append((graph, combination, *(left(r[d]) for r in both for d in depths)))
    return Table(
        title="Relative residual after so many layers",
        columns=(
            *("graph", "layer"),
            *(f"{when}, {d}" for when in ("untrained", "trained") for d in depths),
        ),
        rows=tuple(lines),
        note=(
            "0: all nodes of a connected component are the same. Geometric mean over seeds, in "
            f"float64, of one training batch; stacks of {DEPTH} dot-product layers, {DIM}-D, norms "
            "kept unless stated."
        ),
    )


def line(found: Measured, name: str, graph: str, combination: str, when: str) -> Line:
    """A curve over depth; what went below float64's precision lies at its floor."""
    y = mean_residuals(found, graph, combination, when)
    return Line(name, tuple(map(float, range(len(y)))), tuple(y))


def curves(found: Measured, when: str) -> Lines:
    """The four combinations over the full graph."""
    drawn = [line(found, name, "full", name, when) for name in COMBINATIONS]
    return Lines(
        title=f"Relative residual over depth, full graph, {when}",
        x="layers",
        y="relative residual",
        lines=tuple(each for each in drawn if each.x),
        log_y=True,
    )


def by_graph(found: Measured, when: str) -> Lines:
    """Attention alone over every graph."""
    drawn = [line(found, graph, graph, "attention alone", when) for graph in GRAPHS]
    return Lines(
        title=f"Relative residual of attention alone, by graph, {when}",
        x="layers",
        y="relative residual within components",
        lines=tuple(each for each in drawn if each.x),
        log_y=True,
    )


def summary(found: Measured) -> list[str]:
    """Whether attention alone collapses, what prevents it, and whether training changes that."""
    last = {
        (name, when): residuals[-1]
        for name in COMBINATIONS
        for when in ("untrained", "trained")
        if (residuals := mean_residuals(found, "full", name, when))
    }
    if not all((name, "untrained") in last for name in COMBINATIONS):
        return []
    alone, residual = last["attention alone", "untrained"], last["with residual", "untrained"]
    lines = [
        f"Attention alone makes all images alike: after {DEPTH} layers {left(alone, 1)} of their "
        "spread is left."
    ]
    holds = residual > 100 * alone
    lines.append(
        f"A residual {'prevents' if holds else 'does not prevent'} it: {left(residual)} is left."
    )
    forward = last["with feed-forward", "untrained"]
    lines.append(
        f"The feed-forward part without a residual {'does too' if forward > 0.1 else 'does not'}: "
        f"{left(forward, 1)} is left."
    )
    return lines


def findings(found: Measured) -> list[str]:
    """How fast each combination collapses, and whether a sparse graph slows it."""
    lines = []
    for when in ("untrained", "trained"):
        last = {c: mean_residuals(found, "full", c, when)[-1:] for c in COMBINATIONS}
        values = ", ".join(f"{left(r[0])} {with_part(c)}" for c, r in last.items() if r)
        text = f"After {DEPTH} {when} layers over the full graph, of the images' spread is left: "
        lines += [f"{text}{values}."] if values else []
    sparse = {g: mean_residuals(found, g, "attention alone", "untrained")[-1:] for g in GRAPHS}
    values = "; ".join(f"{left(r[0])} ({g})" for g, r in sparse.items() if r)
    text = f"By graph, {DEPTH} untrained layers of attention alone leave of the spread: {values}."
    return [*lines, text] if values else lines


def left(share: float, digits: int = 2) -> str:
    """What is left of a spread, with so many significant digits.

    >>> left(0.124), left(8.6e-5), left(1.8e-15, digits=1)
    ('0.12', '8.6e−5', '2e−15')
    """
    return signed(share, f".{digits}g").replace("e−0", "e−")


def with_part(combination: str) -> str:
    """A combination after what is left by it.

    >>> with_part("attention alone"), with_part("with residual")
    ('with attention alone', 'with residual')
    """
    return combination if combination.startswith("with") else f"with {combination}"


DEMO = {"data": "mnist-5k", "seeds": 1, "epochs": 1}
STUDY = Study(TITLE, QUESTION, answer, measure=measure, demo=DEMO)
