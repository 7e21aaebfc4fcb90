"""Seed 2's comparison in numbers: Siamese, triplet and n-tuple networks on handwriting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from typing import TypeVar

import torch

from nearkin.answers import Answer, Bars, Figure, Gallery, Line, Lines, Maps, Table
from nearkin.measure import overlap
from nearkin.measure.statistics import Estimate, estimate, paired
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Row
from nearkin.studies.shared.methods import BARE, UNTRAINED, picked, sizes
from nearkin.studies.shared.reading import Scores, against, best, mean, p_value, scores

T = TypeVar("T")

TITLE = "The toolkit: Siamese, triplet and n-tuple networks"
QUESTION = (
    "Which of the losses of the Siamese / triplet / n-tuple family embeds best, and is it true "
    "that the ratio over all classes (8) scatters better but separates worse than the triplet on "
    "a tuple? Does the n-pair loss (7) collapse, and does an L2 term mend it? The original report "
    "showed pictures only; here are the numbers, for the printed and for the right forms."
)

COMPACT = {"roundness": 1.0, "compactness": 0.3}
"""Chosen on the last sixth of MNIST's training digits (in 64-D between two that were): LOG."""

OURS: dict[str, dict] = {
    "ours: Fisher NCA": {"loss": "fisher-nca"},
    "ours: compact Fisher NCA": {"loss": "fisher-nca", "loss_options": COMPACT},
}
METHODS: dict[str, dict] = {
    UNTRAINED: BARE | {"metric": "euclidean"},
    "cross-entropy": {"loss": "cross-entropy"},
    "Siamese (1-3)": {"loss": "contrastive"},
    "triplet (4-6)": {"loss": "ratio-triplet"},
    "n-tuple (7)": {"loss": "n-pair"},
    "n-tuple (7) printed": {"loss": "n-pair", "loss_options": {"form": "printed"}},
    "n-tuple (7) + L2": {"loss": "n-pair", "loss_options": {"l2": 0.1}},
    "n-tuple (7) printed + L2": {"loss": "n-pair", "loss_options": {"form": "printed", "l2": 0.1}},
    "triplet on tuple": {"loss": "tuple-triplet"},
    "tuple ratio (8)": {"loss": "tuple-ratio"},
    "tuple ratio (8) printed": {"loss": "tuple-ratio", "loss_options": {"form": "printed"}},
    "combined": {"loss": "combined"},
    **OURS,
}
"""Name in the table -> what differs from the common recipe."""

BASE = Recipe(
    data="mnist-5k",
    batch=120,
    per_class=12,
    augment="affine",
    epochs=12,
    evaluate_every=3,
    schedule="cosine",
    warmup=100,
    precision="bf16",
    metric="euclidean",  # of every method, as in seed 2's pictures, n-pair's too
)
DATA = ("mnist-5k", "mnist", "fashion-mnist")
LARGE = {"epochs": 4, "evaluate_every": 2, "lr": 2e-3}
"""Of the full sets, whose epochs have 15 times as many steps; chosen on digits that validate."""

L2 = (0.0, 0.1, 0.5, 0.9, 1.1)
SWEEP = replace(BASE, dim=2, loss="n-pair", sampler="tuples", batch=20, per_class=2, epochs=6)
"""n-pair (7) on its own tuples, 10 classes x 2 images, where zero is to become a minimum at l2 = 1.

With m pairs of each class among N it is at N / (N - m + 1) for the right form: 1.09 in batches of
10 x 12.
"""


