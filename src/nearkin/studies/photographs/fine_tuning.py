"""Fine-tuning whole pretrained networks: a short table for a CPU, the full one for a GPU."""

from __future__ import annotations

from dataclasses import replace

from nearkin.answers import Answer, Table
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Machine, Row
from nearkin.studies.shared import comparison, sentences
from nearkin.studies.shared.comparison import Comparison
from nearkin.studies.shared.methods import FEW, METHODS, UNTRAINED, under
from nearkin.studies.shared.reading import (
    Scores,
    against,
    average,
    gathered,
    highest,
    mean,
    method,
    scores,
    where,
)
from nearkin.studies.shared.tuning import settle
from nearkin.studies.shared.words import EPOCH_ON_TEST, SPREAD, p_value
from nearkin.studies.study import Case, Recipes, Rows, Study

TITLE = "Fine-tuning"
QUESTION = (
    "Which method learns the best metric when a pretrained network is trained as a whole? All have "
    "the same network, pictures, batches, learning rates and most epochs; how many of these they "
    "take is chosen on validation classes."
)

SHORT = {
    "data": "cub",
    "seeds": 2,
    "epochs": 8,
    "methods": FEW,
    "size": 96,
    "precision": "float32",
}
"""On two cores: an hour or two. On a CPU, bf16 is slower here, as its depthwise gradients are."""

FULL = {
    "data": "cub,cars",
    "seeds": 5,
    "epochs": 30,
    "methods": ",".join(name for name in METHODS if name != "contrastive"),
    "size": 128,
    "precision": "bf16",
}
"""On a GPU."""


def photographs(data: str, epochs: int = 0, size: int = 96) -> Recipe:
    """What all methods share: EfficientNet-lite0, an epoch of its head, then all of it."""
    return Recipe(
        data=data,
        size=size,
        backbone="lite0",
        backbone_options={"batch_norm": "frozen"},
        dim=512,
        augment="crop-flip",
        batch=112,
        per_class=4,
        epochs=epochs or 8,
        evaluate_every=2,
        head_first=1,
        optimizer="adamw",
        lr=1e-3,
        backbone_lr=1e-4,
        weight_decay=1e-4,
    )


def untrained(recipe: Recipe) -> Recipe:
    """The pooled features of the pretrained network, as they are."""
    options = {**recipe.backbone_options, "head": "none"}
    bare = replace(recipe, backbone_options=options, epochs=0, precision="float32")
    return replace(bare, loss="contrastive", loss_options={}, metric="cosine")


def settings(full: bool, backbone: str, **given) -> dict[tuple[str, str], Recipe]:
    """(method, data set) -> recipe, its number of epochs not chosen yet."""
    chosen = (FULL if full else SHORT) | {k: v for k, v in given.items() if v}
    shared = {"backbone": backbone, "precision": chosen["precision"]}
    return {
        (name, data): recipe
        for data in chosen["data"].split(",")
        for name, recipe in under(
            replace(photographs(data, chosen["epochs"], chosen["size"]), **shared),
            chosen["methods"],
        ).items()
    }


def search(
    data: str = "",
    epochs: int = 0,
    methods: str = "",
    size: int = 0,
    backbone: str = "lite0",
    full: bool = False,
) -> Recipes:
    """One trial of every method, which shows how many epochs are enough."""
    found = settings(full, backbone, data=data, epochs=epochs, methods=methods, size=size)
    return {
        Case(name, data=target): replace(recipe, validate=True, trial=True)
        for (name, target), recipe in found.items()
    }


def recipes(
    data: str = "",
    seeds: int = 0,
    epochs: int = 0,
    methods: str = "",
    size: int = 0,
    backbone: str = "lite0",
    full: bool = False,
    searched: Rows | None = None,
) -> Recipes:
    """Every data set, method and seed; and every data set without any training.

    Args:
        data: data sets, separated by commas; by default cub, or cub and cars where full.
        seeds: how many, from 0; by default 2, or 5.
        epochs: the most that a run may take; by default 8, or 30.
        methods: names separated by commas, or all; by default five, or all but one.
        size: side of the pictures; by default 96, or 128.
        backbone: any pretrained one.
        full: the table for a GPU, in bf16.
        searched: the rows of `search`.
    """
    found = settings(full, backbone, data=data, epochs=epochs, methods=methods, size=size)
    count = seeds or (FULL if full else SHORT)["seeds"]
    runs = {Case(UNTRAINED, data=t): untrained(recipe) for (_, t), recipe in found.items()}
    for (name, target), recipe in found.items():
        settled = settle(recipe, searched, name, data=target)
        for seed in range(count):
            runs[Case(name, seed, data=target)] = replace(settled, seed=seed)
    return runs


