"""Fine-tuning whole pretrained networks: a short table for a CPU, the full one for a GPU."""

from __future__ import annotations

from dataclasses import replace

from nearkin.answers import Answer, Bars, Table
from nearkin.runs.recipe import Recipe
from nearkin.runs.row import Machine, Row
from nearkin.studies.shared.methods import FEW, METHODS, UNTRAINED, method, under
from nearkin.studies.shared.reading import Scores, against, best, mean, p_value, scores
from nearkin.studies.shared.tuning import settle

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


def settings(full: bool, backbone: str, **given) -> list[Recipe]:
    """A recipe for each data set and method, its number of epochs not chosen yet."""
    chosen = (FULL if full else SHORT) | {k: v for k, v in given.items() if v}
    shared = {"backbone": backbone, "precision": chosen["precision"]}
    return [
        recipe
        for data in chosen["data"].split(",")
        for recipe in under(
            replace(photographs(data, chosen["epochs"], chosen["size"]), **shared),
            chosen["methods"],
        ).values()
    ]


def search(
    data: str = "",
    epochs: int = 0,
    methods: str = "",
    size: int = 0,
    backbone: str = "lite0",
    full: bool = False,
) -> list[Recipe]:
    """One trial of every method, which shows how many epochs are enough."""
    found = settings(full, backbone, data=data, epochs=epochs, methods=methods, size=size)
    return [replace(recipe, validate=True, trial=True) for recipe in found]


def recipes(
    data: str = "",
    seeds: int = 0,
    epochs: int = 0,
    methods: str = "",
    size: int = 0,
    backbone: str = "lite0",
    full: bool = False,
    searched: list[Row] | None = None,
) -> list[Recipe]:
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
    bare = {recipe.data: untrained(recipe) for recipe in found}
    return list(bare.values()) + [
        replace(settle(recipe, searched or []), seed=seed)
        for recipe in found
        for seed in range(count)
    ]


def named(row: Row) -> str | None:
    """The method's name in the table."""
    return method(row) if row.recipe.epochs else UNTRAINED


def answer(rows: list[Row]) -> Answer:
    """A table for each data set, and the bars of R@1."""
    sets = list(dict.fromkeys(row.data.name for row in rows))
    return Answer(
        title=TITLE,
        question=QUESTION,
        findings=tuple(said for data in sets for said in findings(of(rows, data), data)),
        tables=tuple(comparison(of(rows, data), data) for data in sets),
        figures=(bars(rows, sets),),
    )


def of(rows: list[Row], data: str) -> list[Row]:
    """The rows of one data set."""
    return [row for row in rows if row.data.name == data]


HEADS = {"R@1": "recall@1", "R@2": "recall@2", "R@4": "recall@4", "R@8": "recall@8"}
HEADS |= {"MAP@R": "map@r", "NMI": "nmi"}


def comparison(rows: list[Row], data: str) -> Table:
    """Every method, whether it differs from the best one, and what a run took."""
    found = {head: scores(rows, named, metric) for head, metric in HEADS.items()}
    oracle = scores(rows, named, "recall@1", "best_on_test")
    trained = {name: values for name, values in found["R@1"].items() if name != UNTRAINED}
    reference = best(trained) if trained else None
    differ = against(reference, trained) if reference else {}
    machines = [row.machine for row in rows]
    places = dict.fromkeys(m.gpu or cores_of(m) for m in machines)
    sizes = dict.fromkeys(f"{row['recipe']['size']} px" for row in rows)
    return Table(
        title=f"{data}: fine-tuned",
        columns=("method", *HEADS, "best epoch on test", "epochs", "minutes", "p"),
        rows=tuple(
            (
                name,
                *(mean(found[head].get(name)) for head in HEADS),
                mean(oracle.get(name)),
                mean(epochs_of(rows, name)),
                mean(minutes_of(rows, name)),
                p_value(differ.get(name)),
            )
            for name in (UNTRAINED, *METHODS)
            if name in found["R@1"]
        ),
        percent=(*HEADS, "best epoch on test"),
        best=tuple(HEADS),
        note=(
            f"{rows[0]['data']['variant']}, {', '.join(sizes)}; "
            f"{rows[0]['recipe']['backbone']}; {', '.join(places)}. Mean ± half of the 95 % "
            "t-interval over seeds, last epoch; beside it what choosing the epoch on test would "
            f"have said. p: paired t-test of R@1 against {reference}, Holm-corrected."
        ),
    )


def cores_of(machine: Machine) -> str:
    """What a run without a GPU was done on.

    >>> cores_of(Machine("Abacus", cores=1))
    'a core of Abacus a run'
    """
    count = machine.cores
    return f"{'a core' if count == 1 else f'{count} cores'} of {machine.cpu} a run"


def epochs_of(rows: list[Row], name: str) -> Scores:
    """Seed -> epochs of a method."""
    return {r.recipe.seed: r.recipe.epochs for r in rows if named(r) == name}


def minutes_of(rows: list[Row], name: str) -> Scores:
    """Seed -> minutes of training of a method."""
    trained = [r for r in rows if named(r) == name and r.recipe.epochs]
    return {r.recipe.seed: r.cost.train_seconds / 60 for r in trained if r.cost.train_seconds}


def bars(rows: list[Row], sets: list[str]) -> Bars:
    """R@1 of every method on every data set."""
    found = {data: scores(of(rows, data), named, "recall@1") for data in sets}
    names = [n for n in (UNTRAINED, *METHODS) if any(n in values for values in found.values())]
    return Bars(
        title="R@1 after fine-tuning",
        y="R@1",
        groups=tuple(names),
        series=tuple(sets),
        values=tuple(tuple(mean(found[data].get(name)) for data in sets) for name in names),
        percent=True,
    )


def findings(rows: list[Row], data: str) -> list[str]:
    """Who is best, what training gains, and who is surely behind."""
    found = scores(rows, named, "recall@1")
    bare, trained = mean(found.get(UNTRAINED)), {k: v for k, v in found.items() if k != UNTRAINED}
    if not trained:
        return []
    leader = best(trained)
    top = mean(trained[leader])
    behind = [n for n, d in against(leader, trained).items() if d.p < 0.05]
    gain = f", {100 * (top.mean - bare.mean):.1f} points above no training" if bare and top else ""
    return [
        f"{data}: {leader} has the highest R@1, {100 * top.mean if top else 0:.1f} %{gain}; "
        f"surely behind it: {', '.join(behind) or 'no other method'}."
    ]
