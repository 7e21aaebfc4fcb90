"""The sentences of a page, by rule: who leads, who cannot be told from whom, what each change does.

The same rules for every study, so that no page claims more than its tests do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from nearkin.answers import Finding
from nearkin.measure.statistics import Difference
from nearkin.studies.shared.comparison import Comparison
from nearkin.studies.shared.controls import FORMS
from nearkin.studies.shared.reading import against
from nearkin.studies.shared.words import (
    NAMED,
    SURE,
    behind_words,
    difference_words,
    leader_words,
    listed,
    p_value,
    points,
    surely,
    undecided,
)


def begun(text: str) -> str:
    """The text with a large first letter.

    >>> begun("no training"), begun("ProxyGML")
    ('No training', 'ProxyGML')
    """
    return text[:1].upper() + text[1:]


def place_words(one: Comparison) -> str:
    """Where a comparison is made, within a sentence."""
    return one.spoken or (f"at {one.place}" if one.place else "")


def at(place: str, text: str) -> str:
    """A sentence that begins with its place, if it has one.

    >>> at("at 64-D", "no loss is best."), at("", "no loss is best.")
    ('At 64-D, no loss is best.', 'No loss is best.')
    """
    return f"{begun(place)}, {text}" if place else begun(text)


def findings(comparison: Comparison) -> list[Finding]:
    """Who leads, and from whom that is sure; what training gains; and how the reference stands."""
    one = comparison
    if not one.scores:
        return []
    others = against(one.leader, one.scores)
    text = leader_words(one.scores, one.unit, one.digits)
    sure = [d for d in others.values() if d.p < SURE]
    p = min((d.p for d in sure), default=1.0)
    for name in one.beside:
        if name in FORMS:  # whose p is over test classes too: over_forms.py
            continue
        gain = one.over(one.leader, name)
        text += f" {begun(name)} has {one.level(name)}, {behind_words(gain)}."
    size = max((abs(d.estimate.mean) for d in sure), default=0.0)
    found = [Finding(at(place_words(one), text), p, size, one.place)]
    if one.reference in one.scores and one.reference != one.leader and len(one.scores) > 2:
        found.append(of_reference(one))
    return found


def of_reference(comparison: Comparison) -> Finding:
    """Which methods are surely better than the reference, and which surely worse."""
    name, differ = comparison.reference, against(comparison.reference, comparison.scores)
    text = f"{name} has {comparison.score(name)}."
    for sign, word in ((1, "better"), (-1, "worse")):
        those = {n: differ[n] for n in surely(differ, sign)}
        text += f" {surely_words(those, word)}." if those else f" None is surely {word}."
    level = [n for n, d in differ.items() if d.p >= SURE]
    if level:
        text += f" {begun(listed(level, len(differ)))} cannot be told from it."
    p, size = strength(differ.values())
    return Finding(at(place_words(comparison), text), p, size, comparison.place)


def surely_words(those: Mapping[str, Difference], word: str) -> str:
    """Who is surely so, with the largest differences."""
    return f"Surely {word} {'is' if len(those) == 1 else 'are'} {largest(those)}"


def differences_found(
    differ: Mapping[str, Difference], than: str, metric: str = "R@1", place: str = ""
) -> list[Finding]:
    """Methods against one: those surely better, those surely worse, and those that cannot be told
    from it, each as one sentence.

    place: where they are compared, within a sentence: "at 64-D".
    """
    found = []
    for sign, word in ((1, "better"), (-1, "worse")):
        those = {name: differ[name] for name in surely(differ, sign)}
        if those:
            verb = "is" if len(those) == 1 else "are"
            text = f"surely {word} than {than} in {metric} {verb} {largest(those)}."
            found.append(Finding(at(place, text), *strength(those.values()), place))
    level = {n: d for n, d in differ.items() if d.p >= SURE}
    if not level:
        return found
    if max(d.estimate.n for d in level.values()) < 2:
        text = f"one seed cannot tell any method from {than}."
        return [*found, Finding(at(place, text), group=place)]
    names = listed(list(level), len(differ))
    if len(level) == 1:
        text = f"{names} cannot be told from {than}: {difference_words(next(iter(level.values())))}"
    else:
        text = f"{names} cannot be told from {than}: they lie {span(level.values())} from it, "
        text += f"p ≥ {p_value(min(level.values(), key=lambda d: d.p))}"
    if len(level) == len(differ) > NAMED:
        text = text.replace(f"{names} cannot", f"none of the {len(level)} others can", 1)
    return [*found, Finding(at(place, f"{text}."), group=place)]


def changes_found(
    differ: Mapping[str, Difference], given: str, metric: str = "R@1"
) -> list[Finding]:
    """What each of several changes does: where that is sure, and where not.

    given: what is changed, as a sentence begins: "with the edge loss".
    """
    if not differ:
        return []
    sure = {name: d for name, d in differ.items() if d.p < SURE}
    level = {name: d for name, d in differ.items() if d.p >= SURE}
    parts = [f"{metric} surely changes for {largest(sure)}."] if sure else []
    if level:
        few = len(level) <= NAMED
        where = f" for {listed(list(level)) if few else f'the {len(level)} others'}"
        where = where if few or sure else ""
        least = p_value(min(level.values(), key=lambda d: d.p))
        doubt = f"cannot be told from none (p {'=' if len(level) == 1 else '≥'} {least})"
        if max(d.estimate.n for d in level.values()) < 2:
            doubt = "one seed cannot tell from none"
        text = f"changes{where} by {span(level.values())}, which {doubt}."
        parts.append(f"It {text}" if sure else f"{metric} {text}")
    return [Finding(at(given, " ".join(parts)), *strength(sure.values()))]


def versus(differ: Mapping[str, Difference], than: str, others: str = "others") -> str:
    """How some methods, the `others`, stand to one, in a sentence without p.

    >>> from nearkin.measure.statistics import paired
    >>> a, b = (paired({0: x, 1: x + 0.01}, {0: 0.5, 1: 0.511}) for x in (0.6, 0.5))
    >>> versus({"b": b}, "a"), versus(dict.fromkeys("bcdef", b), "a")
    ('B cannot be told from a.', 'None of the 5 others can be told from a.')
    >>> versus({"b": a, "c": b}, "a")
    'Against a, b is better; c cannot be told apart.'
    """
    better, worse = (surely(differ, sign) for sign in (1, -1))
    level = [name for name in differ if name not in better and name not in worse]
    parts = [
        f"{named(names, differ)} {'is' if len(names) == 1 else 'are'} {word}"
        for names, word in ((better, "better"), (worse, "worse"))
        if names
    ]
    if not parts:
        if len(level) > NAMED:
            return f"None of the {len(level)} {others} can be told from {than}."
        return f"{begun(named(level, differ))} cannot be told from {than}."
    if level:
        unsure = f"{named(level, differ)} cannot be told apart"
        return f"Against {than}, {' and '.join(parts)}; {unsure}."
    return f"{begun(' and '.join(parts))} than {than}."


def named(names: Sequence[str], differ: Collection[str]) -> str:
    """Some of the methods, by name or by number.

    >>> named(["a", "b"], "abc"), named(list("abcd"), "abcdef"), named(list("abcd"), "abcd")
    ('a and b', '4 of the 6 others', 'all 4 others')
    """
    return listed(list(names), len(differ))


def largest(differ: Mapping[str, Difference]) -> str:
    """The largest differences with their p, and how many more there are.

    >>> from nearkin.measure.statistics import paired
    >>> a = paired({0: 0.61, 1: 0.62, 2: 0.63}, {0: 0.5, 1: 0.52, 2: 0.51})
    >>> largest({"margin": a})
    'margin, +11.0 points (p = 0.003)'
    """
    names = sorted(differ, key=lambda name: -abs(differ[name].estimate.mean))
    shown = "; ".join(f"{name}, {difference_words(differ[name])}" for name in names[:NAMED])
    more = len(names) - NAMED
    return f"{shown}; and {more} more" if more > 0 else shown


def span(differ: Collection[Difference]) -> str:
    """From the lowest to the highest of some differences."""
    ends = [d.estimate.mean for d in differ]
    low, high = points(min(ends)), points(max(ends))
    return low if low == high else f"{low.removesuffix(' points')} to {high}"


def strength(differ: Collection[Difference]) -> tuple[float, float]:
    """The least p and the largest size of those that are sure."""
    sure = [d for d in differ if d.p < SURE]
    return (
        min((d.p for d in sure), default=1.0),
        max((abs(d.estimate.mean) for d in sure), default=0.0),
    )


def summary(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """The last comparison in three sentences without p: who leads, how the reference stands or who
    leads elsewhere, and what training gains."""
    found = [one for one in comparisons if one.scores]
    if not found:
        return ("No run that could be compared has finished.",)
    one = found[-1]
    sentences = [lead(one)]
    if one.reference in one.scores and one.reference != one.leader and len(one.scores) > 2:
        first, last = one.ranks()[one.reference]
        of = len(one.scores)
        place = f"number {first}" if first == last else f"anywhere from number {first} to {last}"
        sentences.append(
            f"{one.reference} has {one.level(one.reference)}, which makes it {place} of {of}."
        )
    elsewhere = [each for each in found[:-1] if each.leader != one.leader]
    for name in (name for name in one.beside if name not in FORMS):
        gain = one.over(one.leader, name).estimate.mean
        size = points(abs(gain)).lstrip("+")
        way = "more" if gain > 0 else "less"
        sentences.append(
            f"That is {size} {way} than {name}, which has {one.level(name)}."
            if len(sentences) == 1
            else f"{begun(name)} has {one.level(name)}: {one.leader} has {size} {way}."
        )
    if len(sentences) < 3 and elsewhere:
        parts = [f"{each.leader} {place_words(each)}" for each in elsewhere]
        sentences.append(f"Elsewhere others lead, {listed(parts, len(parts))}.")
    return tuple(sentences[:3])


def lead(one: Comparison) -> str:
    """Who leads, in a sentence that a person would say."""
    score = one.score(one.leader)
    where = f"{begun(place_words(one))}, " if one.place else ""
    name = one.leader if where else begun(one.leader)
    others = against(one.leader, one.scores)
    if not others:
        alone = "" if one.beside else "; there is nothing to compare it with"
        return f"{where}{name} reaches {score}{alone}."
    if max(d.estimate.n for d in others.values()) < 2:
        return f"{where}{name} leads with {score}, but one seed cannot tell methods apart."
    if not undecided(others):
        return f"{where}{name} is best, with {score}, surely ahead of {rest(others)}."
    level = [n for n, d in others.items() if d.p >= SURE]
    none = "nobody is surely best" if where else "Nobody is surely best"
    if len(level) == len(others):
        few = f"but {rest(others)}"
    else:
        few = f"and {listed(level, len(others))}"
    return f"{where}{none}; {one.leader} leads with {score}, {few} may be as good."


def rest(others: Collection[str]) -> str:
    """All others, as words.

    >>> rest(["b"]), rest(list("bcde"))
    ('b', 'all 4 others')
    """
    return listed(list(others), len(others))
