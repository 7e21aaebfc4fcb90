"""Does the n-pair loss (7) collapse? It is swept over the weight of its L2 term, in 2-D."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import product

from nearkin.answers import Finding, Table
from nearkin.runs.recipe import Plain
from nearkin.studies.shared.reading import Scores, average, mean, scores
from nearkin.studies.shared.words import listed, percent
from nearkin.studies.study import Case, Recipes, Rows
from nearkin.studies.toolkit.methods import BASE

L2 = (0.0, 0.1, 0.5, 0.9, 1.1)
FORMS = ("right", "printed")
SWEEP = replace(BASE, dim=2, loss="n-pair", sampler="tuples", batch=20, per_class=2, epochs=6)
"""n-pair (7) on its own tuples, 10 classes x 2 images, where zero is to become a minimum at l2 = 1.

With m pairs of each class among N it is at N / (N - m + 1) for the right form: 1.09 in batches of
10 x 12.
"""
VANISHED = 0.05  # share of the least mean norm at l2 = 0 below which an embedding counts as zero
CHANCE = 0.15  # 5-NN accuracy of ten digits that are not told apart: a tenth, and room for luck


def recipes(seeds: Iterable[int]) -> Recipes:
    """n-pair (7) in 2-D over the weight of its L2 term, in the right and in the printed form."""
    found: Recipes = {}
    for seed, form, l2 in product(seeds, FORMS, L2):
        options: dict[str, Plain] = {"form": form, "l2": l2}
        case = Case(f"n-pair (7), {form}", seed, l2=l2)
        found[case] = replace(SWEEP, seed=seed, loss_options=options)
    return found


def by_weight(rows: Rows, form: str, metric: str) -> dict[float, Scores]:
    """L2 weight -> seed -> metric, of one form."""
    every = scores(rows, metric, by=lambda case: (case.method, case["l2"]))
    return {l2: values for (name, l2), values in every.items() if name == f"n-pair (7), {form}"}


def table(rows: Rows) -> Table:
    """What n-pair (7) comes to under each weight."""
    heads = {"5-NN": "knn_accuracy", "mean norm": "norm", "spread": "spread", "R@1": "recall@1"}
    lines = []
    for form in FORMS:
        found = {head: by_weight(rows, form, metric) for head, metric in heads.items()}
        between = by_weight(rows, form, "separation")  # b / w, and b / (b + w) is to be shown
        for l2 in sorted(found["5-NN"]):
            share = {seed: ratio / (1 + ratio) for seed, ratio in between.get(l2, {}).items()}
            numbers = [
                (mean if head in ("5-NN", "R@1") else average)(found[head].get(l2))
                for head in heads
            ]
            lines.append((form, l2, *numbers, average(share)))
    return Table(
        title="Does n-pair (7) collapse? 2-D, tuples of mnist-5k, over the weight of the L2 term",
        columns=("form", "l2", *heads, "share between"),
        rows=tuple(lines),
        percent=("5-NN", "R@1"),
        note=(
            "Theory, where classes are points: zero is a saddle below l2 = 1, a minimum above. "
            "Where they are not, it is one from the share of the mean square that lies between "
            f"classes. Collapsed: mean norm below {100 * VANISHED:g} % of the least at l2 = 0, or "
            f"5-NN below {100 * CHANCE:g} %. Share between: b / (b + w) of the variances on test."
        ),
    )


def findings(rows: Rows) -> list[Finding]:
    """At which L2 weights n-pair (7) has collapsed in each form, and whether above 1 alone."""
    found = {form: fallen for form in FORMS if (fallen := collapsed(rows, form)) is not None}
    if not found:
        return []
    parts = []
    for form, fallen in found.items():
        many = {l2: seeds_of(rows, form, l2) for l2 in fallen}
        agrees = all(len(gone) == many[l2] * (l2 > 1) for l2, gone in fallen.items())
        where = [fallen_words(rows, form, l2, gone) for l2, gone in fallen.items() if gone]
        parts.append(
            f"the {form} form collapses {' and '.join(where) or 'nowhere'}, which is "
            f"{'' if agrees else 'not '}as predicted"
        )
    weights = [f"{l2:g}" for l2 in next(iter(found.values()))]
    text = "Where classes are points, n-pair (7) is to collapse under L2 weights above 1 alone. Of "
    text += f"the weights {listed(weights, most=len(weights))}, {'; '.join(parts)}."
    return [Finding(text, p=0.0)]  # seen, not tested


def collapsed(rows: Rows, form: str) -> dict[float, list[int]] | None:
    """L2 weight -> the seeds in which n-pair (7) has collapsed; None without weights 0 and 1.

    All embeddings are then at zero, which the mean norm tells, or at another point, which 5-NN
    tells. At zero 5-NN may stay: what little is left may still have the digits apart.
    """
    norm, accuracy = (by_weight(rows, form, metric) for metric in ("norm", "knn_accuracy"))
    if 0 not in norm or max(norm) < 1:
        return None
    zero = VANISHED * min(norm[0].values())  # as the printed form has norms of any size
    return {
        l2: [s for s in norm[l2] if norm[l2][s] < zero or accuracy[l2][s] < CHANCE]
        for l2 in sorted(norm)
    }


def summary(rows: Rows) -> list[str]:
    """Whether the n-pair loss collapses, in its right form."""
    fallen = collapsed(rows, FORMS[0])
    if fallen is None:
        return []
    gone = [f"{l2:g}" for l2, seeds in fallen.items() if seeds]
    if not gone:
        return ["The n-pair loss (7) collapses under no weight of its L2 term."]
    where = listed(gone, len(gone))
    return [f"The n-pair loss (7) collapses under L2 weights of {where}, and under no smaller one."]


def seeds_of(rows: Rows, form: str, l2: float) -> int:
    """How many seeds there are at a weight."""
    return len(by_weight(rows, form, "norm")[l2])


def fallen_words(rows: Rows, form: str, l2: float, gone: Collection[int]) -> str:
    """Where it has collapsed, in how many seeds, and what 5-NN is there."""
    many = seeds_of(rows, form, l2)
    seeds = "" if len(gone) == many else f" in {len(gone)} of {many} seeds"
    share = mean(by_weight(rows, form, "knn_accuracy")[l2])
    return f"at {l2:g}{seeds} (5-NN accuracy {percent(share.mean, 2) if share else 'none'})"