def recipes(
    data: str = "mnist-5k",
    seeds: int = 5,
    epochs: int = 0,
    dims: str = "2,64",
    methods: str = "all",
    sweep: bool = True,
) -> list[Recipe]:
    """Every seed, dimension and method under one recipe; then n-pair (7) over its L2 weight.

    The pixels as they are have no seeds: they come once.
    Seeds come first, so that a study that is not finished yet has every method.

    Args:
        data: the data set.
        seeds: how many, from 0.
        epochs: 0 takes 12 on mnist-5k, 4 on the full sets.
        dims: embedding dimensions, separated by commas.
        methods: names separated by commas, or all.
        sweep: whether to add the sweep over the L2 weight, in 2-D on tuples of mnist-5k.
    """
    if data not in DATA:
        raise ValueError(
            f"the toolkit is compared on ten classes that training and test share: "
            f"{', '.join(DATA)}; for {data} there is the study rivals"
        )
    base = replace(BASE, data=data, **({} if data == BASE.data else LARGE))
    base = replace(base, epochs=epochs or base.epochs)
    wanted = product(range(seeds), sizes(dims), picked(methods, METHODS).items())
    main = [
        replace(base, dim=dim, seed=seed, **change)
        for seed, dim, (name, change) in wanted
        if name != UNTRAINED or seed == 0
    ]
    return main + (l2_sweep(range(seeds)) if sweep else [])


def l2_sweep(seeds: Iterable[int]) -> list[Recipe]:
    """n-pair (7) in 2-D over the weight of its L2 term, in the right and in the printed form."""
    return [
        replace(SWEEP, seed=seed, loss_options=options(form, l2))
        for seed, form, l2 in product(seeds, ("right", "printed"), L2)
    ]


def options(form: str, l2: float) -> dict:
    """The options of n-pair that differ from its defaults, so that equal runs are one run."""
    return ({"form": form} if form != "right" else {}) | ({"l2": l2} if l2 else {})


VANISHED = 0.05  # share of the least mean norm at l2 = 0 below which an embedding counts as zero
CHANCE = 0.15  # 5-NN accuracy of ten digits that are not told apart: a tenth, and room for luck

DEMO = {"seeds": 2, "epochs": 3, "dims": "2", "sweep": False}
"""The options of `make demo`."""


def method(row: Row) -> str | None:
    """The method's name in the table, None for a row of the sweep alone."""
    recipe = row.recipe
    if sweep_setting(row):
        return None
    for name, change in METHODS.items():
        if all(getattr(recipe, k) == v for k, v in ({"loss_options": {}} | change).items()):
            return name
    return None


def main_rows(rows: list[Row]) -> list[Row]:
    """The rows of the comparison: not those of the sweep, nor of mnist-5k beside a full set."""
    rows = [r for r in rows if not sweep_setting(r)]
    data = {r.recipe.data for r in rows}
    return [r for r in rows if len(data) == 1 or r.recipe.data != BASE.data]


def answer(rows: list[Row]) -> Answer:
    """Tables by dimension, the overlaps, the sweep, and seed 2's pictures with what they claim."""
    every, rows = rows, main_rows(rows)
    dims = sorted({r.recipe.dim for r in rows})
    flat = [r for r in rows if r.recipe.dim == 2 and r.recipe.seed == 0]
    named = [(name, r) for r in flat if (name := method(r)) and r.status == "done"]
    pictures = [(name, r) for name, r in named if name != UNTRAINED]  # which is not in 2-D
    figures: list[Figure] = [
        Maps("The embeddings of every method in 2-D", tuple(pictures)),
        *(overlaps(rows, dim) for dim in dims),
        *(curves(rows, dim) for dim in dims),
    ]
    best_row = winner(rows, dims[-1]) if dims else None
    if best_row:
        figures.append(Gallery(f"Neighbours by {method(best_row)}, {dims[-1]}-D", best_row))
    tables = [make(rows, dim) for dim in dims for make in (comparison, shapes)]
    tables.append(sweep_table(every))
    return Answer(
        title=TITLE,
        question=QUESTION,
        findings=tuple(findings(every, dims)),
        tables=tuple(tables),
        figures=tuple(figures),
    )


SHARES = {"5-NN": "knn_accuracy", "R@1": "recall@1", "MAP@R": "map@r", "NMI": "nmi"}
SHAPES = {"spread": "spread", "anisotropy": "anisotropy", "separation": "separation"}
DIGITS = {"4/7/9": [4, 7, 9], "2/3": [2, 3]}
GARMENTS = {"pullover/coat/shirt": [2, 4, 6], "sandal/sneaker/boot": [5, 7, 9]}
OVERLAPS = DIGITS | GARMENTS