def answer(rows: Rows) -> Answer:
    """Who leads on each data set, and a table for each."""
    sets = list(dict.fromkeys(case["data"] for case in rows))
    by_set = {data: where(rows, data=data) for data in sets}
    compared = [compare(found, data) for data, found in by_set.items()]
    variants = dict.fromkeys(row.data.variant for row in rows.values())
    title = "R@1 after fine-tuning"
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=sentences.summary(compared),
        findings=tuple(line for one in compared for line in sentences.findings(one)),
        tables=(
            comparison.standings(compared, title, f"{'; '.join(variants)}. {SPREAD}."),
            *(table(found, data) for data, found in by_set.items()),
        ),
        figures=(comparison.picture(compared, title),),
    )


def compare(rows: Rows, data: str) -> Comparison:
    """The methods on one data set, beside the pretrained network as it is."""
    recall = scores(rows, "recall@1")
    bare = {name: values for name, values in recall.items() if name == UNTRAINED}
    return Comparison("R@1", trained(recall), bare, data, f"on {data}")


HEADS = {"R@1": "recall@1", "R@2": "recall@2", "R@4": "recall@4", "R@8": "recall@8"}
HEADS |= {"MAP@R": "map@r", "NMI": "nmi"}


def table(rows: Rows, data: str) -> Table:
    """Every method, whether it differs from the leading one, and what a run took."""
    found = {head: scores(rows, metric) for head, metric in HEADS.items()}
    oracle = scores(rows, "recall@1", "best_on_test")
    learned = trained(found["R@1"])
    reference = highest(learned) if learned else None
    differ = against(reference, learned) if reference else {}
    epochs = gathered(rows, lambda row: row.recipe.epochs, method)
    minutes = gathered(rows, minutes_of, method)
    machines = dict.fromkeys(row.machine.gpu or cores_of(row.machine) for row in rows.values())
    sizes = dict.fromkeys(f"{row.recipe.size} px" for row in rows.values())
    one = next(iter(rows.values()))
    note = (
        f"{one.data.variant}, {', '.join(sizes)}; {one.recipe.backbone}; {', '.join(machines)}. "
        f"{SPREAD}; beside it {EPOCH_ON_TEST}."
    )
    if reference:
        note += f" p: paired t-test of R@1 against {reference}, Holm-corrected."
    return Table(
        title=f"{data}: fine-tuned",
        columns=("method", *HEADS, "best epoch on test", "epochs", "minutes", "p"),
        rows=tuple(
            (
                name,
                *(mean(found[head].get(name)) for head in HEADS),
                mean(oracle.get(name)),
                average(epochs.get(name)),
                average(minutes.get(name)),
                p_value(differ.get(name)),
            )
            for name in (UNTRAINED, *METHODS)
            if name in found["R@1"]
        ),
        percent=(*HEADS, "best epoch on test"),
        best=tuple(HEADS),
        note=note,
    )


def trained(recall: dict[str, Scores]) -> dict[str, Scores]:
    """Without the network as it comes."""
    return {name: values for name, values in recall.items() if name != UNTRAINED}


def cores_of(machine: Machine) -> str:
    """What a run without a GPU was done on.

    >>> cores_of(Machine("Abacus", cores=1))
    'a core of Abacus a run'
    """
    count = machine.cores
    return f"{'a core' if count == 1 else f'{count} cores'} of {machine.cpu} a run"


def minutes_of(row: Row) -> float | None:
    """Minutes of training; None where nothing was trained."""
    seconds = row.cost.train_seconds
    return seconds / 60 if seconds and row.recipe.epochs else None


STUDY = Study(TITLE, QUESTION, answer, recipes, search)
