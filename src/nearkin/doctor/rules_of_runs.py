"""The rules of runs: from the course of a run to its illnesses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, sqrt
from statistics import fmean, median
from typing import Any

from nearkin.doctor.history import History, Test
from nearkin.doctor.illness import Diagnosis, diagnosis
from nearkin.doctor.limits import LIMITS, percent
from nearkin.doctor.remedies import of_collapse, of_memory, of_rate
from nearkin.doctor.rules_of_sets import swallowed
from nearkin.doctor.rules_of_shapes import SHAPES, wasted
from nearkin.doctor.shape import Shape, lift


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