def look_alike(rows: list[Row]) -> dict[str, list[int]]:
    """The groups of classes of this data set that are mistaken for each other."""
    return GARMENTS if any(r.recipe.data == "fashion-mnist" for r in rows) else DIGITS


def of_dim(rows: list[Row], dim: int, head: str) -> dict[str, Scores]:
    """Method -> seed -> what stands under this head, of the rows of one dimension."""
    chosen = [r for r in rows if r.recipe.dim == dim]
    if head not in OVERLAPS:
        return scores(chosen, method, (SHARES | SHAPES)[head])
    found: dict[str, Scores] = {}
    for row in chosen:
        name = method(row)
        if name and row.confusion:
            counts = torch.tensor(row.confusion)
            found.setdefault(name, {})[row.recipe.seed] = overlap(counts, OVERLAPS[head])
    return found


def trained(by_method: dict[str, T]) -> dict[str, T]:
    """Without the pixels as they are."""
    return {name: value for name, value in by_method.items() if name != UNTRAINED}


def comparison(rows: list[Row], dim: int) -> Table:
    """Every method by how well it finds kin, and whether it differs from the best one."""
    accuracy = of_dim(rows, dim, "5-NN")
    learned = trained(accuracy)
    reference = best(learned) if learned else None
    differ = against(reference, learned) if reference else {}
    note = (
        "Mean ± half of the 95 % t-interval over seeds, last epoch. No training: the pixels, 784-D."
    )
    if reference:
        note += f" p: paired t-test of 5-NN against {reference}, Holm-corrected."
    found = {head: of_dim(rows, dim, head) for head in SHARES}
    return Table(
        title=f"{dim}-D embeddings: who finds kin",
        columns=("method", *SHARES, "p"),
        rows=tuple(
            (name, *(mean(found[head].get(name)) for head in SHARES), p_value(differ.get(name)))
            for name in METHODS
            if name in accuracy
        ),
        percent=tuple(SHARES),
        best=tuple(SHARES),
        note=note,
    )


def shapes(rows: list[Row], dim: int) -> Table:
    """Every method by how its classes scatter, stand apart, and are mistaken for each other."""
    alike = look_alike(rows)
    heads = (*SHAPES, *alike)
    found = {head: of_dim(rows, dim, head) for head in heads}
    return Table(
        title=f"{dim}-D embeddings: scattering and separation",
        columns=("method", *heads),
        rows=tuple(
            (name, *(mean(found[head].get(name)) for head in heads))
            for name in METHODS
            if name in found["spread"]
        ),
        percent=tuple(alike),
        best=("separation",),
        lowest=("anisotropy", *alike),
        note=(
            "Spread: variance within classes; anisotropy: 0 for round classes, 1 for lines; "
            f"separation: variance between classes over that within; {' and '.join(alike)}: share "
            "of these whose nearest other item is another of the group."
        ),
    )


def overlaps(rows: list[Row], dim: int) -> Bars:
    """How often classes that look alike are mistaken for one another, by method."""
    alike = look_alike(rows)
    found = {head: of_dim(rows, dim, head) for head in alike}
    names = [name for name in METHODS if any(name in f for f in found.values())]
    return Bars(
        title=f"Overlap of classes that look alike, {dim}-D",
        y="share mistaken",
        groups=tuple(names),
        series=tuple(alike),
        values=tuple(tuple(mean(found[head].get(name)) for head in alike) for name in names),
        percent=True,
    )


def curves(rows: list[Row], dim: int) -> Lines:
    """Errors of the 5 nearest neighbours on test, by evaluated epoch, mean over seeds."""
    lines = []
    for name in trained(METHODS):
        epochs: dict[int, list[float]] = {}
        for row in rows:
            if method(row) == name and row.recipe.dim == dim:
                for epoch in row.epochs:
                    if epoch.test:
                        error = 1 - epoch.test["knn_accuracy"]
                        epochs.setdefault(epoch.epoch, []).append(error)
        if epochs:
            lines.append(Line.of(name, epochs, [estimate(values) for values in epochs.values()]))
    title = f"Errors of 5-NN over epochs, {dim}-D"
    return Lines(title, "epoch", "errors of 5-NN", tuple(lines), log_y=True, percent=True)


