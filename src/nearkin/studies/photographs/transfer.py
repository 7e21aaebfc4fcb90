"""Transfer: what a metric that was learnt on one data set is worth on another."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import permutations, product
from typing import Any

from nearkin.answers import Answer, Finding, Matrix, Table
from nearkin.data.terms import spoken
from nearkin.measure.statistics import Difference, Estimate, estimate, paired
from nearkin.runs.recipe import DEFAULTS, Recipe
from nearkin.studies.photographs.fine_tuning import photographs, untrained
from nearkin.studies.shared import comparison, controls, over_forms, sentences
from nearkin.studies.shared.comparison import Comparison
from nearkin.studies.shared.methods import BARE, FEW, METHODS, UNTRAINED, picked, under
from nearkin.studies.shared.reading import Scores, against, mean, scores, where
from nearkin.studies.shared.sets import CARS, CUB, OMNIGLOT
from nearkin.studies.shared.tuning import (
    ORTHOGONAL,
    SETTLED,
    WHITENED,
    common,
    settle,
    started,
    trials,
    whitens,
)
from nearkin.studies.shared.words import SPREAD, p_said, p_value, points, shortened, undecided
from nearkin.studies.study import Case, Recipes, Rows, Study

TITLE = "Transfer"
QUESTION = (
    "How much of a learnt metric carries over to another data set? Each network is trained (1) on "
    "the target; (2) on the source, then, with a new last layer, on the target; (3) the same with "
    "all but the last layer frozen. Zero-shot takes the source's network as it is. Which method "
    "loses least from (1) to (3)?"
)

TARGET, TUNED, FROZEN, ZERO_SHOT = "(1) target", "(2) fine-tuned", "(3) frozen", "zero-shot"
AFTER_SOURCE = (TUNED, FROZEN, ZERO_SHOT)
SPOKEN = {
    TARGET: "when trained on the target",
    TUNED: "when fine-tuned",
    FROZEN: "with a frozen trunk",
    ZERO_SHOT: "zero-shot",
}
"""Protocol -> the same within a sentence."""
drop = partial(points, sign="")
"""A loss of shares in points."""


def base(data: str, epochs: int, start: str = ORTHOGONAL) -> Recipe:
    """What all methods share on a data set: two layers on features, else a pretrained network."""
    if data.startswith("features:"):  # 1,280 x 1,280 weights: quicker in bf16, as good
        shared = common(data, epochs or (4 if whitens(data, start) else 8))
        return replace(shared, backbone="mlp", evaluate_every=4, precision="bf16")
    return photographs(data, epochs)


def settings(data: str, epochs: int, methods: str, start: str) -> dict[tuple[str, str], Recipe]:
    """(method, data set) -> recipe, its settings not chosen yet."""
    return {
        (name, target): started(recipe, start)
        for target in data.split(",")
        for name, recipe in under(base(target, epochs, start), methods).items()
    }


def search(
    data: str = f"{CUB},{CARS},{OMNIGLOT}",
    epochs: int = 0,
    methods: str = FEW,
    tune: bool = True,
    start: str = WHITENED,
) -> Recipes:
    """The trials of every method on every data set."""
    found: Recipes = {}
    for target in data.split(",") if tune else ():
        found |= controls.search(target, start, axes={"target": target})
    for (name, target), recipe in settings(data, epochs, methods, start).items():
        found |= trials(name, recipe, target=target) if tune else {}
    return found


def recipes(
    data: str = f"{CUB},{CARS},{OMNIGLOT}",
    seeds: int = 5,
    epochs: int = 0,
    methods: str = FEW,
    tune: bool = True,
    start: str = WHITENED,
    searched: Rows | None = None,
) -> Recipes:
    """Every method, seed, data set and pair of data sets, by every protocol.

    Args:
        data: the data sets, separated by commas: all stored features of one backbone
            (`nearkin embed` makes them), or all pictures.
        seeds: how many, from 0.
        epochs: the most that a run may take; 0 takes the common number.
        methods: names separated by commas, or all.
        tune: whether settings are searched; otherwise the common ones are taken.
        start: how both layers on features start: whitened or orthogonal.
        searched: the rows of `search`.
    """
    names = data.split(",")
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise ValueError(f"transfer wanted two different data sets or more, got {data}")
    if len({name.startswith("features:") for name in names}) > 1:
        raise ValueError(f"transfer goes between features, or between pictures; got {data}")
    settled = {
        (name, target): settle(recipe, searched, name, target=target)
        for (name, target), recipe in settings(data, epochs, methods, start).items()
    }
    short, runs = shortened(names), {}
    for name in names:
        bare = base(name, epochs)
        bare = replace(bare, **BARE) if bare.backbone == "mlp" else untrained(bare)
        at: dict[str, Any] = {"protocol": TARGET, "target": short[name]}
        runs[Case(UNTRAINED, **at)] = bare
        runs |= controls.recipes(name, start, searched, axes=at, of_trials={"target": name})
    for seed, method in product(range(seeds), picked(methods)):
        own = {name: replace(settled[method, name], seed=seed) for name in names}
        for target, recipe in own.items():
            runs[Case(method, seed, protocol=TARGET, target=short[target])] = recipe
        for source, target in permutations(names, 2):
            pair = {"source": short[source], "target": short[target]}
            for protocol, recipe in after(own[source], own[target]).items():
                runs[Case(method, seed, protocol=protocol, **pair)] = recipe
    return runs


def after(source: Recipe, target: Recipe) -> dict[str, Recipe]:
    """Fine-tuned, frozen and zero-shot, by a recipe of the source and one of the target."""
    tuned = replace(target, start=source.hash)
    as_it_is = {field: DEFAULTS[field] for field in SETTLED if field.startswith("head_")}
    return {
        TUNED: tuned,
        FROZEN: replace(tuned, freeze=True),
        ZERO_SHOT: replace(tuned, **as_it_is, loss_start=DEFAULTS["loss_start"], epochs=0),
    }


Key = tuple[str, str, str, str]
"""Method, protocol, source ("" where there is none), target."""


def key_of(case: Case) -> Key:
    """What scores are gathered by."""
    return case.method, case["protocol"], case.get("source", ""), case["target"]


def named(case: Case) -> Case:
    """The case with its data sets as a person calls them.

    >>> named(Case("margin", 1, target="CUB_200_2011", protocol="frozen")).label
    'margin, protocol frozen, target CUB birds'
    """
    sets: dict[str, Any] = {
        axis: spoken(value) for axis, value in case.axes if axis in ("source", "target")
    }
    return Case(**(case.plain() | sets))


def answer(rows: Rows) -> Answer:
    """A table for each pair, a matrix of every method, and what is lost from (1) to (3)."""
    rows = {named(case): row for case, row in rows.items()}
    found = scores(rows, "recall@1", by=key_of)
    pairs = list(dict.fromkeys((s, t) for _, _, s, t in found if s))
    names = [name for name in METHODS if any(key[0] == name for key in found)]
    compared = [compare(found, names, pairs, protocol) for protocol in (TARGET, *AFTER_SOURCE)]
    targets = dict.fromkeys(target for _, target in pairs)
    on_target = {t: where(rows, protocol=TARGET, target=t) for t in targets}
    title = f"R@1 by protocol, mean of {len(pairs)} pairs of data sets"
    return Answer(
        title=TITLE,
        question=QUESTION,
        summary=tuple(summary(found, names, pairs, compared)),
        findings=(
            *kept_best(found, names, pairs),
            *(finding for one in compared[2:] for finding in sentences.findings(one)),
            *findings(found, names, pairs),
            *(f for name, own in on_target.items() for f in over_forms.findings(own, f"on {name}")),
        ),
        tables=(
            comparison.standings(compared, title, f"{SPREAD}."),
            *(table(rows, found, names, *pair) for pair in pairs),
            *(t for name, own in on_target.items() for t in over_forms.tables(own, name)),
        ),
        figures=(
            comparison.picture(compared, title),
            losses(found, names, pairs),
            *(matrix(found, name, pairs) for name in names),
        ),
    )


def over_pairs(
    found: dict[Key, Scores], name: str, pairs: list[tuple[str, str]], protocol: str
) -> Scores:
    """Seed -> the mean over all pairs of data sets, of the seeds that have them all."""
    keys = [
        (name, protocol, "" if protocol == TARGET else source, target) for source, target in pairs
    ]
    each = [found.get(key, {}) for key in keys]
    seeds = set.intersection(*(set(one) for one in each)) if each else set()
    return {seed: sum(one[seed] for one in each) / len(each) for seed in sorted(seeds)}


def compare(
    found: dict[Key, Scores], names: list[str], pairs: list[tuple[str, str]], protocol: str
) -> Comparison:
    """The methods by one protocol, in the mean of all pairs."""
    means = {name: over_pairs(found, name, pairs, protocol) for name in names}
    beside = {name: over_pairs(found, name, pairs, TARGET) for name in controls.BESIDE}
    return Comparison(
        "R@1",
        {name: values for name, values in means.items() if values},
        {name: values for name, values in beside.items() if values},
        protocol,
        SPOKEN[protocol],
    )


def mean_losses(
    found: dict[Key, Scores], names: list[str], pairs: list[tuple[str, str]]
) -> dict[str, Scores]:
    """Method -> seed -> what it loses from (1) to (3), in the mean of all pairs."""
    lost = {}
    for name in names:
        first, third = (over_pairs(found, name, pairs, p) for p in (TARGET, FROZEN))
        if seeds := first.keys() & third.keys():
            lost[name] = {seed: first[seed] - third[seed] for seed in sorted(seeds)}
    return lost


def kept_best(
    found: dict[Key, Scores], names: list[str], pairs: list[tuple[str, str]]
) -> list[Finding]:
    """Which method loses least from (1) to (3), and of whom that is sure."""
    lost = mean_losses(found, names, pairs)
    if len(lost) < 2:
        return []
    means = {name: estimate(values.values()).mean for name, values in lost.items()}
    least, *_, most = sorted(means, key=means.__getitem__)
    others = against(least, lost)
    sure = sentences.strength(others.values())
    unsure = undecided(others)
    text = (
        f"In the mean of {len(pairs)} pairs, a frozen trunk from the source costs from "
        f"{drop(means[least])} of R@1 with {least} to {drop(means[most])} with {most}, against "
        f"training on the target; {least} loses least, "
    )
    doubt = f"but {unsure}" if unsure else "and every other surely loses more"
    return [Finding(f"{text}{doubt}.", *sure)]


def summary(
    found: dict[Key, Scores],
    names: list[str],
    pairs: list[tuple[str, str]],
    compared: list[Comparison],
) -> list[str]:
    """What a frozen trunk costs, which method keeps most, and what zero-shot is worth."""
    lost = mean_losses(found, names, pairs)
    if not lost:
        return ["No pair of data sets is finished by any method."]
    means = {name: estimate(values.values()).mean for name, values in lost.items()}
    least = min(means, key=means.__getitem__)
    others = against(least, lost)
    unsure = undecided(others) if others else ""
    lines = [
        f"A frozen trunk that another data set has trained costs {drop(min(means.values()))} of "
        f"R@1 with {least}, which loses least" + (f", though {unsure}." if unsure else ".")
    ]
    if compared[2].scores:
        lines.append(sentences.lead(compared[2]))
    shot = compared[-1]
    if shot.scores and UNTRAINED in shot.beside:
        gain = shot.over(shot.leader, UNTRAINED).estimate.mean
        way = "more" if gain > 0 else "less"
        lines.append(
            f"Zero-shot, without any training on the target, {shot.leader} has {drop(abs(gain))} "
            f"{way} than the features as they are."
        )
    return lines


def lost(found: dict[Key, Scores], name: str, source: str, target: str) -> Difference | None:
    """(1) minus (3), paired over seeds; None where one of them is missing."""
    first, third = found.get((name, TARGET, "", target)), found.get((name, FROZEN, source, target))
    return paired(first, third) if first and third else None


def table(
    rows: Rows, found: dict[Key, Scores], names: list[str], source: str, target: str
) -> Table:
    """One pair: every method by every protocol."""
    variants = {case["target"]: row.data.variant for case, row in rows.items()}
    bare = {n: e for n in controls.BESIDE if (e := mean(found.get((n, TARGET, "", target))))}
    lines = []
    for name in names:
        loss = lost(found, name, source, target)
        lines.append(
            (
                name,
                mean(found.get((name, TARGET, "", target))),
                *(mean(found.get((name, p, source, target))) for p in AFTER_SOURCE),
                loss and loss.estimate,
                p_value(loss),
            )
        )
    return Table(
        title=f"{source} to {target}, R@1",
        columns=("method", TARGET, *AFTER_SOURCE, "(1) - (3)", "p"),
        rows=(*((n, e, None, None, None, None, "") for n, e in bare.items()), *lines),
        percent=(TARGET, *AFTER_SOURCE),
        points=("(1) - (3)",),
        best=(TARGET, *AFTER_SOURCE),
        lowest=("(1) - (3)",),
        note=(
            f"{source}: {variants[source]}; {target}: {variants[target]}. {SPREAD}. "
            "p: paired t-test of (1) against (3)."
        ),
    )


def losses(found: dict[Key, Scores], names: list[str], pairs: list[tuple[str, str]]) -> Matrix:
    """What every method loses from (1) to (3) on every pair."""

    def cell(pair: tuple[str, str], name: str) -> Estimate | None:
        loss = lost(found, name, *pair)
        return loss and loss.estimate

    return Matrix(
        title="R@1 lost from training on the target (1) to a frozen trunk from the source (3)",
        rows=tuple(f"{source} to {target}" for source, target in pairs),
        columns=tuple(names),
        values=tuple(tuple(cell(pair, name) for name in names) for pair in pairs),
        x="method",
        y="source and target",
        percent=True,
    )


def matrix(found: dict[Key, Scores], name: str, pairs: list[tuple[str, str]]) -> Matrix:
    """One method: from where, and how, against the target."""
    targets = list(dict.fromkeys(source for source, _ in pairs))
    origins = [(TARGET, "")] + [(p, source) for p in AFTER_SOURCE for source in targets]
    return Matrix(
        title=f"{name}: R@1 by what was trained, and on what",
        rows=tuple(f"{p} from {source}" if source else p for p, source in origins),
        columns=tuple(targets),
        values=tuple(
            tuple(mean(found.get((name, p, source, target))) for target in targets)
            for p, source in origins
        ),
        x="target",
        y="protocol and source",
        percent=True,
    )


def findings(
    found: dict[Key, Scores], names: list[str], pairs: list[tuple[str, str]]
) -> list[Finding]:
    """What each pair loses from (1) to (3), and where zero-shot is worth anything."""
    lines, gained = [], []
    for source, target in pairs:
        losses = {n: loss for n in names if (loss := lost(found, n, source, target))}
        if not losses:
            continue
        least, *others = sorted(losses, key=lambda n: losses[n].estimate.mean)
        ends = [f"{loss_words(losses[n])} with {n}" for n in (least, *others[-1:])]
        costs = f"{'from ' if others else ''}{' to '.join(ends)}"
        text = f"From {source} to {target}, a frozen trunk costs R@1 {costs}."
        lines.append(Finding(text, *sentences.strength(losses.values())))
        bare = mean(found.get((UNTRAINED, TARGET, "", target)))
        shots = {n: mean(found.get((n, ZERO_SHOT, source, target))) for n in names}
        sure = {n: shot for n, shot in shots.items() if shot and shot.n > 2}
        better = [n for n, shot in sure.items() if bare and shot.low > bare.mean]
        gained += [f"from {source} to {target} by {', '.join(better)}"] if better else []
    text = "Zero-shot is surely better than no training (95 % intervals) "
    return [*lines, Finding(f"{text}{'; '.join(gained) or 'on no pair and by no method'}.")]


def loss_words(loss: Difference) -> str:
    """A loss in points, with its p where there are seeds to tell."""
    size = drop(loss.estimate.mean)
    return f"{size} ({p_said(loss.p)})" if loss.estimate.n > 1 else size


STUDY = Study(TITLE, QUESTION, answer, recipes, search)
