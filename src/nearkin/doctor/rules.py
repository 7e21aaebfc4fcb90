"""The rules: from what was seen of a run, or of a set, to its illnesses.

A rule is a pure function of a `History` or of a `Crowd`. Its limits stand in `LIMITS`; they were
chosen on other runs than those of the zoo (tests/zoo.py), as docs/doctor.md says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite, sqrt
from statistics import fmean, median
from typing import Any

from nearkin.doctor.crowd import Crowd
from nearkin.doctor.history import History, Test
from nearkin.doctor.illness import Diagnosis, diagnosis
from nearkin.doctor.shape import Shape, lift

LIMITS: dict[str, float] = {
    "steps": 30,  # before so many no run is judged by its course
    "spread": 1e-3,  # of a point: variance as a share of squared length, lift below 0.5
    "spread by angle": 5e-3,  # the same of unit embeddings, lift below 0.7
    "spread by chance": 1e-2,  # of a point with a lift below 0.3
    "spread of nothing": 1e-6,  # of a point whatever its neighbours are
    "distances": 0.02,  # of a point: mean distance as a share of that at the start
    "line": 0.95,  # share of the variance in one direction
    "few": 1 / 15,  # directions with 95 % of the variance beyond two, as a share of those possible
    "useless": 0.5,  # lift without the main directions, as a share of the whole lift
    "useless lift": 0.25,  # lift without the main directions, whatever the whole is
    "good": 0.9,  # lift from which on nobody is ill for want of learning
    "wasted": 1 / 8,  # directions with 99 % of the variance, as a share of the dimension
    "wasted whatever": 1 / 12,  # the same, where they are about as many as the classes need, from
    "large": 160,  # so many dimensions on
    "no nearer": 0.25,  # lift below which kin are no nearer than others
    "flat": 0.05,  # drift of the loss over the last half
    "still": 0.01,  # the same, where nobody knows the loss of a collapse
    "level": 0.1,  # distance of the loss from that of a collapse, as a share of it
    "shrunk": 0.1,  # distances as a share of the margin
    "zeros": 0.8,  # share of steps without a loss
    "solved": 0.95,  # lift from which on it is no wonder that the loss is 0
    "unmoved": 0.5,  # share of the proxies
    "unused": 0.75,  # share of the proxies of classes that have several
    "others": 30,  # items of other classes, of fewer no share is judged
    "swallowed": 0.5,  # share of the items of all other classes
    "astray": 100.0,  # the same, where nobody knows the weights
    "risen": 2.0,  # loss at the end over that at the start
    "moved": 0.05,  # change of the weights in one step, as a share of their size
    "lost": 20.0,  # change of the weights since the start, the first step being as large as they
    "far": 5.0,  # change of the weights since the start, with a loss that has risen
    "quite far": 2.0,  # the same with a loss that is ten times that at the start
    "distances moved": 0.05,  # the same of distances, where nobody knows the weights
    "travelled": 0.02,  # change of the weights since the start, as a share of their size
    "fallen": 0.05,  # of the loss, as a share of its start
    "forgotten": 0.08,  # R@1 on new items below its best
    "displaced": 0.5,  # way from a batch's own statistics to running ones, as a share of the spread
    "leaks": 0.005,  # share of the test items, as training items
    "copies": 0.01,  # share of the items
    "decided": 0.2,  # share of the items that lie deep inside a class; of fewer no label is judged
    "wrong": 0.03,  # share of the items that lie deep inside a class
    "whitened": 0.05,  # R@1 once all directions have one variance, above R@1 as it is
    "sure": 3.0,  # standard errors between the two
    "broad": 1 / 4,  # directions that hold 90 % of the variance, as a share of the dimension
}


def ail(history: History) -> list[Diagnosis]:
    """What ails a run, in the order of the rules."""
    found = (rule(history) for rule in RUNS if history.looks or rule is nan)
    return resolved([each for each in found if each])


def of_set(
    crowd: Crowd,
    known: Mapping[str, Any] | None = None,
    rules: tuple[Callable[[Crowd], Diagnosis | None], ...] = (),
) -> list[Diagnosis]:
    """What ails a set of vectors: by the rules of its kind, and by its shape, unless these are of
    inputs."""
    rules = rules or KINDS["vectors"]
    found = [rule(crowd) for rule in rules]
    if rules is not KINDS["inputs"]:
        told = crowd.whitened >= crowd.raw + 0.02  # small directions tell something
        found += [r(crowd.shape, known or {}) for r in SHAPES if not (told and r is wasted)]
    return resolved([each for each in found if each])


def resolved(found: list[Diagnosis]) -> list[Diagnosis]:
    """One of each name, without what another diagnosis explains."""
    by_name = {each.name: each for each in reversed(found)}
    explained = {each for name, those in EXPLAINS.items() if name in by_name for each in those}
    return [each for each in reversed(by_name.values()) if each.name not in explained]


EXPLAINS = {
    "collapse to a point": [
        "collapse to a line",
        "collapse to a few directions",
        "dimension wasted",
        "duplicates",
        "leak between splits",
        "labels that look wrong",
        "learning rate too low",
        "one class swallows others",
    ],
    "collapse to a line": [
        "collapse to a few directions",
        "dimension wasted",
        "one class swallows others",
    ],
    "learning rate too low": ["loss stuck at its margin", "no active pairs"],
    "learning rate too high": ["no active pairs"],
    "features badly scaled": [
        "collapse to a line",
        "collapse to a few directions",
        "dimension wasted",
    ],
}
"""Illness -> those that are nothing but it."""

STEP = 0.05
"""Change of the weights in the first step that a cured learning rate makes."""


# shapes: of a batch, lately, and of a set


def point(shape: Shape, known: Mapping[str, Any]) -> Diagnosis | None:
    limit, by_angle = LIMITS["spread of nothing"], shape.metric == "cosine"
    if shape.lift < (0.7 if by_angle else 0.5):
        limit = LIMITS["spread by angle" if by_angle else "spread"]
    if shape.lift < 0.3:
        limit = LIMITS["spread by chance"]
    if shape.spread >= limit:
        return None
    return diagnosis(
        "collapse to a point",
        f"variance of the embeddings {shape.spread:.1e} of their squared length, below {limit:g}; "
        f"R@1 {percent(shape.recall)}, by chance {percent(shape.chance)}",
        shape.spread,
        limit,
        flags=of_collapse(known),
    )


def line(shape: Shape, known: Mapping[str, Any]) -> Diagnosis | None:
    many = shape.classes >= 4 and shape.dim >= 3 and shape.items >= 8
    useless = not shape.rest >= max(LIMITS["useless lift"], LIMITS["useless"] * shape.lift)
    if not many or shape.first <= LIMITS["line"] or not useless:
        return None
    return diagnosis(
        "collapse to a line",
        f"{percent(shape.first)} of the variance in one direction, above {percent(LIMITS['line'])}"
        f"; without it R@1 is that of chance",
        shape.first,
        LIMITS["line"],
        flags=of_collapse(known),
    )


def few(shape: Shape, known: Mapping[str, Any]) -> Diagnosis | None:
    possible = min(shape.dim, shape.classes - 1, shape.items - 1)
    limit = int(2 + LIMITS["few"] * possible)
    useless = not shape.remainder >= max(LIMITS["useless lift"], LIMITS["useless"] * shape.lift)
    if possible < 8 or shape.directions > limit or not useless or shape.lift >= LIMITS["good"]:
        return None
    return diagnosis(
        "collapse to a few directions",
        f"95 % of the variance in {shape.directions} directions of {possible} that {shape.classes} "
        f"classes could fill, {limit} or fewer; R@1 {percent(shape.recall)}",
        shape.directions,
        limit,
        flags=of_collapse(known),
    )


def wasted(shape: Shape, known: Mapping[str, Any]) -> Diagnosis | None:
    by_classes = shape.needed < 0.5 * (shape.classes - 1)  # which need so many to lie apart
    large = by_classes or shape.dim >= LIMITS["large"]
    limit = LIMITS["wasted" if by_classes else "wasted whatever"] * shape.dim * large
    seen = shape.needed <= (shape.items - 1) / 3  # more could be more in a larger batch
    as_good = shape.enough >= shape.lift - 0.05
    if shape.dim < 16 or shape.needed > limit or not seen or not as_good:
        return None
    dim = max(4, 2 ** (2 * shape.needed - 1).bit_length())
    return diagnosis(
        "dimension wasted",
        f"99 % of the variance in {shape.needed} of {shape.dim} dimensions, {limit:.0f} or fewer, "
        f"which find kin as well as all",
        shape.needed,
        limit,
        flags={"dim": min(dim, shape.dim // 2)},
    )


SHAPES: tuple[Callable[[Shape, Mapping[str, Any]], Diagnosis | None], ...] = (
    point,
    line,
    few,
    wasted,
)


def lately(rule: Callable) -> Callable[[History], Diagnosis | None]:
    """A rule of shapes, held to the late batches: ill is what most of them are."""

    def of_batches(history: History) -> Diagnosis | None:
        if history.steps < LIMITS["steps"]:
            return None
        if rule is wasted and history.whole:  # a test set fills more directions than a batch
            return rule(history.whole, history.known)
        found = [rule(look.shape, history.known) for look in history.late]
        ill = [each for each in found if each]
        return ill[-1] if 2 * len(ill) > len(found) else None

    return of_batches


# runs


def nan(history: History) -> Diagnosis | None:
    born = history.born
    if not born:
        return None
    return diagnosis(
        "NaN",
        f"born in step {born.step}, in {born.tensor}",
        born.step,
        0,
        flags=of_rate(history, most=0.1) if history.grown else {},
    )


def shrunk(history: History) -> Diagnosis | None:
    """A collapse to a point at which directions stay: all distances go to 0."""
    far = history.lately(lambda look: look.shape.far)
    first = history.at_first(lambda look: look.shape.far)
    lift = history.lately(lambda look: look.shape.lift)
    if history.steps < LIMITS["steps"] or not far or not first or lift is None or lift >= 0.5:
        return None
    share = far / first
    if share >= LIMITS["distances"]:
        return None
    return diagnosis(
        "collapse to a point",
        f"distances are {share:.2%} of those at the start, below {LIMITS['distances']:.0%}; lift "
        f"of R@1 {lift:.2f}",
        share,
        LIMITS["distances"],
        flags=of_collapse(history.known),
    )


def suspicious(history: History, shape: Shape) -> bool:
    """Whether embeddings may be all one to the loss: kin are no nearer than others, or all are near
    beside the margin."""
    margin = history.margin or 0.0
    return not shape.lift >= LIMITS["no nearer"] or shape.far < LIMITS["shrunk"] * margin


def stuck(history: History) -> Diagnosis | None:
    looks = [look for look in history.late if suspicious(history, look.shape)]
    if history.steps < LIMITS["steps"] or 2 * len(looks) <= len(history.late) or history.end <= 0:
        return None
    drift = history.drift
    if drift > LIMITS["flat"]:
        return None
    level = history.typical(lambda look: look.level, looks)
    off = abs(history.end - level) / abs(level) if level else None
    if off is None or level is None:
        lift = history.lately(lambda look: look.shape.lift)
        if drift > LIMITS["still"] or lift is None or lift > LIMITS["no nearer"]:
            return None
        said = f"the loss stays at {history.end:.4g} within {drift:.1%}, and R@1 is near "
        said += f"chance, {lift:.2f} of the way to 1, below {LIMITS['no nearer']}"
    else:
        said = f"the loss stays at {history.end:.4g}, {off:.1%} from the {level:.4g} of embeddings "
        said += f"that are all one, below {LIMITS['level']:.0%}"
        if off > LIMITS["level"]:
            return None
    return diagnosis(
        "loss stuck at its margin",
        said,
        drift if off is None else off,
        LIMITS["still"] if off is None else LIMITS["level"],
        flags=of_collapse(history.known),
    )


def inactive(history: History) -> Diagnosis | None:
    late = history.lately(lambda look: look.shape.lift)
    active = history.lately(lambda look: look.active)
    first = history.at_first(lambda look: look.shape.lift)
    silent = history.zeros >= LIMITS["zeros"]
    none = active == 0 and late is not None and first is not None and late < first + 0.05
    none = none and history.drift < LIMITS["flat"]
    if history.steps < LIMITS["steps"] or not (silent or none):
        return None
    if late is not None and late >= (LIMITS["solved"] if silent else LIMITS["good"]):
        return None
    said = (
        f"the loss is 0 in {percent(history.zeros)} of the last steps, above "
        f"{percent(LIMITS['zeros'])}"
        if silent
        else "of the pairs of others none is active"
    )
    right = "no item has kin in its batch" if late is None else f"lift of R@1 only {late:.2f}"
    flags: dict[str, Any] = {}
    if history.known.get("sampler") == "random" and (late is None or silent):
        flags = {"sampler": "classes"}
    return diagnosis(
        "no active pairs", f"{said}; {right}", history.zeros, LIMITS["zeros"], flags=flags
    )


def idle(history: History) -> Diagnosis | None:
    if history.steps < LIMITS["steps"]:
        return None
    unmoved = history.typical(lambda look: look.unmoved, history.looks[-1:])
    unused = history.typical(lambda look: look.unused, history.looks[-1:])
    if unmoved is not None and unmoved >= LIMITS["unmoved"]:
        return diagnosis(
            "idle proxies",
            f"{percent(unmoved)} of the proxies are where they started, above "
            f"{percent(LIMITS['unmoved'])}",
            unmoved,
            LIMITS["unmoved"],
            flags={"loss_lr": 0.0} if history.known.get("loss_lr") else {},
        )
    if unused is not None and unused >= LIMITS["unused"]:
        return diagnosis(
            "idle proxies",
            f"{percent(unused)} of the proxies are nearest to no item of their class, above "
            f"{percent(LIMITS['unused'])}",
            unused,
            LIMITS["unused"],
        )
    return None


def swallows(history: History) -> Diagnosis | None:
    enough = history.steps >= LIMITS["steps"] and history.others >= LIMITS["others"]
    if not enough or history.looks[-1].shape.classes < 3:
        return None
    return swallowed(history.swallower, history.swallowed)


def swallowed(kind: int, share: float) -> Diagnosis | None:
    if share < LIMITS["swallowed"]:
        return None
    return diagnosis(
        "one class swallows others",
        f"class {kind} is nearest to {percent(share)} of the items of all others, above "
        f"{percent(LIMITS['swallowed'])}",
        share,
        LIMITS["swallowed"],
        flags={"sampler": "classes"},
    )


def too_high(history: History) -> Diagnosis | None:
    if len(history.losses) < 2:
        return None
    start, end = history.start, history.end
    late = history.lately(lambda look: look.shape.lift)
    first = history.at_first(lambda look: look.shape.lift)
    moved = history.lately(lambda look: look.moved)
    flags = of_rate(history, most=0.1)
    travelled = history.looks[-1].travelled if history.looks else None
    risen = end / start if start > 0 else 0.0
    far = travelled is not None and travelled > LIMITS["far" if risen < 10 else "quite far"]
    astray = travelled is None and risen > LIMITS["astray"]
    poor = late is None or late < 0.5 or (first is not None and late < first - 0.1)
    if history.steps >= LIMITS["steps"] or history.born:
        if risen > LIMITS["risen"] and (poor or far or astray or history.born):
            return diagnosis(
                "learning rate too high",
                f"the loss has risen from {start:.4g} to {end:.4g}, above {LIMITS['risen']:g} times"
                " its start",
                end / start,
                LIMITS["risen"],
                flags=flags,
            )
        jumped = history.at_first(lambda look: look.moved)
        if jumped and travelled and jumped > 1 and travelled > LIMITS["lost"]:
            return diagnosis(
                "learning rate too high",
                f"the first steps changed weights by {percent(jumped)} of their size, all steps "
                f"together by {travelled:.3g} times it, above {LIMITS['lost']:g}",
                travelled,
                LIMITS["lost"],
                flags=flags,
            )
        stands = end > 0.9 * start or (late is not None and first is not None and late <= first)
        if moved is not None and moved > LIMITS["moved"] and poor and stands:
            return diagnosis(
                "learning rate too high",
                f"one step changes weights by {percent(moved)} of their size, above "
                f"{percent(LIMITS['moved'])}, and nothing is learnt",
                moved,
                LIMITS["moved"],
                flags=flags,
            )
    return None


def too_low(history: History) -> Diagnosis | None:
    if history.steps < LIMITS["steps"] or history.born:
        return None
    late = history.lately(lambda look: look.shape.lift)
    first = history.at_first(lambda look: look.shape.lift)
    travelled = history.looks[-1].travelled
    start, end = fmean(history.losses[: max(5, len(history.losses) // 5)]), history.end
    fallen = (start - end) / max(abs(start), 1e-30)
    if late is None or first is None or late >= LIMITS["good"] or history.zeros > 0:
        return None
    if abs(fallen) > LIMITS["fallen"] or late > first + 0.1:
        return None
    if travelled is None:
        spread = history.lately(lambda look: look.shape.far)
        before = history.at_first(lambda look: look.shape.far)
        changed = abs((spread or 0) / (before or 1) - 1)
        if changed > LIMITS["distances moved"]:
            return None
        said = f"distances have changed by {percent(changed)}"
    else:
        if travelled > LIMITS["travelled"]:
            return None
        said = f"weights have changed by {travelled:.2%}"
    return diagnosis(
        "learning rate too low",
        f"in {history.steps:,} steps {said} of their size, below {percent(LIMITS['travelled'])}, "
        f"and the loss has fallen by {fallen:.1%}",
        changed if travelled is None else travelled,
        LIMITS["travelled"],
        flags=of_rate(history, least=10),
    )


def best_test(tests: Sequence[Test]) -> Test:
    """The best test: that before training, or the third best of five or more, so that luck of a
    single one is no fall of those after it."""
    ranked = sorted(tests, key=lambda test: -test.recall)
    best = ranked[2 if len(tests) > 4 else 0]
    return max([best, *(test for test in tests if test.step == 0)], key=lambda t: t.recall)


def memorised(history: History) -> Diagnosis | None:
    late = history.lately(lambda look: look.shape.lift)
    first = history.at_first(lambda look: look.shape.lift)
    if not history.tests or late is None or first is None:
        return None
    last, best = history.tests[-1], best_test(history.tests)
    doubt = 3 * sqrt(max(best.recall * (1 - best.recall), 1e-9) / last.items)
    limit = max(LIMITS["forgotten"], doubt)
    if late < LIMITS["good"]:  # not learnt by heart, but at the expense of new classes
        limit *= 2 if late > first + 0.2 else inf
    fall = best.recall - last.recall
    by_chance = lift(last.recall, last.chance) < 0.1 and last.chance > 0 and late >= LIMITS["good"]
    if not by_chance and fall < limit:
        return None
    said = (
        f"R@1 of new items is {percent(last.recall)}, near chance"
        if by_chance
        else f"R@1 of new items has fallen from {percent(best.recall)} in step {best.step:,} to "
        f"{percent(last.recall)}, by more than {percent(limit)}"
    )
    return diagnosis(
        "training classes memorised",
        f"{said}; lift in training batches {late:.2f}",
        fall,
        limit,
        flags=of_memory(history.known, best.step / max(last.step, 1)),
    )


def fooled(history: History) -> Diagnosis | None:
    seen = [look.displaced for look in history.looks if look.displaced is not None]
    if len(seen) < 2 or history.steps < LIMITS["steps"]:
        return None
    moved = median(seen[-max(3, len(seen) // 2) :])
    if moved < LIMITS["displaced"]:
        return None
    return diagnosis(
        "batch norm fooled by the batch",
        f"running statistics in place of its own move the embeddings of a batch by "
        f"{percent(moved)} of their spread, above {percent(LIMITS['displaced'])}",
        moved,
        LIMITS["displaced"],
        flags={"batch": 4 * history.known["batch"]} if history.known.get("batch") else {},
    )


RUNS: tuple[Callable[[History], Diagnosis | None], ...] = (
    nan,
    *(lately(rule) for rule in SHAPES),
    shrunk,
    stuck,
    inactive,
    idle,
    swallows,
    too_high,
    too_low,
    memorised,
    fooled,
)


# sets


def leak(crowd: Crowd) -> Diagnosis | None:
    share = len(crowd.leaks) / max(crowd.tests, 1)
    if share < LIMITS["leaks"] or len(crowd.leaks) < 2:
        return None
    return diagnosis(
        "leak between splits",
        f"{len(crowd.leaks):,} training items stand in the test set of {crowd.tests:,}, whole or "
        f"nearly: {percent(share)}, above {percent(LIMITS['leaks'])}",
        share,
        LIMITS["leaks"],
        items=crowd.leaks,
    )


def duplicates(crowd: Crowd) -> Diagnosis | None:
    share = len(crowd.copies) / crowd.items
    if share < LIMITS["copies"] or len(crowd.copies) < 2:
        return None
    return diagnosis(
        "duplicates",
        f"{len(crowd.copies):,} of {crowd.items:,} items are nearly another: {percent(share)}, "
        f"above {percent(LIMITS['copies'])}",
        share,
        LIMITS["copies"],
        items=crowd.copies,
    )


def labels(crowd: Crowd) -> Diagnosis | None:
    count = len(crowd.wrong)
    share = count / max(crowd.decided, 1)
    sure = count - 1.5 * sqrt(count) >= LIMITS["wrong"] * crowd.decided
    if not sure or crowd.decided < LIMITS["decided"] * crowd.items:
        return None
    return diagnosis(
        "labels that look wrong",
        f"of {crowd.decided:,} items deep inside a class {len(crowd.wrong):,} have the label of "
        f"another: {percent(share)}, above {percent(LIMITS['wrong'])}",
        share,
        LIMITS["wrong"],
        items=crowd.wrong,
    )


def scaled(crowd: Crowd) -> Diagnosis | None:
    limit, gain = LIMITS["whitened"], crowd.whitened - crowd.raw
    narrow = crowd.broad <= max(1, LIMITS["broad"] * crowd.shape.dim)
    if not narrow or gain < limit or crowd.sure < LIMITS["sure"]:
        return None
    return diagnosis(
        "features badly scaled",
        f"R@1 {percent(crowd.raw)} as they are, {percent(crowd.whitened)} once all directions have "
        f"one variance: {percent(limit)} or more above; 90 % of the variance lies in {crowd.broad} "
        f"of {crowd.shape.dim} directions",
        gain,
        limit,
        flags={"head_start": "whitened"},
    )


def swallowing_set(crowd: Crowd) -> Diagnosis | None:
    if crowd.shape.classes < 3 or crowd.others < LIMITS["others"]:
        return None
    return swallowed(crowd.swallower, crowd.swallowed)


KINDS: dict[str, tuple[Callable[[Crowd], Diagnosis | None], ...]] = {
    "vectors": (leak, duplicates, labels, scaled, swallowing_set),
    "inputs": (leak, duplicates, labels, scaled),
    "embeddings": (leak, duplicates, labels, swallowing_set),
}
"""Kind of a set -> its rules."""


# words


def percent(share: float) -> str:
    """A share in percent, with as many digits as it needs."""
    return f"{100 * share:.3g} %"


def of_rate(history: History, most: float = 0.0, least: float = 0.0) -> dict[str, Any]:
    """The learning rate by which the first step would change the weights by a hundredth of their
    size; at most, or at least, this many times that of the run."""
    lr = history.known.get("lr")
    if not lr:
        return {}
    moved = history.looks[0].moved if history.looks else None
    factor = STEP / moved if moved and isfinite(moved) else most or 3 * least
    factor = min(factor, most) if most else max(factor, least)
    return {"lr": float(f"{lr * factor:.0e}")}


def of_memory(known: Mapping[str, Any], share: float) -> dict[str, Any]:
    """The cure of memorised classes: fewer epochs, where new items did best after this share of
    them; where that was at the very start, smaller steps."""
    if known.get("epochs") and share * known["epochs"] >= 1:
        return {"epochs": round(share * known["epochs"])}
    return {"lr": known["lr"] / 30} if known.get("lr") else {}


def of_collapse(known: Mapping[str, Any]) -> dict[str, Any]:
    """The cure of a collapse, from the settings that are known to bring it."""
    if known.get("miner"):
        return {"miner": ""}
    options = dict(known.get("loss_options") or {})
    if options.get("form") == "printed":
        return {"loss_options": {**options, "form": "right"}}
    if known.get("weight_decay", 0) > 1e-3:
        return {"weight_decay": 0.0}
    layers = dict(known.get("backbone_options") or {})
    if 0 < layers.get("hidden", 0) < known.get("dim", 0):
        return {"backbone_options": {**layers, "hidden": 0}}
    for name in ("margin", "neg_margin"):
        if 0 <= options.get(name, 1) < 0.1:
            return {"loss_options": {**options, name: 1.0}}
    return {"lr": known["lr"] / 10} if known.get("lr") else {}