def sweep_table(rows: list[Row]) -> Table:
    """n-pair (7) in 2-D over the weight of its L2 term: does it collapse?"""
    heads = {"5-NN": "knn_accuracy", "mean norm": "norm", "spread": "spread", "R@1": "recall@1"}
    found = {head: scores(rows, sweep_setting, metric) for head, metric in heads.items()}
    ratios = scores(rows, sweep_setting, "separation")  # b / w, and b / (b + w) is to be shown
    found["share between"] = {
        setting: {seed: r / (1 + r) for seed, r in by_seed.items()}
        for setting, by_seed in ratios.items()
    }
    settings = sorted(found["5-NN"], key=lambda s: (s[0] != "right", s[1]))
    return Table(
        title="Does n-pair (7) collapse? 2-D, tuples of mnist-5k, over the weight of the L2 term",
        columns=("form", "l2", *found),
        rows=tuple(
            (form, l2, *(mean(by_setting.get((form, l2))) for by_setting in found.values()))
            for form, l2 in settings
        ),
        percent=("5-NN", "R@1"),
        note=(
            "Theory, where classes are points: zero is a saddle below l2 = 1, a minimum above. "
            "Where they are not, it is one from the share of the mean square that lies between "
            f"classes. Collapsed: mean norm below {100 * VANISHED:g} % of the least at l2 = 0, or "
            f"5-NN below {100 * CHANCE:g} %. Share between: b / (b + w) of the variances on test."
        ),
    )


def sweep_setting(row: Row) -> tuple[str, float] | None:
    """Form and L2 weight of a row of the sweep, None for any other row."""
    given, seed = row.recipe.loss_options, row.recipe.seed
    swept = replace(SWEEP, seed=seed, loss_options=given)
    if swept.hash != row.hash:
        return None
    return str(given.get("form", "right")), float(given.get("l2", 0.0) or 0)


def collapse(rows: list[Row], form: str) -> list[str]:
    """At which L2 weights n-pair (7) has collapsed, and whether it does so above 1 alone.

    All embeddings are then at zero, which the mean norm tells, or at another point, which 5-NN
    tells. At zero 5-NN may stay: what little is left may still have the digits apart.
    """
    norm, accuracy = (
        {l2: found for (f, l2), found in scores(rows, sweep_setting, metric).items() if f == form}
        for metric in ("norm", "knn_accuracy")
    )
    if 0 not in norm or max(norm) < 1:
        return []
    zero = VANISHED * min(norm[0].values())  # as the printed form has norms of any size
    fallen, agrees = [], True
    for l2 in sorted(norm):
        gone = [norm[l2][s] < zero or accuracy[l2][s] < CHANCE for s in norm[l2]]
        agrees = agrees and set(gone) == {l2 > 1}
        if any(gone):
            seeds = "" if all(gone) else f" in {sum(gone)} of {len(gone)} seeds"
            fallen.append(f"at {l2:g}{seeds} (5-NN {percent(mean(accuracy[l2]))})")
    return [
        f"n-pair (7), {form}: over l2 = {', '.join(f'{l2:g}' for l2 in sorted(norm))} it has "
        f"collapsed {' and '.join(fallen) or 'nowhere'}, {'' if agrees else 'not '}as predicted "
        "for classes that are points (above 1 alone)."
    ]


def winner(rows: list[Row], dim: int) -> Row | None:
    """The first finished seed of the trained method with the highest 5-NN accuracy."""
    accuracy = trained(of_dim(rows, dim, "5-NN"))
    if not accuracy:
        return None
    name = best(accuracy)
    wanted = (r for r in rows if method(r) == name and r.recipe.dim == dim)
    return min((r for r in wanted if r.status == "done"), key=lambda r: r.recipe.seed)


CLAIMS = {
    "overlap": (("triplet (4-6)", "Siamese (1-3)"),),
    "5-NN": (("tuple ratio (8)", "tuple ratio (8) printed"),),
    "separation": (
        ("triplet (4-6)", "Siamese (1-3)"),
        ("n-tuple (7) + L2", "n-tuple (7)"),
        ("tuple ratio (8)", "triplet on tuple"),
        ("tuple ratio (8) printed", "triplet on tuple"),
    ),
    "anisotropy": (
        ("tuple ratio (8)", "triplet on tuple"),
        ("tuple ratio (8) printed", "triplet on tuple"),
    ),
}
"""What seed 2 says of its pictures: by what, and of whom against whom."""


def findings(every: list[Row], dims: list[int]) -> list[str]:
    """What the numbers say of seed 2's sentences, of our own losses, and of the sweep."""
    rows, said = main_rows(every), []
    alike = next(iter(look_alike(rows)))
    for dim in dims:
        accuracy = trained(of_dim(rows, dim, "5-NN"))
        if accuracy:
            name = best(accuracy)
            said.append(f"{dim}-D: {name} is best, 5-NN accuracy {percent(mean(accuracy[name]))}.")
        for by, pairs in CLAIMS.items():
            head = alike if by == "overlap" else by
            parts = [part for a, b in pairs for part in claim(rows, dim, a, b, head)]
            if head in SHAPES:
                parts += [part for ours in OURS for part in whom_ours_beats(rows, dim, ours, head)]
            if parts:
                said.append(f"{dim}-D, by {head}: {'; '.join(parts)}.")
    for form in ("right", "printed"):
        said += collapse(every, form)
    gone = [in_words(r) for r in every if r.status != "done"]
    return said + ([f"Diverged: {'; '.join(gone)}."] if gone else [])


def in_words(row: Row) -> str:
    """Which run this is, one of the sweep too."""
    recipe = row.recipe
    given = (f"{key}={value}" for key, value in recipe.loss_options.items())
    name = method(row) or " ".join([recipe.loss, *given])
    return f"{name} on {recipe.data}, {recipe.dim}-D, seed {recipe.seed}"


def lower_is_better(head: str) -> bool:
    return head == "anisotropy" or head in OVERLAPS


def claim(rows: list[Row], dim: int, a: str, b: str, head: str) -> list[str]:
    """Whether method a does better than b in one column, in a few words."""
    found = of_dim(rows, dim, head)
    if a not in found or b not in found:
        return []
    difference = paired(found[a], found[b])
    if difference.estimate.n < 2:
        return []
    change, word = difference.estimate.mean, "no different from"
    if difference.p < 0.05:
        word = "better than" if (change < 0) == lower_is_better(head) else "worse than"
    share = head in SHARES or head in OVERLAPS
    size = f"{100 * change:+.2f} points" if share else f"{change:+.3g}"
    return [f"{a} is {word} {b} ({size}, p {p_value(difference)})".replace("(-", "(−")]


def whom_ours_beats(rows: list[Row], dim: int, ours: str, head: str) -> list[str]:
    """Which of the others' losses ours beats in one column, and which not; p Holm-corrected."""
    found = trained(of_dim(rows, dim, head))
    own = found.get(ours, {})
    theirs = {n: s for n, s in found.items() if n not in OURS and len(s.keys() & own.keys()) > 1}
    if not theirs:
        return []
    differ = against(ours, theirs | {ours: own})  # theirs less ours
    sure = {name: d for name, d in differ.items() if d.p < 0.05}
    ahead = [n for n, d in sure.items() if (d.estimate.mean > 0) != lower_is_better(head)]
    unsure = [name for name in differ if name not in sure]
    behind = len(sure) - len(ahead)
    count = "all" if behind == len(differ) > 1 else f"{behind} of the"
    line = f"{ours} is better than {count} {len(differ)} others"
    line += f", worse than {', '.join(ahead)}" if ahead else ""
    return [line + (f", no different from {', '.join(unsure)}" if unsure else "")]


def percent(value: Estimate | None) -> str:
    return "" if value is None else f"{100 * value.mean:.2f} %"
